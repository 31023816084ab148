use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lsm_engine::Durability;

use crate::database::{KeyspaceArg, bytes_of_argument, open_for_writing};
use crate::escape::escaped;
use crate::exit::{Failure, Result};

/// Delete a key; exit code 1 if it does not exist
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm delete db greeting
  lsm delete db --hex 00ff

The delete is on disk, safe from a power cut, when the command ends.")]
pub(crate) struct Delete {
    /// Directory of the database
    db: PathBuf,
    /// The key
    key: OsString,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// The key is given in hex digits
    #[arg(long)]
    hex: bool,
}

impl Delete {
    pub(crate) fn run(self) -> Result<()> {
        let key = bytes_of_argument(&self.key, self.hex)?;
        let db = open_for_writing(&self.db)?;
        let keyspace = self.keyspace.existing(&db)?;
        let existed = keyspace.get(&key)?.is_some();
        if existed {
            keyspace.delete_with(&key, Durability::Sync)?;
        }
        db.close()?;
        if existed {
            Ok(())
        } else {
            Err(Failure::NotFound(format!("there is no key \"{}\"", escaped(&key))))
        }
    }
}
