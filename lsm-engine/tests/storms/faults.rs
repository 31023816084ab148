use std::io::ErrorKind as Io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lsm_engine::vfs::Fault;
use lsm_engine::vfs::OperationKind::{
    self, Allocate, Create, CreateWindow, Lock, Metadata, Open, Read, ReadDir, Remove, Rename, SetLen, Sync,
    SyncDir, Write,
};

use lsm_engine::env::Env;

use super::copies::CHECKPOINT;
use super::filter::Gardener;
use super::transactions;
use super::world::{Faults, World};
use Files::{Any, Current, Log, Manifests, Tables, Windows};

/// The files that a fault concerns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Files {
    Any,
    Tables,
    Manifests,
    Log,
    Windows,
    Current,
}

impl Files {
    fn only(self, fault: Fault) -> Fault {
        match self {
            Self::Any => fault,
            Self::Tables => fault.named(".sst"),
            Self::Manifests => fault.name_starting("MANIFEST-"),
            Self::Log => fault.named(".wal"),
            Self::Windows => fault.named(".window"),
            Self::Current => fault.name_starting("CURRENT"),
        }
    }
}

pub(super) type Kind = (OperationKind, Files);

/// Operations that happen all the time.
const OFTEN: [Kind; 8] = [
    (Write, Any),
    (Write, Tables),
    (Write, Manifests),
    (Write, Log),
    (Sync, Any),
    (Sync, Tables),
    (Sync, Manifests),
    (Sync, Log),
];

/// Operations of an open database besides those.
pub(super) const WHILE_OPEN: [Kind; 9] = [
    (Create, Tables),
    (Create, Log),
    (Open, Tables),
    (Read, Tables),
    (SetLen, Manifests),
    (Allocate, Log),
    (SyncDir, Any),
    (Remove, Tables),
    (Remove, Log),
];

/// Operations of a database that closes.
pub(super) const AT_CLOSE: [Kind; 6] =
    [(SetLen, Log), (Write, Current), (Sync, Current), (Rename, Current), (SyncDir, Any), (Remove, Windows)];

/// Operations of a database that is being opened.
pub(super) const AT_OPENING: [Kind; 22] = [
    (Create, Manifests),
    (Create, Current),
    (Create, Log),
    (Open, Tables),
    (Open, Manifests),
    (Open, Log),
    (Open, Windows),
    (Open, Current),
    (Read, Tables),
    (Read, Manifests),
    (Read, Log),
    (Read, Windows),
    (Read, Current),
    (Write, Current),
    (Sync, Current),
    (CreateWindow, Windows),
    (Rename, Current),
    (Remove, Manifests),
    (Remove, Windows),
    (Lock, Any),
    (ReadDir, Any),
    (Metadata, Any),
];

/// Other events.
pub(super) const OPEN_FILES: &str = "no more open files";
pub(super) const CLOCK: &str = "a jump of the clock";
pub(super) const WENT_ON: &str = "a write after one that failed";

/// The calls that may panic, by part.
const MEMTABLE: &[&str] = &[
    "create",
    "reserve",
    "insert",
    "drop",
    "cursor",
    "memory_bytes",
    "entry_count",
    "first",
    "seek",
    "next",
    "entry",
];
const FILTER: &[&str] = &["filter name", "filter build", "filter_bytes", "part"];
const POLICY: &[&str] = &["level_count", "pick", "debt_bytes", "drops_data"];

const MERGE_OPERATOR: &[&str] = &["full", "partial"];

/// Parts that panic, their methods, and the highest number of the call that panics.
const PANICS: [(&str, &[&str], usize); 5] = [
    ("a memtable that panics", MEMTABLE, 200),
    ("a filter that panics", FILTER, 5),
    ("a policy that panics", POLICY, 20),
    ("a merge operator that panics", MERGE_OPERATOR, 20),
    ("a compaction filter that panics", &["decide"], 20),
];

