use std::sync::Arc;

use lsm_engine::env::Env;
use lsm_engine::vfs::{AllKept, AllLost, Seeded, SimFs};

use lsm_dev::Wide;

use super::faults::AT_OPENING;
use super::model::Commit;
use super::world::{Faults, World};

impl World {
    /// Arms a crash at one of the next `operations`.
    pub(super) fn crash_within(&mut self, operations: usize) {
        self.fs.crash_at(self.fs.operations() + self.random.below(operations) as u64);
    }

    pub(super) fn power_cut(&mut self) -> SimFs {
        match self.random.below(4) {
            0 => self.fs.power_cut(&mut AllLost),
            1 => self.fs.power_cut(&mut AllKept),
            _ => self.fs.power_cut(&mut Seeded::new(self.random.next())),
        }
    }

    /// The process is dead: nothing that it still does changes the disk.
    pub(super) fn kill(&mut self) {
        self.fs.crash_at(0);
        self.snapshots.clear();
        self.transactions.clear();
        self.called.clear();
        self.tickets.clear();
        self.let_go();
        self.old_walks.clear();
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

    /// Starts the next process, without jobs.
    pub(super) fn restart(&mut self) {
        self.env.drop_jobs();
        let wall_micros = self.env.unix_micros();
        self.env = Arc::new(Wide::new(self.random.next()));
        self.set_clock_to(if self.sets_clock_back { self.env.unix_micros() } else { wall_micros });
        self.faults = Faults::None;
        self.fired_before = self.fired();
    }

    /// Crashes now, or handles a crash that has happened, and opens the remaining files. That open may crash again. The
    /// write `in_flight` may have happened. Power is lost if `power` is set, and sometimes if it is not.
    pub(super) fn recover(&mut self, in_flight: Option<Commit>, power: bool) {
        self.hear(false);
        let mut power = power || self.random.one_in(2);
        let mut power_lost = false;
        loop {
            self.note(if power { "power cut" } else { "process crash" });
            let image = if power { self.power_cut() } else { self.fs.process_crash() };
            self.kill();
            self.fs = image;
            self.clear_faults();
            power_lost |= power;
            self.check_log();
            if self.random.one_in(3) {
                self.crash_within(60);
            }
            match self.random.below(12) {
                0..4 => self.inject_faults(&AT_OPENING),
                4 => self.run_out_of_files(),
                5 => self.light_the_fuse(),
                6 => self.run_short_of_memory(),
                _ => {}
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
