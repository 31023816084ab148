use std::io::ErrorKind as Io;

use lsm_engine::vfs::Fault;
use lsm_engine::vfs::OperationKind::{
    self, Allocate, Create, CreateWindow, Lock, Metadata, Open, Read, ReadDir, Remove, Rename, SetLen, Sync,
    SyncDir, Write,
};

use lsm_engine::env::Env;

use super::world::{Faults, World};
use Files::{Any, Current, Log, Manifests, Tables, Windows};

/// Files that a fault is for.
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

/// What goes on all the time.
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

/// What an open database does beside it.
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

/// What one does that closes.
pub(super) const AT_CLOSE: [Kind; 6] =
    [(SetLen, Log), (Write, Current), (Sync, Current), (Rename, Current), (SyncDir, Any), (Remove, Windows)];

/// What one does that is being opened.
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

/// What else happens.
pub(super) const OPEN_FILES: &str = "no more open files";
pub(super) const CLOCK: &str = "a jump of the clock";
pub(super) const WENT_ON: &str = "a write after one that failed";

pub(super) fn names() -> impl Iterator<Item = String> {
    kinds().map(name).chain([OPEN_FILES, CLOCK, WENT_ON].map(str::to_owned))
}

fn kinds() -> impl Iterator<Item = Kind> {
    [&OFTEN[..], &WHILE_OPEN, &AT_CLOSE, &AT_OPENING].into_iter().flatten().copied()
}

fn name((kind, files): Kind) -> String {
    format!("{kind:?} {files:?}")
}

impl World {
    /// Any call may fail from now on, those in `kinds` more likely.
    pub(super) fn inject_faults(&mut self, kinds: &[Kind]) {
        for _ in 0..=self.random.below(2) {
            let kinds = if self.random.one_in(3) { &OFTEN } else { kinds };
            let kind = kinds[self.random.below(kinds.len())];
            if let (SetLen, Manifests) = kind {
                // Only what a failed write may have left is cut off.
                self.inject((Write, Manifests));
            }
            self.inject(kind);
        }
        self.note("faults");
    }

    fn inject(&mut self, (kind, files): Kind) {
        self.faults = Faults::Injected;
        let random = &mut self.random;
        let needs_room = matches!(kind, Create | Write | SetLen | Allocate | SyncDir);
        let error = if needs_room && random.one_in(2) { Io::StorageFull } else { Io::Other };
        let skip = if random.one_in(3) { random.below(6) } else { 0 };
        let mut fault = files.only(Fault::on(kind, error).skip(skip as u64));
        // Whoever waits for room would wait for ever.
        if error != Io::StorageFull && random.one_in(4) {
            fault = fault.sticky();
        }
        if kind == Write && random.one_in(2) {
            // A call may fail after doing all of its work.
            let all = random.one_in(2);
            fault = fault.after_writing(if all { u64::MAX } else { random.below(3000) as u64 });
        }
        self.injected.push((name((kind, files)), self.fs.inject(fault)));
    }

    /// Few files more can be opened, or none, until the disk is healed.
    pub(super) fn run_out_of_files(&mut self) {
        self.faults = Faults::Injected;
        let count = self.fs.open_files() + self.random.below(4) as u64;
        self.injected.push((OPEN_FILES.to_owned(), self.fs.set_open_files_max(Some(count))));
        self.note(OPEN_FILES);
    }

    /// Somebody sets the clock, back or forth, by little or to any time at all.
    pub(super) fn set_clock(&mut self) {
        let (now, by) = (self.env.0.unix_micros(), self.random.next() % 100_000_000_000);
        let micros = match self.random.below(5) {
            0 => 0,
            1 => u64::MAX / 2 - by,
            2 => now.saturating_sub(by),
            _ => now + by,
        };
        self.env.0.set_unix_micros(micros);
        self.count(CLOCK);
        self.note(CLOCK);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn clear_faults(&self) {
        self.fs.clear_faults();
        self.fs.set_open_files_max(None);
    }

    pub(super) fn heal(&mut self) {
        self.clear_faults();
        if self.faults == Faults::Injected {
            let fired = self.fired() > self.fired_before;
            self.faults = if fired { Faults::Healed } else { Faults::None };
        }
    }

    /// How many calls failed of injected faults.
    pub(super) fn fired(&self) -> u64 {
        self.injected.iter().map(|(_, fault)| fault.fired()).sum()
    }
}
