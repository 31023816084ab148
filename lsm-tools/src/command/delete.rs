use clap::Args;
use lsm_engine::Durability;

use crate::database::{KeyArgs, open_for_writing};
use crate::exit::Result;

/// Delete a key; exit code 1 if it does not exist
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm delete db greeting
  lsm delete db --hex 00ff

The delete is on disk, safe from a power cut, when the command ends.")]
pub(crate) struct Delete {
    #[command(flatten)]
    key: KeyArgs,
}

impl Delete {
    pub(crate) fn run(self) -> Result<()> {
        let key = self.key.key()?;
        let db = open_for_writing(&self.key.db)?;
        let keyspace = self.key.keyspace.existing(&db)?;
        let existed = keyspace.get(&key)?.is_some();
        if existed {
            keyspace.delete_with(&key, Durability::Sync)?;
        }
        db.close()?;
        if existed { Ok(()) } else { Err(KeyArgs::not_found(&key)) }
    }
}
