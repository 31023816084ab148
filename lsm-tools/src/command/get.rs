use clap::Args;
use lsm_engine::inspect::versions;
use lsm_engine::{ErrorKind, Keyspace};

use crate::database::{FollowArg, KeyArgs};
use crate::exit::Result;
use crate::item::{Item, ItemFormat, name_of};
use crate::output::{Format, Output};
use crate::warnings::warn;

/// Print the value of a key; exit code 1 if it has none
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm get lsm-demo Iceland/Reykjavík/3413829
  lsm get db 'tab\\there'              # a key with a tab in it
  lsm get db --hex 00ff               # a key that is not text
  lsm get db picture --raw > out.png  # the bytes, and nothing else
  lsm get db counter --versions       # what is stored of the key

A key with merge operands has a value only with the merge operator of its keyspace. Where that is not built in, \
or refuses the operands, --raw prints what is stored, as --versions does.")]
pub(crate) struct Get {
    #[command(flatten)]
    key: KeyArgs,
    /// How to print the value
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the bytes of the value as they are, without a line break
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// Print the stored versions of the key, the newest first
    #[arg(long, conflicts_with = "raw")]
    versions: bool,
    #[command(flatten)]
    follow: FollowArg,
}

impl Get {
    pub(crate) fn run(self) -> Result<()> {
        let key = self.key.key()?;
        let db = self.follow.open_for_reading(&self.key.db)?;
        let keyspace = self.key.keyspace.existing(&db)?;
        let mut out = Output::stdout();
        if self.versions {
            self.print_versions(&keyspace, &key, &mut out)?;
            return out.flush();
        }
        let value = match keyspace.get(&key) {
            Err(error)
                if self.raw
                    && matches!(error.kind(), ErrorKind::OperatorMissing | ErrorKind::OperatorFailed) =>
            {
                warn(format_args!("{error}; this is what is stored, the newest first"));
                self.print_versions(&keyspace, &key, &mut out)?;
                return out.flush();
            }
            value => value?.ok_or_else(|| KeyArgs::not_found(&key))?,
        };
        if self.raw {
            out.raw(&value)?;
        } else {
            out.field(self.format, "value", &value)?;
        }
        out.flush()
    }

    fn print_versions(&self, keyspace: &Keyspace, key: &[u8], out: &mut Output) -> Result<()> {
        let versions = versions(keyspace, key)?;
        if versions.is_empty() {
            return Err(KeyArgs::not_found(key));
        }
        let format = if self.format == Format::Json { ItemFormat::Json } else { ItemFormat::Text };
        for version in &versions {
            let mut item = Item::new(name_of(version.kind)).number("sequence", version.sequence);
            if version.is_range_deleted {
                item = item.text("hidden_by", "range_delete");
            }
            out.item(&item.value(version.kind, &version.value, true), format)?;
        }
        Ok(())
    }
}
