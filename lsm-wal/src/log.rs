//! The traits of a log, and positions in it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use lsm_core::env::Event;
use lsm_core::{Error, Result};

/// A byte position in a log, counted across all its segments. A record is named by the position of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Where a log begins that never was told to begin elsewhere; as a place to read from, the oldest record
    /// there is.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// A crash of the process, but not of the machine.
    #[default]
    Buffered,
    /// A power cut.
    Sync,
}

/// The writing end of a log of opaque records.
///
/// # Contract
///
/// - Whoever holds the log is the only one who appends: `&mut self` says so. Waiting for durability, and removing what
///   is not needed any more, goes through [`sync_handle`](Log::sync_handle), from any number of threads, while appending goes on.
/// - Records are found again in the order of their appends, whole or not at all, each behind all its
///   predecessors: after a crash the log is a prefix of what was appended, at least up to the last append that
///   returned (crash of the process) or the last position that was durable (power cut).
/// - A failed append leaves no record to those that follow it. A later one may succeed. Should the process end first,
///   recovery may find the record after all, if all of it reached the file although writing it failed.
/// - After a failed sync nothing can be appended or waited for any more, [`Error::Stopped`] says why; open
///   the log anew.
///
/// [`Error::Stopped`]: lsm_core::Error::Stopped
pub trait Log: Send {
    /// Appends one record of at most 4 GiB - 1 bytes and returns the position of its end. Recovery finds it
    /// after a crash of the process once this returns. `tag` is the caller's, handed back by readers.
    fn append(&mut self, tag: u64, payload: &[u8]) -> Result<Position>;

    /// The handle for all that takes time.
    fn sync_handle(&self) -> Arc<dyn LogSync>;

    /// [`LogSync::truncate_front`], for whoever has the log at hand.
    fn truncate_front(&mut self, position: Position) -> Result<()> {
        self.sync_handle().truncate_front(position)
    }

    /// Position of the end of the last record.
    fn end(&self) -> Position;

    /// Syncs everything, closes, and returns what a marker of a clean close needs. Those who wait for a callback were
    /// called when this returns, unless one of them calls it.
    fn close(self: Box<Self>) -> Result<CleanClose>;
}

/// The end of a log for all that takes time, from any number of threads, while appending goes on.
pub trait LogSync: Send + Sync {
    /// Blocks, through `Env::wait`, until everything before `position` is durable. Those who wait at the same
    /// time share one sync. Must not be called from a job nor with a lock held that a job takes.
    fn wait_durable(&self, position: Position) -> Result<()>;

    /// Everything before this survives a power cut.
    fn durable(&self) -> Position;

    /// Everything before `position` is no longer needed: whole segments below it are removed, once the rest is durable.
    /// Waits as [`wait_durable`](LogSync::wait_durable) does.
    fn truncate_front(&self, position: Position) -> Result<()>;

    /// Leaves the current segment for a new one, so that [`truncate_front`](LogSync::truncate_front) can remove all
    /// records before the position that this returns: everything that was appended before the call. What the log keeps of
    /// those records elsewhere, it overwrites, durably. Waits as [`wait_durable`](LogSync::wait_durable) does. A log that
    /// cannot do this fails with [`Error::InvalidArgument`].
    fn begin_segment(&self) -> Result<Position> {
        Err(Error::invalid("this log cannot begin a segment when it is asked to"))
    }

    /// What is notified each time that more is durable.
    fn advanced(&self) -> Event;

    /// Asks for a sync, and calls `callback` once everything before `position` is durable, or with the error of a sync
    /// that failed. Each callback is called once.
    ///
    /// If the answer is known already, it is called at once, by the calling thread; otherwise in the background, by a
    /// thread that holds no lock, of the log or of anybody who syncs. It must not block, and a panic in it goes no
    /// further.
    fn on_durable(&self, position: Position, callback: DurableCallback);

    /// Tells `observer` of the current segment at once, and of all later changes. It replaces an earlier observer. It runs while the log is locked: it must be short, must not panic, and must not call the log.
    fn observe(&self, observer: LogObserver) {
        drop(observer);
    }
}

/// What [`LogSync::observe`] calls.
pub type LogObserver = Arc<dyn Fn(LogChange<'_>) + Send + Sync>;

/// A change of a log.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum LogChange<'a> {
    /// Records go to this file from now on.
    Begun(&'a Path),
    /// This file was removed, because nothing needs it any more.
    Removed(&'a Path),
    /// A sync failed with this error: the log takes no more records.
    Stopped(&'a Error),
    /// An append begins to write to files: the window is full, or the record is too long for it. Most appends only copy.
    /// [`Written`](Self::Written) follows.
    Writing,
    /// The append has written to files, or failed to.
    Written,
    /// A sync ended that took so many microseconds.
    Synced(u64),
}

/// What [`LogSync::on_durable`] calls.
pub type DurableCallback = Box<dyn FnOnce(Result<()>) + Send>;

/// Where a log ended when it was closed. Whoever keeps it (an engine in its `CURRENT` file) and hands it to
/// [`WalReader::open`](crate::WalReader::open) notices a log that was cut afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanClose {
    /// Position of the end of the last record.
    pub end: Position,
    /// Number of the last segment.
    pub segment: u64,
    /// Bytes of the last segment up to the end of the last record, its header included.
    pub length: u64,
    /// Checksum of the last record, chained over everything before it.
    pub checksum: u64,
}
