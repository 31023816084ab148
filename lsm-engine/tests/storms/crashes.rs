use std::io::ErrorKind as Io;
use std::sync::Arc;

use lsm_engine::env::SimEnv;
use lsm_engine::vfs::{AllKept, AllLost, Fault, OperationKind, Seeded, SimFs};

use crate::wide::Wide;

use super::model::Commit;
use super::world::{Faults, World};

impl World {
    pub(super) fn inject_faults(&mut self) {
        use OperationKind::{
            Allocate, Create, CreateWindow, Metadata, Open, Read, ReadDir, Remove, Rename, SetLen, Sync,
            SyncDir, Write,
        };
        const KINDS: [OperationKind; 13] = [
            Create,
            Open,
            Read,
            Write,
            SetLen,
            Allocate,
            Sync,
            SyncDir,
            CreateWindow,
            Rename,
            Remove,
            ReadDir,
            Metadata,
        ];
        self.faults = Faults::Injected;
        let mut names =
            self.fs.paths().into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let manifest = names.rfind(|name| name.starts_with("MANIFEST-")).unwrap();
        let random = &mut self.random;
        for _ in 0..=random.below(2) {
            let kind = match random.below(6) {
                0 => Write,
                1 => Sync,
                _ => KINDS[random.below(KINDS.len())],
            };
            let needs_room = matches!(kind, Create | Write | SetLen | Allocate | SyncDir);
            let error = if needs_room && random.one_in(2) { Io::StorageFull } else { Io::Other };
            let mut fault = Fault::on(kind, error).skip(random.below(6) as u64);
            // Whoever waits for room would wait for ever.
            if error != Io::StorageFull && random.one_in(4) {
                fault = fault.sticky();
            }
            if kind == Write && random.one_in(2) {
                // A call may fail after doing all of its work.
                let all = random.one_in(2);
                fault = fault.after_writing(if all { u64::MAX } else { random.below(3000) as u64 });
            }
            match random.below(4) {
                0 => fault = fault.named(".sst"),
                1 => fault = fault.named(".wal"),
                2 => fault = fault.named(&manifest),
                _ => {}
            }
            self.fs.inject(fault);
        }
        self.note("faults");
    }

    pub(super) fn heal(&mut self) {
        self.fs.clear_faults();
        if self.faults == Faults::Injected {
            self.faults = Faults::Healed;
        }
    }

    /// At one of the next `operations`.
    pub(super) fn crash_within(&mut self, operations: usize) {
        self.fs.crash_at(self.fs.operations() + self.random.below(operations) as u64);
    }

    fn power_cut(&mut self) -> SimFs {
        match self.random.below(4) {
            0 => self.fs.power_cut(&mut AllLost),
            1 => self.fs.power_cut(&mut AllKept),
            _ => self.fs.power_cut(&mut Seeded::new(self.random.next())),
        }
    }

    /// The process is gone: whatever it still does changes no disk.
    pub(super) fn kill(&mut self) {
        self.fs.crash_at(0);
        self.snapshots.clear();
        self.let_go();
        if self.random.one_in(2) {
            self.walks.clear();
        }
        self.db = None;
        self.walks.clear();
        self.restart();
    }

    pub(super) fn let_go(&mut self) {
        for space in &mut self.spaces {
            space.handle = None;
        }
    }

    /// The next process begins with nothing to do.
    pub(super) fn restart(&mut self) {
        self.env.0.drop_jobs();
        self.env = Arc::new(Wide(SimEnv::new(self.random.next())));
        self.faults = Faults::None;
    }

    /// Crashes now, or takes notice that there was a crash, and opens what is left, which may crash again. `in_flight`
    /// may have happened. Power is lost if `power` says so, and at times if it does not.
    pub(super) fn recover(&mut self, in_flight: Option<Commit>, power: bool) {
        let mut power = power || self.random.one_in(2);
        let mut power_lost = false;
        loop {
            self.note(if power { "power cut" } else { "process crash" });
            let image = if power { self.power_cut() } else { self.fs.process_crash() };
            self.kill();
            self.fs = image;
            power_lost |= power;
            self.check_log();
            if self.random.one_in(3) {
                self.crash_within(60);
            }
            if self.open() {
                break;
            }
            power = self.random.one_in(2);
        }
        let found = self.state();
        self.promises.recover(found, power_lost, in_flight);
        if self.random.one_in(3) {
            self.check_tables();
        }
    }
}
