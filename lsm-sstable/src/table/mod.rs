//! Tables: the writer, the open table, its cursor.

mod block;
mod block_finder;
mod cursor;
mod lookup;
mod open;
mod output;
mod paged;
mod read;
mod reader;
mod tail;
mod verify;
mod writer;

pub use block::TableBlock;
pub use cursor::{CursorAccess, TableCursor};
pub use reader::{Table, TableValue};
pub use verify::VerifyReport;
pub use writer::{TableWriter, UnsyncedTable};
