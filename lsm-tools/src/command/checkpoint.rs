use std::path::PathBuf;

use clap::Args;
use lsm_engine::CheckpointOptions;

use crate::database::open_for_reading;
use crate::exit::Result;
use crate::output::{Output, bytes, grouped};

/// Make a second database that shares the files of the first
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm checkpoint db copy
  lsm checkpoint db copy --keyspace users --keyspace orders

The tables are shared by hard links, so this takes hardly any time or space; on another file system they are copied, \
and each byte is checked. The copy is whole and durable, or not there. It can be written to: neither database notices \
the other. DB is opened read-only and not changed.")]
pub(crate) struct Checkpoint {
    /// Directory of the database
    db: PathBuf,
    /// Directory to make; its parent must exist
    target: PathBuf,
    /// Copy only this keyspace; may be given several times
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    keyspace: Vec<String>,
}

impl Checkpoint {
    pub(crate) fn run(self) -> Result<()> {
        let db = open_for_reading(&self.db)?;
        let mut options = CheckpointOptions::new();
        if !self.keyspace.is_empty() {
            options = options.keyspaces(self.keyspace);
        }
        let made = db.checkpoint_with(&self.target, &options)?;
        let mut out = Output::stdout();
        out.line(format_args!("sequence     {}", grouped(made.sequence)))?;
        out.line(format_args!(
            "linked       {} files, {}",
            grouped(made.linked_files),
            bytes(made.linked_bytes)
        ))?;
        out.line(format_args!(
            "copied       {} files, {}",
            grouped(made.copied_files),
            bytes(made.copied_bytes)
        ))?;
        out.line(format_args!("log          {}", bytes(made.log_bytes)))?;
        out.flush()
    }
}
