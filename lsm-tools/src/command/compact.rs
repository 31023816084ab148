use std::path::PathBuf;

use clap::Args;

use crate::database::{KeyspaceArg, open_for_writing};
use crate::exit::Result;

/// Merge everything down to the last level, dropping what was overwritten or deleted
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm compact db
  lsm compact db --keyspace users")]
pub(crate) struct Compact {
    /// Directory of the database
    db: PathBuf,
    #[command(flatten)]
    keyspace: KeyspaceArg,
}

impl Compact {
    pub(crate) fn run(self) -> Result<()> {
        let db = open_for_writing(&self.db)?;
        let keyspace = self.keyspace.existing(&db)?;
        keyspace.compact_range::<&[u8]>(..)?;
        db.wait_for_compactions()?;
        Ok(db.close()?)
    }
}
