//! What is measured of calls: their latencies, and where reads find their keys. Only if
//! [`Options::statistics`](crate::Options::statistics) asks for it, because it takes clock reads for each call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use lsm_core::ValueKind;
use lsm_core::env::Env;

use super::histogram::{Histogram, Latency, STRIPES, stripe_of_thread};

/// Deeper levels count as the last of these.
const LEVELS: usize = 16;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    Seek,
    Put,
    Delete,
    DeleteRange,
    Merge,
    Batch,
}

impl Call {
    /// The write of a single operation of this kind.
    pub(crate) fn of(kind: ValueKind) -> Self {
        match kind {
            ValueKind::Delete | ValueKind::SingleDelete => Self::Delete,
            ValueKind::RangeDelete => Self::DeleteRange,
            ValueKind::Merge => Self::Merge,
            _ => Self::Put,
        }
    }
}

/// Statistics of the calls of a database.
pub(crate) struct Statistics {
    env: Arc<dyn Env>,
    calls: [Histogram; Call::Batch as usize + 1],
}

/// When a call started, in nanoseconds, if calls are measured.
#[derive(Clone, Copy)]
pub(crate) struct Started(u64);

impl Statistics {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, calls: Default::default() }
    }

    pub(crate) fn now_nanos(&self) -> u64 {
        self.env.monotonic_nanos()
    }

    pub(crate) fn nanos_since(&self, started_nanos: u64) -> u64 {
        self.now_nanos().saturating_sub(started_nanos)
    }

    /// Calls `call` and measures it.
    pub(crate) fn time<T>(&self, kind: Call, call: impl FnOnce() -> T) -> T {
        let started_nanos = self.now_nanos();
        let result = call();
        self.record(kind, self.nanos_since(started_nanos));
        result
    }

    fn record(&self, kind: Call, nanos: u64) {
        if let Some(histogram) = self.calls.get(kind as usize) {
            histogram.record(nanos);
        }
    }

    /// The latencies of a kind of calls so far.
    pub(crate) fn latency(&self, kind: Call) -> Latency {
        self.calls.get(kind as usize).map(Histogram::snapshot).unwrap_or_default()
    }
}

/// What a lookup met in a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// The table has a version of the key.
    pub(crate) found: bool,
    /// What its filter said, if it has one: whether the table may have the key.
    pub(crate) filter: Option<bool>,
}

/// What lookups met in the tables of one level.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LevelReads {
    pub(crate) found: u64,
    pub(crate) filter_negatives: u64,
    pub(crate) filter_false_positives: u64,
}

/// Statistics of the reads of one keyspace.
pub(crate) struct ReadStatistics {
    shared: Arc<Statistics>,
    /// Threads count apart; see [`Histogram`].
    stripes: [OnceLock<Box<[LevelCounters; LEVELS]>>; STRIPES],
}

#[derive(Default)]
struct LevelCounters {
    found: AtomicU64,
    filter_negatives: AtomicU64,
    filter_false_positives: AtomicU64,
}

impl ReadStatistics {
    pub(crate) fn new(shared: Arc<Statistics>) -> Self {
        Self { shared, stripes: Default::default() }
    }

    /// Calls `call` and measures it.
    pub(crate) fn time<T>(&self, kind: Call, call: impl FnOnce() -> T) -> T {
        self.shared.time(kind, call)
    }

    /// Counts a lookup in a table of `level`.
    pub(crate) fn note(&self, level: usize, probe: Probe) {
        let stripe =
            self.stripes.get(stripe_of_thread(STRIPES)).map(|stripe| stripe.get_or_init(Box::default));
        let Some(counters) = stripe.and_then(|levels| levels.get(level.min(LEVELS - 1))) else { return };
        let counter = match probe {
            Probe { found: true, .. } => &counters.found,
            Probe { filter: Some(false), .. } => &counters.filter_negatives,
            Probe { filter: Some(true), .. } => &counters.filter_false_positives,
            Probe { filter: None, .. } => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What lookups met in a level so far.
    pub(crate) fn level(&self, level: usize) -> LevelReads {
        let mut reads = LevelReads::default();
        let stripes = self.stripes.iter().filter_map(OnceLock::get);
        for counters in stripes.filter_map(|levels| levels.get(level)) {
            reads.found += counters.found.load(Ordering::Relaxed);
            reads.filter_negatives += counters.filter_negatives.load(Ordering::Relaxed);
            reads.filter_false_positives += counters.filter_false_positives.load(Ordering::Relaxed);
        }
        reads
    }
}

/// The statistics of a database, or nothing if it keeps none: then each call costs a branch.
#[derive(Clone, Default)]
pub(crate) struct MaybeStatistics(Option<Arc<Statistics>>);

impl MaybeStatistics {
    pub(crate) fn new(wanted: bool, env: &Arc<dyn Env>) -> Self {
        Self(wanted.then(|| Arc::new(Statistics::new(Arc::clone(env)))))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&Arc<Statistics>> {
        self.0.as_ref()
    }

    /// Notes the start of a call.
    #[inline]
    pub(crate) fn start(&self) -> Started {
        if self.0.is_some() { self.start_measured() } else { Started(0) }
    }

    #[cold]
    fn start_measured(&self) -> Started {
        Started(self.0.as_ref().map_or(0, |statistics| statistics.now_nanos()))
    }

    /// Measures a call that succeeded.
    #[inline]
    pub(crate) fn end(&self, kind: Call, started: Started) {
        if self.0.is_some() {
            self.end_measured(kind, started);
        }
    }

    #[cold]
    fn end_measured(&self, kind: Call, Started(started_nanos): Started) {
        if let Some(statistics) = &self.0 {
            statistics.record(kind, statistics.nanos_since(started_nanos));
        }
    }
}
