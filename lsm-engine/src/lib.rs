//! An embedded, ordered, durable key-value store: a log-structured merge engine.
//!
//! Writes go to a log and a sorted table in memory; full memory tables become sorted files, which background
//! merges keep few and tidy. Reads see one consistent state without taking a lock. Everything acknowledged
//! survives a crash of the process, and a power cut if the write asked for it. Every part can be replaced through
//! [`Options`]: memtable, compaction policy, filter, file system, clock and threads.
//!
//! A child by `fork` must leave the database to its parent, since it has none of its threads: there, dropping handles
//! does nothing, writing fails, and reading may wait for ever for a lock. It may open other databases of its own.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use lsm_engine::{Db, Durability, WriteBatch};
//!
//! let db = Db::open(dir.path())?;
//! db.put("fruit/apple", "red")?;
//! db.put_with("fruit/lemon", "yellow", Durability::Sync)?;
//! assert_eq!(db.get("fruit/apple")?.unwrap(), b"red");
//!
//! let mut batch = WriteBatch::new();
//! batch.put("fruit/plum", "blue").delete("fruit/apple");
//! db.write(batch)?;
//!
//! for entry in db.prefix("fruit/").rev() {
//!     let (key, value) = entry?;
//!     println!("{key:?} is {value:?}");
//! }
//! db.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod background;
mod batch;
mod callbacks;
mod database;
mod db;
mod error;
pub mod inspect;
mod keyspace;
mod keyspaces;
mod lock_order;
mod memory;
mod metrics;
mod options;
mod read;
mod recovery;
mod reentry;
mod resources;
mod snapshot;
mod status;
mod version;
mod write;

pub use batch::WriteBatch;
pub use db::Db;
pub use error::{Error, ErrorKind, Result};
pub use keyspace::Keyspace;
pub use metrics::{KeyspaceMetrics, LevelMetrics, Metrics};
pub use options::{KeyspaceOptions, MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, Options};
pub use read::{DbCursor, Iter};
pub use recovery::Recovery;
pub use snapshot::Snapshot;

pub use lsm_compaction as compaction_policies;
pub use lsm_core::{SequenceNumber, Slice, env, vfs};
pub use lsm_sstable::{
    BloomFilter, Compression, DelimitedPrefix, FilterPolicy, FixedPrefix, PrefixExtractor,
};
pub use lsm_wal::{Durability, RecoveryMode};
