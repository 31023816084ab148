//! `ingest`: tables that were built elsewhere become part of a database.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lsm_engine::{Ingest as Request, Options};

use crate::database::{KeyspaceArg, bytes_of_argument, open_or_create};
use crate::exit::Result;
use crate::output::{Output, bytes, duration};
use crate::stopwatch::Stopwatch;

/// Take in tables that were built elsewhere, all in one step
#[derive(Args, Debug)]
#[command(after_long_help = "\
The tables are those of TableBuilder in lsm-engine. Every byte is checked first, and they must not \
overlap. They are copied, unless --link or --move says otherwise; either all become part of the \
database, or nothing changes.

Examples:
  lsm ingest db cities.sst
  lsm ingest db part-*.sst --move
  lsm ingest db users.sst --keyspace users --replace user/ --up-to user0")]
pub(crate) struct Ingest {
    /// Directory of the database; created if it does not exist
    db: PathBuf,
    /// The tables, in any order
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<PathBuf>,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Link the files instead of copying them; nobody may write to them any more
    #[arg(long)]
    link: bool,
    /// Link the files, and remove their old names
    #[arg(long = "move", conflicts_with = "link")]
    move_files: bool,
    /// Delete all keys from this one in the same step, up to --up-to, except those in the tables
    #[arg(long, value_name = "KEY", requires = "up_to", allow_hyphen_values = true)]
    replace: Option<OsString>,
    /// The first key that --replace leaves
    #[arg(long, value_name = "KEY", requires = "replace", allow_hyphen_values = true)]
    up_to: Option<OsString>,
}

impl Ingest {
    pub(crate) fn run(self) -> Result<()> {
        let stopwatch = Stopwatch::start();
        let mut request = Request::new().tables(&self.tables);
        if self.link {
            request = request.link();
        }
        if self.move_files {
            request = request.move_files();
        }
        if let (Some(start), Some(end)) = (&self.replace, &self.up_to) {
            request = request.replace(bytes_of_argument(start, false)?..bytes_of_argument(end, false)?);
        }
        let db = open_or_create(&self.db, Options::new())?;
        let keyspace = self.keyspace.or_create(&db)?;
        keyspace.ingest(request)?;
        let metrics = db.metrics();
        drop(keyspace);
        db.close()?;
        let mut out = Output::stdout();
        let (count, size) = (metrics.ingested_tables, bytes(metrics.ingested_bytes));
        let tables = if count == 1 { "table" } else { "tables" };
        out.line(format_args!("{count} {tables} with {size} ingested in {}", duration(stopwatch.micros())))?;
        out.flush()
    }
}
