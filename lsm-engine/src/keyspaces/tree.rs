//! The inside of a keyspace: its read state, options and failure.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::keyspaces::empty_spans::EmptySpans;
use crate::keyspaces::memtable::Memtable;
use crate::keyspaces::merging::Merging;
use crate::keyspaces::rate_limit::RateLimit;
use crate::keyspaces::read_state::ReadState;
use crate::memory::{Charge, Memory, Part};
use crate::metrics::{LevelWork, MaybeStatistics, ReadStatistics};
use crate::options::{ResolvedOptions, StoredOptions};
use crate::pins::{Pin, PinKind};
use crate::status::Status;
use crate::version::edit::KeyspaceRecord;
use crate::version::manifest::KeyspaceState;
use crate::version::{Shape, Version};

/// A keyspace, shared by handles, the committer and background jobs.
pub(crate) struct Tree {
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    options: ArcSwap<ResolvedOptions>,
    /// The time to live of puts, as the options have it; 0 for none. Apart, because each put reads it.
    ttl_micros: AtomicU64,
    /// The options that the manifest keeps.
    stored: Mutex<Arc<StoredOptions>>,
    /// The user has opened the keyspace by name.
    configured: AtomicBool,
    state: ArcSwap<ReadState>,
    /// Held while a new state is made from the old one.
    change: Mutex<()>,
    /// Numbers of the tables that compactions use.
    pub(crate) busy: Mutex<HashSet<u64>>,
    /// The busy tables that cannot be read, with level and run. No compaction reads them again.
    pub(crate) unreadable: Mutex<Vec<(usize, u64, Shape)>>,
    dropped: AtomicBool,
    /// The error that stopped background work of this keyspace.
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
    pub(crate) empty_spans: Arc<EmptySpans>,
    /// The time of the next try, if a flush failed with an error that may pass; otherwise 0.
    flush_retry_micros: AtomicU64,
    /// The rate limit of its writers.
    pub(crate) limit: RateLimit,
    /// What compactions have written, by level.
    level_work: Mutex<Vec<LevelWork>>,
    /// States that were replaced and still have readers, and when each was replaced, by the clock of waits.
    replaced: Mutex<Vec<(Weak<ReadState>, u64)>>,
    /// Told when background work stops, so that callers waiting for it check again.
    status: OnceLock<Arc<Status>>,
    /// The memory that the keyspace takes without any data.
    _charge: Charge,
}

/// Estimate of the memory that a keyspace takes in maps and for its writer, with the overhead of the allocator.
const PLACES_BYTES: usize = 576;

impl Tree {
    pub(crate) fn new(
        record: &KeyspaceRecord,
        options: Arc<ResolvedOptions>,
        version: Version,
        memory: &Arc<Memory>,
    ) -> Self {
        let merging = Merging::new(Arc::clone(&record.name), &options, &record.options);
        let state = ReadState::new(version, merging);
        let own = size_of::<Self>() + size_of::<ReadState>() + size_of::<Version>();
        let name = Arc::clone(&record.name);
        let recorded = size_of::<ResolvedOptions>()
            + size_of::<KeyspaceState>()
            + name.len()
            + record.options.memory_bytes();
        Self {
            _charge: Charge::new(memory, Part::Tables, own + recorded + PLACES_BYTES),
            id: record.id,
            name,
            stored: Mutex::new(Arc::clone(&record.options)),
            ttl_micros: AtomicU64::new(options.ttl_micros),
            options: ArcSwap::new(options),
            configured: AtomicBool::new(false),
            empty_spans: Arc::clone(&state.empty_spans),
            state: ArcSwap::from_pointee(state),
            change: Mutex::new(()),
            busy: Mutex::new(HashSet::new()),
            unreadable: Mutex::default(),
            dropped: AtomicBool::new(false),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
            flush_retry_micros: AtomicU64::new(0),
            limit: RateLimit::default(),
            level_work: Mutex::default(),
            replaced: Mutex::default(),
            status: OnceLock::new(),
        }
    }

    /// Sets the status of the database, which is told when background work stops.
    pub(crate) fn set_status(&self, status: &Arc<Status>) {
        self.status.get_or_init(|| Arc::clone(status));
        if status.snapshot_age_max_micros.is_some() {
            // Readers of the first state expire, too.
            self.update(|state| (**state).clone());
        }
    }

    pub(crate) fn options(&self) -> Arc<ResolvedOptions> {
        self.options.load_full()
    }

    /// Sets the options that follow from those of the user, the first time only. Returns `false` if they were set
    /// before.
    pub(crate) fn configure(&self, options: Arc<ResolvedOptions>) -> bool {
        let first = !self.configured.swap(true, Ordering::AcqRel);
        if first {
            let merging = Merging::new(Arc::clone(&self.name), &options, &self.stored());
            self.ttl_micros.store(options.ttl_micros, Ordering::Relaxed);
            self.options.store(options);
            let merging = Arc::new(merging);
            self.update(|state| ReadState { merging, ..(**state).clone() });
        }
        first
    }

