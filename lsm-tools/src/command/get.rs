use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::database::{KeyspaceArg, bytes_of_argument, open_for_reading};
use crate::escape::escaped;
use crate::exit::{Failure, Result};
use crate::output::{Format, Output};

/// Print the value of a key; exit code 1 if it has none
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm get lsm-demo Iceland/Reykjavík/3413829
  lsm get db 'tab\\there'              # a key with a tab in it
  lsm get db --hex 00ff               # a key that is no text
  lsm get db picture --raw > out.png  # the bytes, and nothing else")]
pub(crate) struct Get {
    /// Directory of the database
    db: PathBuf,
    /// The key
    key: OsString,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// The key is given in hex digits
    #[arg(long)]
    hex: bool,
    /// How to print the value
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the bytes of the value as they are, without a line break
    #[arg(long, conflicts_with = "format")]
    raw: bool,
}

impl Get {
    pub(crate) fn run(self) -> Result<()> {
        let key = bytes_of_argument(&self.key, self.hex)?;
        let db = open_for_reading(&self.db)?;
        let keyspace = self.keyspace.existing(&db)?;
        let Some(value) = keyspace.get(&key)? else {
            return Err(Failure::NotFound(format!("there is no key \"{}\"", escaped(&key))));
        };
        let mut out = Output::stdout();
        if self.raw {
            out.raw(&value)?;
        } else {
            out.field(self.format, "value", &value)?;
        }
        out.flush()
    }
}
