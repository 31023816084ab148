//! Resources that all parts of a database use: directory, file system, environment, memory, counters, obsolete files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::env::{Env, Event};
use lsm_core::vfs::Vfs;
use lsm_sstable::TableId;

use crate::error::{Error, Result};
use crate::events::{EventKind, EventRing, WaitReason};
use crate::lock_order::assert_none_held;
use crate::memory::Memory;
use crate::metrics::{Counters, MaybeStatistics};
use crate::version::{DiskReserve, Leases, ObsoleteFiles};
use crate::waits::Waits;

/// Resources that all parts of a database use. They know none of those parts.
pub(crate) struct Resources {
    /// A random id that tells databases apart within a process.
    pub(crate) database_id: u64,
    pub(crate) directory: PathBuf,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) counters: Counters,
    pub(crate) statistics: MaybeStatistics,
    pub(crate) events: Arc<EventRing>,
    pub(crate) waits: Waits,
    pub(crate) obsolete_files: Arc<ObsoleteFiles>,
    pub(crate) disk_reserve: Arc<DiskReserve>,
    /// The leases of followers.
    pub(crate) leases: Arc<Leases>,
}

impl Resources {
    pub(crate) fn new(
        directory: PathBuf,
        vfs: Arc<dyn Vfs>,
        env: Arc<dyn Env>,
        memory: Arc<Memory>,
        disk_reserve_bytes: u64,
        with_statistics: bool,
    ) -> Arc<Self> {
        let (counters, obsolete_files) = (Counters::default(), Arc::default());
        let database_id = env.random();
        let disk_reserve = Arc::new(DiskReserve::find(&vfs, &directory, disk_reserve_bytes));
        let events = Arc::new(EventRing::new(Arc::clone(&env)));
        let waits = Waits::new(Arc::clone(&env), Arc::clone(&events));
        let statistics = MaybeStatistics::new(with_statistics, &env);
        let leases = Arc::new(Leases::new(Arc::clone(&vfs), Arc::clone(&env), directory.clone()));
        Arc::new(Self {
            database_id,
            directory,
            vfs,
            env,
            memory,
            counters,
            statistics,
            events,
            waits,
            obsolete_files,
            disk_reserve,
            leases,
        })
    }

    /// A random id for a new file.
    pub(crate) fn random_id(&self) -> TableId {
        TableId(u128::from(self.env.random()) << 64 | u128::from(self.env.random()))
    }

    /// Syncs the directory, which makes the names of new files durable.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        let directory = &self.directory;
        self.vfs.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))
    }

    /// Unlinks the obsolete files that no follower needs. If one cannot be removed, the next open finds it and tries again.
    pub(crate) fn remove_obsolete_files(&self) {
        for path in self.obsolete_files.take(&self.leases) {
            match self.vfs.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "failed to remove an obsolete file");
                    self.obsolete_files.leave(path);
                }
                Err(_) => {}
                Ok(()) => self.events.emit(EventKind::FileDeleted { file: file_name(&path) }),
            }
        }
    }

    /// After a failure of background work: if descriptors ran out, the file cache closes some files.
    pub(crate) fn close_files_after(&self, error: &Error) {
        if let Error::Storage(error) = error {
            self.memory.file_cache.close_some_after(error);
        }
    }

    /// Fails in a forked child: it shares files, their locks and the window of the log with its parent.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.env.is_forked() { Err(forked()) } else { Ok(()) }
    }

    /// Blocks until `done` returns `true`. Calls it again after each notification of `event`. The wait is registered
    /// with its reason.
    pub(crate) fn wait_for(
        &self,
        why: WaitReason,
        event: &Event,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let mut waiting = None;
        self.wait_until(event, || {
            let is_done = done()?;
            if !is_done {
                waiting.get_or_insert_with(|| self.waits.begin(why, None));
            }
            Ok(is_done)
        })
    }

    /// Like [`wait_for`](Self::wait_for), for a caller that has registered its wait.
    pub(crate) fn wait_until(&self, event: &Event, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        assert_none_held(self.place());
        loop {
            let seen = event.epoch();
            if done()? {
                return Ok(());
            }
            self.env.wait(event, seen, None);
        }
    }
}

#[cold]
fn forked() -> Error {
    Error::invalid("the database belongs to the parent of this forked process")
}

/// The name of a file of the database, for an event.
pub(crate) fn file_name(path: &Path) -> Arc<str> {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}
