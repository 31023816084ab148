//! Backups: copies of a database in a store elsewhere, of which each shares what it can with those before.
//!
//! Input: databases, frozen as for a checkpoint, and a store of named objects. Output: generations, each a whole copy, and
//! databases made of them. What a generation names is stored before it, and never deleted while it is there.

#[expect(clippy::module_inception, reason = "the folder has the name of what it is about")]
mod backup;
mod create;
mod directory;
mod format;
mod objects;
mod prune;
mod restore;
mod store;
mod verify;

pub use backup::{Backup, BackupProgress, Generation, Generations};
pub use directory::DirectoryStore;
pub use prune::Pruned;
pub use store::{BackupStore, Put, StoredObject};
pub use verify::{BackupDamage, BackupReport};
