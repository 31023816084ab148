//! An embedded, ordered, durable key-value store: a log-structured merge (LSM) engine.
//!
//! A write goes to the write-ahead log and to a memtable. A flush writes a full memtable to a sorted table file, and
//! compactions merge tables in the background. A read sees one consistent state and takes no lock. Every acknowledged
//! write survives a crash of the process; one with [`Durability::Sync`] also survives a power cut.
//!
//! Start with [`Db`]. [`Options`] sets the memory budget and replaces parts: memtable, compaction policy, filter, file
//! system, clock and threads. [`Keyspace`] is a separate map in the same database (RocksDB: column family),
//! [`WriteBatch`] an atomic write, [`Snapshot`] a consistent view, [`Transaction`] both together. A [`Ticket`] tells when a
//! write is durable, [`Error::kind`] what to do about an error, and [`Metrics`] shows what the engine does.
//!
//! After `fork`, only the parent may use the database: the child has none of its threads. In the child, dropping a
//! handle does nothing, writes fail, and a read may wait forever for a lock. The child may open other databases.
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
mod backup;
mod batch;
mod callbacks;
mod change_position;
mod checkpoint;
mod control;
mod database;
mod db;
mod error;
mod events;
mod feed;
mod follower;
mod health;
mod ingest;
pub mod inspect;
mod keyspace;
mod keyspaces;
mod lock_order;
mod locks;
mod memory;
mod memory_pool;
mod metrics;
mod options;
mod pins;
mod read;
mod read_modify_write;
mod recorder;
mod recovery;
mod reentry;
mod resources;
mod snapshot;
mod status;
mod ticket;
mod transaction;
mod version;
mod waits;
mod write;

pub use backup::{
    Backup, BackupDamage, BackupProgress, BackupReport, BackupStore, DirectoryStore, Generation, Generations,
    Pruned, Put, StoredObject,
};
pub use batch::WriteBatch;
pub use change_position::{ChangePosition, NotAPosition};
pub use checkpoint::{Checkpoint, CheckpointOptions};
pub use database::{DeletedFiles, Events};
pub use db::Db;
pub use error::{Error, ErrorKind, Result};
pub use events::{Event, EventKind, WaitReason};
pub use feed::{Change, ChangeBatch, ChangeKind, ChangeSlot, Changes, ChangesCanceller, IngestedTable};
pub use follower::{Follower, Progress};
pub use health::Health;
pub use ingest::{BulkLoad, Ingest, TableBuilder};
pub use keyspace::Keyspace;
pub use memory_pool::MemoryPool;
pub use metrics::{
    BackgroundMetrics, KeyspaceMetrics, Latency, LevelMetrics, MemoryPoolMetrics, Metrics, OperationMetrics,
    TransactionMetrics, WaitMetrics,
};
pub use options::{KeyspaceOptions, MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, Options};
pub use pins::{Pin, PinKind};
pub use read::{DbCursor, Iter, Keys, Values};
pub use read_modify_write::CompareAndSwap;
pub use recovery::Recovery;
pub use snapshot::Snapshot;
pub use ticket::{Ticket, TicketFuture};
pub use transaction::{
    Isolation, Savepoint, Transaction, TransactionCursor, TransactionIter, TransactionOptions, Untracked,
};
pub use waits::Wait;

pub use lsm_compaction as compaction_policies;
pub use lsm_compaction::{CompactionAt, CompactionFilter, Decision, LazyValue};
pub use lsm_core::merge_operator::{BuiltInMerge, MergeError, MergeOperator, decode_set, encode_set};
pub use lsm_core::{SequenceNumber, Slice, env, vfs};
pub use lsm_sstable::{
    BloomFilter, Compression, DelimitedPrefix, FilterPolicy, FixedPrefix, PrefixExtractor, TableOptions,
};
pub use lsm_wal::{Durability, RecoveryMode};

/// The examples of the guide are tested with the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../docs/GUIDE.md")]
mod guide {}
