use clap::Args;

use crate::database::{KeyArgs, open_for_reading};
use crate::exit::Result;
use crate::output::{Format, Output};

/// Print the value of a key; exit code 1 if it has none
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm get lsm-demo Iceland/Reykjavík/3413829
  lsm get db 'tab\\there'              # a key with a tab in it
  lsm get db --hex 00ff               # a key that is not text
  lsm get db picture --raw > out.png  # the bytes, and nothing else")]
pub(crate) struct Get {
    #[command(flatten)]
    key: KeyArgs,
    /// How to print the value
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the bytes of the value as they are, without a line break
    #[arg(long, conflicts_with = "format")]
    raw: bool,
}

impl Get {
    pub(crate) fn run(self) -> Result<()> {
        let key = self.key.key()?;
        let db = open_for_reading(&self.key.db)?;
        let keyspace = self.key.keyspace.existing(&db)?;
        let Some(value) = keyspace.get(&key)? else {
            return Err(KeyArgs::not_found(&key));
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
