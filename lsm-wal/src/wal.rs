use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::env::{Env, Priority};
use lsm_core::vfs::{LockGuard, Vfs};
use lsm_core::{Error, Result};

use crate::files::directory::{self, LogFile};
use crate::log::{CleanClose, Log, LogSync, Position};
use crate::options::WalOptions;
use crate::read::wal_reader::WalReader;
use crate::report::{LogExpectation, RecoveryMode, RecoveryReport};
use crate::sync::MutexGuard;
use crate::ticket::Ticket;
use crate::write::background_job::BackgroundJob;
use crate::write::group_commit::GroupCommit;
use crate::write::origin::Origin;
use crate::write::recovery;
use crate::write::resume;
use crate::write::site::Site;
use crate::write::writer::Writer;

/// A write-ahead log in the files of a directory, which it may share with other files.
///
/// Appending costs a copy: records go to a small resident file, the *window*, that survives a crash of the
/// process, and from there to a preallocated segment in large writes. A background job, given to the [`Env`],
/// keeps a spare segment ready and syncs what has been buffered for [`WalOptions::sync_lag_micros`].
///
/// Dropping a log writes and syncs everything as far as possible; [`Log::close`] also says whether that worked.
///
/// ```
/// use std::sync::Arc;
/// use lsm_core::{env::ThreadEnv, vfs::PosixFs};
/// use lsm_wal::{Log, Wal, WalOptions};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path().join("log");
///
/// let env = Arc::new(ThreadEnv::new(1));
/// let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
/// let (mut log, report) = Wal::open(Arc::new(PosixFs), env.clone(), &directory, options.clone())?;
/// assert_eq!(report.records, 0);
/// let position = log.append(1, b"survives a crash of the process")?;
/// log.ticket(position).wait()?; // and now a power cut
/// Box::new(log).close()?;
///
/// let (_log, report) = Wal::open(Arc::new(PosixFs), env, &directory, options)?;
/// assert_eq!((report.records, report.end), (1, position));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Wal {
    shared: Arc<GroupCommit>,
    _lock: Option<Box<dyn LockGuard>>,
}

/// Where a new log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstSegment {
    /// Number of its first segment, from 1 on.
    pub number: u64,
    /// The position at which its first record will begin.
    pub start: Position,
}

impl Default for FirstSegment {
    /// That of a log that never was before: segment 1, at position 0.
    fn default() -> Self {
        Self { number: 1, start: Position::ZERO }
    }
}