/// What the compaction filter decides.
pub(super) fn of_the_filter(gardener: &Gardener) -> [(&'static str, u64); 3] {
    let count = |count: &AtomicU64| count.load(Relaxed);
    [
        ("a value that a filter keeps", count(&gardener.kept)),
        ("a value that a filter deletes", count(&gardener.deleted)),
        ("a value that a filter replaces", count(&gardener.replaced)),
    ]
}

/// Memtable calls that may get no memory: the one before a write is logged, and the one after it, which should not
/// happen.
const SHORTAGES: [(&str, &[&str], usize); 2] =
    [("no memory for a write", &["reserve"], 60), ("no memory in a write", &["insert"], 150)];

pub(super) fn names() -> impl Iterator<Item = String> {
    let others = [OPEN_FILES, CLOCK, WENT_ON, CHECKPOINT].into_iter();
    let others = others.chain(PANICS.map(|(part, ..)| part)).chain(SHORTAGES.map(|(what, ..)| what));
    let decisions = of_the_filter(&Gardener::default()).map(|(what, _)| what);
    let others = others.chain(transactions::EVENTS).chain(decisions);
    kinds().map(name).chain(others.map(str::to_owned))
}

fn kinds() -> impl Iterator<Item = Kind> {
    [&OFTEN[..], &WHILE_OPEN, &AT_CLOSE, &AT_OPENING].into_iter().flatten().copied()
}

fn name((kind, files): Kind) -> String {
    format!("{kind:?} {files:?}")
}

impl World {
    /// From now on any call may fail; the ones in `kinds` are more likely to.
    pub(super) fn inject_faults(&mut self, kinds: &[Kind]) {
        for _ in 0..=self.random.below(2) {
            let kinds = if self.random.one_in(3) { &OFTEN } else { kinds };
            let kind = kinds[self.random.below(kinds.len())];
            if let (SetLen, Manifests) = kind {
                // The engine only truncates what a failed write may have left.
                self.inject((Write, Manifests));
            }
            self.inject(kind);
        }
        self.note("faults");
    }

    pub(super) fn inject(&mut self, (kind, files): Kind) {
        self.faults = Faults::Injected;
        let random = &mut self.random;
        let needs_room = matches!(kind, Create | Write | SetLen | Allocate | SyncDir);
        let error = if needs_room && random.one_in(2) { Io::StorageFull } else { Io::Other };
        let skip = if random.one_in(3) { random.below(6) } else { 0 };
        let mut fault = files.only(Fault::on(kind, error).skip(skip as u64));
        // A writer that waits for disk space would wait forever.
        if error != Io::StorageFull && random.one_in(4) {
            fault = fault.sticky();
        }
        if kind == Write && random.one_in(2) {
            // A call may fail after it did all its work. Recovery then finds its log record, which must be whole.
            let all = random.one_in(2) || matches!(files, Log);
            fault = fault.after_writing(if all { u64::MAX } else { random.below(3000) as u64 });
        }
        self.injected.push((name((kind, files)), self.fs.inject(fault)));
    }

    /// How often an injected fault of a kind has fired.
    pub(super) fn fired_of(&self, kind: Kind) -> u64 {
        let name = name(kind);
        self.injected.iter().filter(|(other, _)| *other == name).map(|(_, fault)| fault.fired()).sum()
    }

    /// Only a few more files can be opened, or none, until the disk is healed.
    pub(super) fn run_out_of_files(&mut self) {
        self.faults = Faults::Injected;
        let count = self.fs.open_files() + self.random.below(4) as u64;
        self.injected.push((OPEN_FILES.to_owned(), self.fs.set_open_files_max(Some(count))));
        self.note(OPEN_FILES);
    }

    /// Makes one of the next calls of user memtables, filters or policies panic.
    pub(super) fn light_the_fuse(&mut self) {
        self.faults = Faults::Injected;
        self.look_at_the_fuse();
        let (part, methods, calls) = PANICS[self.random.below(PANICS.len())];
        self.fuse.set(methods, 1 + self.random.below(calls));
        self.lit = Some(part);
        self.note(part);
    }

    /// Makes one of the next calls of user memtables get no memory, and perhaps some calls after it.
    pub(super) fn run_short_of_memory(&mut self) {
        self.faults = Faults::Injected;
        self.look_at_the_shortage();
        let (what, methods, skip_max) = SHORTAGES[self.random.below(SHORTAGES.len())];
        self.shortage.set(methods, self.random.below(skip_max), 1 + self.random.below(4));
        self.short = Some((what, self.shortage.refusals()));
        self.note(what);
    }

    /// Notes whether a call got no memory.
    fn look_at_the_shortage(&mut self) {
        self.shortage.set(&[], 0, 0);
        if let Some((what, before)) = self.short.take()
            && self.shortage.refusals() > before
        {
            self.count(what);
        }
    }

    /// Runs code that may call user parts. A panic must not come through, or leave a caller waiting.
    pub(super) fn risking<T>(&self, call: impl FnOnce() -> T) -> T {
        self.fuse.arm(true);
        let answer = call();
        self.fuse.arm(false);
        answer
    }

    /// Notes whether a part has panicked.
    fn look_at_the_fuse(&mut self) {
        if let Some(part) = self.lit.take()
            && self.fuse.fired()
        {
            self.count(part);
            self.panics += 1;
        }
    }

    /// Sets the clock back or forward, by a little or to any time.
    pub(super) fn set_clock_to(&self, micros: u64) {
        let least = if self.sets_clock_back { 0 } else { self.env.0.unix_micros() };
        self.env.0.set_unix_micros(micros.max(least));
    }

    pub(super) fn set_clock(&mut self) {
        let (now, by) = (self.env.0.unix_micros(), self.random.next() % 100_000_000_000);
        let micros = match self.random.below(5) {
            0 => 0,
            1 => u64::MAX / 2 - by,
            2 => now.saturating_sub(by),
            _ => now + by,
        };
        self.set_clock_to(micros);
        self.count(CLOCK);
        self.note(CLOCK);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn clear_faults(&mut self) {
        self.fs.clear_faults();
        self.fs.set_open_files_max(None);
        self.look_at_the_fuse();
        self.fuse.set(&[], 0);
        self.look_at_the_shortage();
    }

    pub(super) fn heal(&mut self) {
        self.clear_faults();
        if self.faults == Faults::Injected {
            let fired = self.fired() > self.fired_before;
            self.faults = if fired { Faults::Healed } else { Faults::None };
        }
    }

    /// Number of calls that failed by injected faults, panicked or got no memory.
    pub(super) fn fired(&self) -> u64 {
        let calls: u64 = self.injected.iter().map(|(_, fault)| fault.fired()).sum();
        calls + self.shortage.refusals() + self.panics + u64::from(self.lit.is_some() && self.fuse.fired())
    }
}
