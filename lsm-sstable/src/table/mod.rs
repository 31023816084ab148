//! Tables: the writer, the open table, its readers, and its verification.

mod block;
mod copy_check;
mod handle;
mod lookup;
mod open;
mod read;
mod sections;
mod tail;
mod verify;
mod writer;

pub use block::TableBlock;
pub use copy_check::CopyCheck;
pub use handle::Table;
pub use read::{CursorAccess, TableCursor, TableValue};
pub use verify::VerifyReport;
pub use writer::{TableWriter, UnsyncedTable};
