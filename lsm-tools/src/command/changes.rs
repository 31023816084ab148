use std::path::PathBuf;

use clap::Args;
use lsm_engine::{Change, ChangeKind, ChangePosition};

use crate::database::open_for_reading;
use crate::exit::{Failure, Result};
use crate::item::{Item, ItemFormat};
use crate::output::Output;

/// Show the changes that the log of a database has
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm changes db                     # all that the log still has
  lsm changes db --from POSITION     # those after a position
  lsm changes db --format json

Prints every write in the order in which it was made, and after each batch the position at which a reader of changes goes \
on. The log has what recovery needs, and what change slots keep. Positions are printed, and given, as text. The database \
must not be open in another process for writing.")]
pub(crate) struct Changes {
    /// Directory of the database
    db: PathBuf,
    /// Begin after this position, as an earlier run printed it
    #[arg(long, value_name = "POSITION")]
    from: Option<String>,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: ItemFormat,
}

impl Changes {
    pub(crate) fn run(self) -> Result<()> {
        let parse = |text: &String| text.parse::<ChangePosition>();
        let from =
            self.from.as_ref().map(parse).transpose().map_err(|error| Failure::Usage(error.to_string()))?;
        let db = open_for_reading(&self.db)?;
        let from = from.map_or_else(|| db.oldest_change_position(), Ok)?;
        let mut out = Output::stdout();
        print_position(&from, self.format, &mut out)?;
        let mut changes = db.changes(&from)?;
        while let Some(batch) = changes.try_next()? {
            for change in &batch.changes {
                out.item(&item(change), self.format)?;
            }
            print_position(&batch.position, self.format, &mut out)?;
        }
        out.flush()
    }
}

fn print_position(position: &ChangePosition, format: ItemFormat, out: &mut Output) -> Result<()> {
    out.item(&Item::new("position").text("is", position.to_string()), format)
}

fn item(change: &Change) -> Item<'_> {
    let item = |what| {
        let item = Item::new(what).number("sequence", change.sequence);
        item.bytes("keyspace", change.keyspace.as_bytes())
    };
    match &change.kind {
        ChangeKind::Put { key, value } => item("put").bytes("key", key).bytes("value", value),
        ChangeKind::PutExpiring { key, value, expires_at_micros } => {
            let item = item("put_expiring").bytes("key", key).bytes("value", value);
            item.number("expires_at_micros", *expires_at_micros)
        }
        ChangeKind::Delete { key } => item("delete").bytes("key", key),
        ChangeKind::SingleDelete { key } => item("single_delete").bytes("key", key),
        ChangeKind::DeleteRange { start, end } => {
            item("delete_range").bytes("start", start).bytes("end", end)
        }
        ChangeKind::Merge { key, operand } => item("merge").bytes("key", key).bytes("operand", operand),
        ChangeKind::Clear => item("clear"),
        ChangeKind::Ingest { tables } => {
            let entries = tables.iter().map(|table| table.entries).sum::<u64>();
            item("ingest").number("tables", tables.len() as u64).number("entries", entries)
        }
        ChangeKind::KeyspaceCreated => item("keyspace_created").number("id", change.keyspace_id),
        ChangeKind::KeyspaceDropped => item("keyspace_dropped").number("id", change.keyspace_id),
        kind => item("other").text("what", format!("{kind:?}")),
    }
}