impl Wal {
    /// Opens a log to be used alone, creating the directory if need be, and goes on after its last record.
    ///
    /// Takes the lock file `LOCK` in the directory. Unless the log was closed cleanly, what is not known to be
    /// synced is written anew into a synced segment first, since a disk cannot be asked what it has. Nothing is
    /// removed before that is done. Segments with dropped bytes are set aside, see
    /// [`DROPPED_SUFFIX`](crate::DROPPED_SUFFIX).
    ///
    /// Reads all records for the report; [`read_from`](Self::read_from) hands them out.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        env: Arc<dyn Env>,
        directory: &Path,
        options: WalOptions,
    ) -> Result<(Self, RecoveryReport)> {
        options.check()?;
        let lock = recovery::lock_directory(&*vfs, directory)?;
        let site = Site { vfs, directory: directory.to_owned(), options };
        let (writer, report) = recovery::recover(&site, &*env)?;
        Ok((Self::run(site, env, writer, Some(lock)), report))
    }

    /// Begins a new log for an engine, which knows where it starts and which segment numbers are free: that of the
    /// first segment and all above must be, and numbers are never used again. Files of older logs in the directory
    /// are left alone. The caller holds a lock on the directory.
    ///
    /// Durable when it returns.
    pub fn create(
        vfs: Arc<dyn Vfs>,
        env: Arc<dyn Env>,
        directory: &Path,
        first: FirstSegment,
        options: WalOptions,
    ) -> Result<Self> {
        options.check()?;
        if first.number == 0 {
            return Err(Error::invalid("segments are numbered from 1"));
        }
        let site = Site { vfs, directory: directory.to_owned(), options };
        let origin = Origin::root(first.start, &*env);
        let writer = Writer::begin(site.clone(), first.number, origin, VecDeque::new())?;
        Ok(Self::run(site, env, writer, None))
    }

    /// Goes on with a log that `whole` has read to its end, from a position that the engine needs: what was read and is
    /// not known to be durable is made so where it stands. For an engine that cannot do without the old log yet, and on
    /// a disk that may have no room to write it anew: that is what [`open`](Self::open) does.
    /// [`release_unused`](crate::release_unused) is part of it. Of the segments before the first that was read, those stay
    /// that have records from `kept` on; [`start`](Self::start) tells which there are. Numbers from `first_segment` on are
    /// free, as for [`create`](Self::create). The caller holds a lock on the directory.
    ///
    /// Returns the log, durable, and the paths of what was set aside; see [`DROPPED_SUFFIX`](crate::DROPPED_SUFFIX). If
    /// it fails, the log can be read as before.
    pub fn resume(
        env: Arc<dyn Env>,
        whole: &WalReader,
        kept: Position,
        first_segment: u64,
        options: WalOptions,
    ) -> Result<(Self, Vec<PathBuf>)> {
        options.check()?;
        let (vfs, directory) = whole.place();
        let site = Site { vfs: Arc::clone(vfs), directory: directory.to_owned(), options };
        let (writer, set_aside) = resume::resume(&site, &*env, whole, kept, first_segment)?;
        Ok((Self::run(site, env, writer, None), set_aside))
    }

    fn run(site: Site, env: Arc<dyn Env>, writer: Writer, lock: Option<Box<dyn LockGuard>>) -> Self {
        let shared = Arc::new(GroupCommit::new(env, site.clone(), writer));
        let job = BackgroundJob::new(Arc::clone(&shared), site);
        shared.env.spawn(Priority::High, Box::new(job));
        Self { shared, _lock: lock }
    }

    /// The records from a position on, up to what is appended now. Appending may go on meanwhile; truncating
    /// the front past the reader makes it fail.
    pub fn read_from(&self, position: Position) -> Result<WalReader> {
        let end = {
            let mut writer = self.shared.writer.lock();
            writer.flush_for_reading()?;
            Position(writer.end())
        };
        let Site { vfs, directory, .. } = &self.shared.site;
        let mode = RecoveryMode::TolerateTornTail;
        let expected = LogExpectation { from: position.min(end), ..LogExpectation::default() };
        let reader = WalReader::open(Arc::clone(vfs), directory, &expected, mode)?;
        Ok(reader.until(end))
    }

    /// Forgets all records that end after `position`, which must be the end of a record or where the log
    /// begins. Durable when it returns, as are all records before. If it fails, the log is stopped.
    pub fn truncate_tail(&mut self, position: Position) -> Result<()> {
        if position == self.end() {
            return self.shared.synced(|_| Ok(()));
        }
        let mut reader = self.read_from(position)?;
        let resume_point =
            reader.find_resume_point()?.filter(|resume_point| resume_point.position == position.0);
        let Some(resume_point) = resume_point.filter(|_| position < self.end()) else {
            return Err(Error::invalid(format!("no record of the log ends at position {position}")));
        };
        let origin = Origin::after(resume_point, &*self.shared.env);
        let _one_at_a_time = self.shared.removing.lock();
        let Site { vfs, directory, .. } = &self.shared.site;
        self.shared.synced(|writer| {
            let (segments, window) = writer.truncate_tail(origin).inspect_err(|error| writer.stop(error))?;
            self.shared.set_durable(position.0);
            for number in segments {
                directory::remove(&**vfs, &LogFile::Segment(number).path(directory))?;
            }
            if let Some(window) = window {
                directory::remove(&**vfs, &window)?;
            }
            directory::sync(&**vfs, directory)
        })
    }

    /// Where the oldest segment of the log begins: there are no records before.
    pub fn start(&self) -> Position {
        Position(self.shared.writer.lock().start())
    }

    /// A ticket for everything before `position` being durable.
    pub fn ticket(&self, position: Position) -> Ticket {
        Ticket::new(self.sync_handle(), position)
    }

    /// How long the oldest record has waited that no sync has covered yet, in microseconds.
    pub fn sync_lag_micros(&self) -> u64 {
        self.shared.sync_lag_micros()
    }

    /// A first record since the last sync: the background job has to know when it was.
    #[cold]
    fn note_unsynced(&self, mut writer: MutexGuard<'_, Writer>) {
        writer.background.oldest_unsynced_micros = Some(self.shared.env.monotonic_micros());
        if std::mem::take(&mut writer.background.job_sleeps) {
            drop(writer);
            self.shared.work.notify();
        }
    }
}

impl Log for Wal {
    #[inline]
    fn append(&mut self, tag: u64, payload: &[u8]) -> Result<Position> {
        let mut writer = self.shared.writer.lock();
        let position = writer.append(tag, payload)?;
        if writer.background.oldest_unsynced_micros.is_none() {
            self.note_unsynced(writer);
        }
        Ok(position)
    }

    fn sync_handle(&self) -> Arc<dyn LogSync> {
        Arc::clone(&self.shared) as Arc<dyn LogSync>
    }

    fn end(&self) -> Position {
        Position(self.shared.writer.lock().end())
    }

    fn close(self: Box<Self>) -> Result<CleanClose> {
        let closed = self.shared.synced(Writer::close);
        self.shared.calls.wait_until_called(&*self.shared.env);
        closed
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // There is nobody to report a failure to; what was acknowledged is in the window or in a segment.
        let _ = self.shared.synced(|_| Ok(()));
        self.shared.retire();
    }
}
