//! A file system in memory that knows what a disk would keep; see [`SimFs`].

mod content;
mod crash;
mod directory;
mod faults;
mod file;
mod file_system;
mod handle;
mod images;
mod tree;

pub use crash::{AllKept, AllLost, Choice, EntryChange, Fate, Piece, PieceKind, Seeded};
pub use faults::{Fault, InjectedFault, Operation, OperationKind};
pub use file_system::SimFs;
pub use images::{CrashImage, CrashImages};