    /// After how many microseconds a put expires, if the keyspace has a time to live.
    #[inline]
    pub(crate) fn ttl_micros(&self) -> Option<u64> {
        Some(self.ttl_micros.load(Ordering::Relaxed)).filter(|&micros| micros != 0)
    }

    /// Changes the options while the keyspace is open.
    pub(crate) fn set_options(&self, options: Arc<ResolvedOptions>) {
        self.ttl_micros.store(options.ttl_micros, Ordering::Relaxed);
        self.options.store(options);
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.configured.load(Ordering::Acquire)
    }

    /// The options that the manifest keeps.
    pub(crate) fn stored(&self) -> Arc<StoredOptions> {
        Arc::clone(&self.stored.lock())
    }

    pub(crate) fn set_stored(&self, options: Arc<StoredOptions>) {
        *self.stored.lock() = options;
    }

    pub(crate) fn record(&self) -> KeyspaceRecord {
        KeyspaceRecord { id: self.id, name: Arc::clone(&self.name), options: self.stored() }
    }

    /// The read state, for a short use: the guard is cheaper than a counted reference.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<ReadState>> {
        self.state.load()
    }

    /// The read state, to keep.
    pub(crate) fn load_full(&self) -> Arc<ReadState> {
        self.state.load_full()
    }

    /// Replaces the read state with the result of `change`.
    pub(crate) fn update(&self, change: impl FnOnce(&Arc<ReadState>) -> ReadState) {
        let _changing = self.change.lock();
        let state = self.state.load();
        let status = self.status.get();
        let has_bound = status.is_some_and(|status| status.snapshot_age_max_micros.is_some());
        let (generation, expired) = (state.generation + 1, has_bound.then(Arc::default));
        let next = Arc::new(ReadState { generation, expired, ..change(&state) });
        drop(state);
        let old = self.state.swap(Arc::clone(&next));
        if !Arc::ptr_eq(&old.version, &next.version) {
            next.version.retire(&old.version);
        }
        let mut replaced = self.replaced.lock();
        replaced.retain(|(state, _)| state.strong_count() > 0);
        // One reference is `old`, and one may be the state that is kept from before a clear.
        if Arc::strong_count(&old) > 1 + usize::from(next.keeps(&old)) {
            let now_micros = status.map_or(0, |status| status.events.env().monotonic_micros());
            replaced.push((Arc::downgrade(&old), now_micros));
        }
    }

    /// The states that are out of date and still have readers, and how long they have been out of date.
    fn replaced(&self) -> Vec<(Arc<ReadState>, u64)> {
        let now_micros = self.status.get().map_or(0, |status| status.events.env().monotonic_micros());
        let replaced = self.replaced.lock();
        let age = |since_micros: u64| now_micros.saturating_sub(since_micros);
        replaced.iter().filter_map(|(state, since)| Some((state.upgrade()?, age(*since)))).collect()
    }

    /// Iterators and cursors over states that are out of date.
    pub(crate) fn iterator_pins(&self) -> Vec<Pin> {
        let current = self.load_full();
        let pin = |(state, age_micros): (Arc<ReadState>, u64)| {
            let readers = Arc::strong_count(&state) - 1 - usize::from(current.keeps(&state));
            let obsolete = state.version.tables().filter(|table| table.is_obsolete());
            (readers > 0).then(|| Pin {
                kind: PinKind::Iterators,
                label: None,
                keyspace: Some(Arc::clone(&self.name)),
                sequence: None,
                age: Duration::from_micros(age_micros),
                readers: readers as u64,
                table_bytes: obsolete.map(|table| table.meta().file_bytes).sum(),
                log_bytes: 0,
            })
        };
        self.replaced().into_iter().filter_map(pin).collect()
    }

    /// Expires the cursors over states that have been out of date for longer than `age_max_micros`.
    pub(crate) fn expire_iterators(&self, age_max_micros: u64) {
        for (state, age_micros) in self.replaced() {
            if age_micros > age_max_micros
                && let Some(expired) = &state.expired
            {
                expired.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Marks the keyspace as dropped. The caller holds the commit lock, or writing has stopped, so no write follows.
    pub(crate) fn mark_dropped(&self, dropped: bool) {
        self.dropped.store(dropped, Ordering::Release);
    }

    /// Whether any of the memtables is not flushed yet.
    pub(crate) fn has_unflushed(&self, memtables: &[Arc<Memtable>]) -> bool {
        let state = self.load();
        let waits = |memtable: &Arc<Memtable>| state.immutable.iter().any(|left| Arc::ptr_eq(memtable, left));
        !self.is_dropped() && memtables.iter().any(waits)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.is_dropped() { Err(Error::KeyspaceDropped(Arc::clone(&self.name))) } else { Ok(()) }
    }

    /// The time of the next try of a failed flush. `None` if no flush failed or there is nothing to flush.
    pub(crate) fn flush_retry_micros(&self) -> Option<u64> {
        let at_micros = self.flush_retry_micros.load(Ordering::Acquire);
        (at_micros != 0 && !self.load().immutable.is_empty()).then_some(at_micros)
    }

    pub(crate) fn retry_flush_at(&self, micros: u64) {
        self.flush_retry_micros.store(micros.max(1), Ordering::Release);
    }

    /// Clears the retry time after a successful flush.
    pub(crate) fn forget_flush_retry(&self) {
        self.flush_retry_micros.store(0, Ordering::Release);
    }

    /// Begins to keep statistics of reads, if the database wants them.
    pub(crate) fn keep_statistics(&self, statistics: &MaybeStatistics) {
        if let Some(statistics) = statistics.get() {
            let own = Arc::new(ReadStatistics::new(Arc::clone(statistics)));
            self.update(|state| ReadState { statistics: Some(Arc::clone(&own)), ..(**state).clone() });
        }
    }

    /// What compactions have written since the database was opened, by level.
    pub(crate) fn level_work(&self) -> Vec<LevelWork> {
        self.level_work.lock().clone()
    }

    /// Counts a compaction that wrote to `level`.
    pub(crate) fn count_compaction(&self, level: usize, bytes_in: u64, bytes_out: u64) {
        let mut work = self.level_work.lock();
        if work.len() <= level {
            work.resize_with(level + 1, LevelWork::default);
        }
        if let Some(work) = work.get_mut(level) {
            work.compactions += 1;
            work.bytes_in += bytes_in;
            work.bytes_out += bytes_out;
        }
    }

    /// Fails if background work has stopped.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.failure().map_or(Ok(()), |error| Err(Error::WritingStopped(Arc::new(error))))
    }

    /// Stops background work and writes of this keyspace.
    pub(crate) fn fail(&self, error: Error) {
        tracing::error!(keyspace = &*self.name, %error, "background work stopped");
        let message = error.to_string().into();
        let mut failure = self.failure.lock();
        let is_first = failure.is_none();
        failure.get_or_insert(error);
        drop(failure);
        self.failed.store(true, Ordering::Release);
        if let Some(status) = self.status.get().filter(|_| is_first) {
            let (during, keyspace) = ("background work".into(), Some(Arc::clone(&self.name)));
            status.events.emit(EventKind::Error { during, keyspace, message });
            status.progress.notify();
        }
    }

    /// Whether the keyspace takes background work: it neither failed nor was dropped.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && !self.is_dropped()
    }

    #[inline]
    pub(crate) fn failure(&self) -> Option<Error> {
        if self.failed.load(Ordering::Acquire) { self.failure.lock().clone() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use super::ReadState;
    use crate::version::Placement;
    use crate::{Db, Options};

    /// A compaction moves or merges a table, and meanwhile the table is reopened.
    #[test]
    fn a_table_reopened_during_its_compaction_is_counted_once() {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
        let db: Db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        db.put("key", "value").unwrap();
        db.flush().unwrap();
        let (tree, memory) = (db.default.tree(), Arc::clone(&db.database.resources.memory));
        let others =
            memory.holding.tables.bytes() - tree.load().version.tables().next().unwrap().held_bytes();
        let counted = || (memory.holding.tables.bytes() - others, memory.held_table_bytes());
        let update = |version: &dyn Fn(&ReadState) -> crate::version::Version| {
            tree.update(|state| ReadState { version: Arc::new(version(state)), ..(**state).clone() });
        };

        let picked = tree.load().version.placements().next().unwrap();
        let anew = Arc::new(picked.table.reopened(&memory, &tree.options(), 0).unwrap());
        let (bytes, bytes_anew) = (picked.table.held_bytes(), anew.held_bytes());
        assert_ne!(bytes, bytes_anew);
        let opened = Placement { table: Arc::clone(&anew), ..picked.clone() };
        update(&|state| state.version.with_tables(std::slice::from_ref(&opened)));
        assert_eq!(counted(), (bytes_anew, bytes), "opened anew");

        let moved = |placement: &Placement| Placement { level: 1, ..placement.clone() };
        update(&|state| state.version.changed(std::slice::from_ref(&picked), vec![moved(&picked)]));
        assert!(Arc::ptr_eq(tree.load().version.tables().next().unwrap(), &anew));
        assert_eq!(counted(), (bytes_anew, bytes), "moved");
        drop(picked);
        assert_eq!(counted(), (bytes_anew, 0));

        let reader = tree.load_full();
        update(&|state| state.version.changed(&[moved(&opened)], Vec::new()));
        drop((opened, anew));
        assert_eq!(counted(), (0, bytes_anew), "merged");
        drop(reader);
        assert_eq!(counted(), (0, 0));
        drop((tree, db));
        env.drop_jobs();
    }
}
