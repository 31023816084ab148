//! Tables: the writer, the open table, its cursor.

mod block;
mod block_finder;
mod cursor;
mod file_writer;
mod handle;
mod lookup;
mod open;
mod paged;
mod read;
mod reader;
mod sections;
mod tail;
mod value;
mod verify;
mod writer;

pub use block::TableBlock;
pub use cursor::{CursorAccess, TableCursor};
pub use handle::Table;
pub use value::TableValue;
pub use verify::VerifyReport;
pub use writer::{TableWriter, UnsyncedTable};
