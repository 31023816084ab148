use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lsm_core::key::VALUE_BYTES_MAX;
use lsm_engine::{Durability, Options};

use crate::database::{KeyspaceArg, bytes_of_argument, open_or_create};
use crate::exit::{Failure, Result};

/// Set a key to a value, creating the database if there is none
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm put db greeting hello
  lsm put db 'two\\nlines' 'a\\tb'        # escapes as `scan` prints them
  lsm put db --hex 00ff 0102           # bytes that are not text
  lsm put db picture < in.png          # no value: standard input, byte for byte
  lsm put db -- -key -value            # arguments that begin with a dash
  lsm put db session Ada --expires-in 3600

The write is on disk, safe from a power cut, when the command ends.")]
pub(crate) struct Put {
    /// Directory of the database; created if it does not exist
    db: PathBuf,
    /// The key
    key: OsString,
    /// The value; standard input if left out
    value: Option<OsString>,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Key and value are given in hex digits; standard input is read as it is
    #[arg(long)]
    hex: bool,
    /// The key is absent again after so many seconds
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u64>,
}

impl Put {
    pub(crate) fn run(self) -> Result<()> {
        let key = bytes_of_argument(&self.key, self.hex)?;
        let value = match &self.value {
            Some(value) => bytes_of_argument(value, self.hex)?,
            None => read_value()?,
        };
        let db = open_or_create(&self.db, Options::new())?;
        let keyspace = self.keyspace.or_create(&db)?;
        match self.expires_in.map(Duration::from_secs) {
            Some(after) => keyspace.put_expiring_with(&key, &value, after, Durability::Sync)?,
            None => keyspace.put_with(&key, &value, Durability::Sync)?,
        }
        Ok(db.close()?)
    }
}

fn read_value() -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let limit = VALUE_BYTES_MAX.saturating_add(1);
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut value)
        .map_err(|error| Failure::io("read the value from standard input", &error))?;
    if value.len() as u64 == limit {
        return Err(Failure::Usage(format!("the value is longer than {VALUE_BYTES_MAX} bytes")));
    }
    Ok(value)
}
