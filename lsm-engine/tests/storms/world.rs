use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::vfs::{InjectedFault, SimFs, Vfs};
use lsm_engine::{Db, Error, Keyspace, KeyspaceOptions, Result, Snapshot};

use crate::fused::Fuse;
use crate::random::{Draw, Random};
use crate::reads::Walk;
use crate::short::Shortage;
use lsm_dev::{Layer, Wide};

use super::faults::{WHILE_OPEN, of_the_filter};
use super::filter::Gardener;
use super::model::{Promises, State};
use super::tally::Tally;
use super::tickets::Submitted;
use super::transactions::Live;

pub(super) const DIRECTORY: &str = "/data/db";

pub(super) struct Space {
    pub(super) name: String,
    /// Tells the keyspace from an earlier one with its name. The default keyspace has 0.
    pub(super) number: usize,
    /// `None` while the database is closed, since a handle would keep it open.
    pub(super) handle: Option<Keyspace>,
}

impl Space {
    pub(super) fn keyspace(&self) -> &Keyspace {
        self.handle.as_ref().unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    None,
    /// Any call may fail.
    Injected,
    /// Calls have failed. Reads work again, but writing may have stopped.
    Healed,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own of the seed")]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) fs: SimFs,
    pub(super) env: Arc<Layer<Wide>>,
    pub(super) db: Option<Db>,
    pub(super) memory: usize,
    pub(super) faults: Faults,
    /// The fuse in all user parts.
    pub(super) fuse: Arc<Fuse>,
    /// The part that shall panic.
    pub(super) lit: Option<&'static str>,
    pub(super) panics: u64,
    /// The shortage in some memtables.
    pub(super) shortage: Arc<Shortage>,
    /// The calls that shall get no memory, and the number of calls that had got none before.
    pub(super) short: Option<(&'static str, u64)>,
    /// The injected faults, with their names.
    pub(super) injected: Vec<(String, InjectedFault)>,
    /// Number of calls that had failed when the process began.
    pub(super) fired_before: u64,
    pub(super) promises: Promises,
    pub(super) spaces: Vec<Space>,
    /// Submitted writes, with and without a callback.
    pub(super) called: Vec<Submitted>,
    pub(super) tickets: Vec<Submitted>,
    pub(super) snapshots: Vec<(Snapshot, State)>,
    pub(super) transactions: Vec<Live>,
    pub(super) walks: Vec<Walk>,
    /// Readers of closed databases. The next open may remove their files.
    pub(super) old_walks: Vec<Walk>,
    pub(super) keyspaces_made: usize,
    /// Number of checkpoints that were begun.
    pub(super) copies: usize,
    pub(super) value_bytes_max: usize,
    /// The clock may be set back. After a crash it is known as of the last edit, so in such a world no value expires.
    pub(super) sets_clock_back: bool,
    /// The compaction filter that keyspaces may have. Then some values are for it.
    pub(super) gardener: Option<Arc<Gardener>>,
    /// Keyspaces may have a bound for purges, and no policy that drops data.
    pub(super) purges: bool,
    /// Snapshots, iterators and transactions may expire.
    pub(super) snapshots_expire: bool,
    /// Counts of other events.
    pub(super) counts: BTreeMap<&'static str, u64>,
    tells: bool,
}

/// Whether the call needs more memory than there is. That is no failure of the engine.
pub(super) fn wants_memory(error: &Error) -> bool {
    matches!(error, Error::TooLarge { .. }) || error.to_string().contains("Options::memory")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let fs = SimFs::new();
        fs.create_dir(Path::new("/data")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        fs.set_windows(random.one_in(2));
        let value_bytes_max = [100, 800, 6000, 30_000][random.below(4)];
        let sets_clock_back = random.one_in(2);
        let snapshots_expire = random.one_in(4);
        let fuse = Arc::<Fuse>::default();
        let gardener = || Arc::new(Gardener { fuse: Arc::clone(&fuse), ..Gardener::default() });
        let gardener = random.one_in(3).then(gardener);
        let purges = random.one_in(3);
        let mut world = Self {
            random,
            sets_clock_back,
            fs,
            env: Arc::new(Wide::new(seed)),
            db: None,
            memory: 0,
            faults: Faults::None,
            gardener,
            purges,
            snapshots_expire,
            fuse,
            lit: None,
            panics: 0,
            shortage: Arc::default(),
            short: None,
            injected: Vec::new(),
            fired_before: 0,
            promises: Promises::default(),
            spaces: vec![Space { name: "default".to_owned(), number: 0, handle: None }],
            called: Vec::new(),
            tickets: Vec::new(),
            snapshots: Vec::new(),
            transactions: Vec::new(),
            walks: Vec::new(),
            old_walks: Vec::new(),
            keyspaces_made: 0,
            copies: 0,
            value_bytes_max,
            counts: BTreeMap::new(),
            tells: std::env::var("LSM_SEEDS").is_ok_and(|seeds| seeds == "1"),
        };
        assert!(world.open());
        while world.random.one_in(2) {
            world.create_keyspace();
        }
        world
    }

    pub(super) fn note(&self, what: &str) {
        if self.tells {
            eprintln!("{what}");
        }
    }

    pub(super) fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// Whether something was injected that makes a call fail or stops writing.
    pub(super) fn may_fail(&self) -> bool {
        self.faults != Faults::None || self.fs.crashed()
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=9 => self.transact(),
            10 | 11 => {
                self.bring();
                self.check_memory();
            }
            12..=52 => {
                for _ in 0..=self.random.below(10) {
                    self.write();
                    self.check_memory();
                }
            }
            53 => match self.random.below(7) {
                0 => self.set_clock(),
                1 | 2 => self.light_the_fuse(),
                3 | 4 => self.run_short_of_memory(),
                _ => self.run_out_of_files(),
            },
            54..=64 => {
                for _ in 0..self.random.below(8) {
                    self.risking(|| self.env.step());
                    self.check_memory();
                }
            }
            65..=68 => self.look(),
            69..=74 => self.walk(),
            75..=77 => self.check_readers(),
            78 | 79 => self.take_snapshot(),
            80 => {
                if !self.snapshots.is_empty() {
                    let index = self.random.below(self.snapshots.len());
                    self.snapshots.swap_remove(index);
                }
            }
            81..=85 => self.maintain(),
            86 | 87 => self.change_keyspaces(),
            88 => self.configure_any(),
            89 | 90 => self.inject_faults(&WHILE_OPEN),
            91 | 92 => self.heal(),
            93 => self.crash_within(120),
            94 => {
                if self.random.one_in(3) {
                    self.reopen_somehow();
                }
            }
            95 => self.let_time_pass(),
            96 => self.wait_for_a_ticket(),
            97 => {
                self.risking(|| self.env.run_until_idle());
                self.check_memory();
            }
            _ => self.check_files_when_idle(),
        }
        if self.fs.crashed() {
            self.recover(None, false);
        }
        self.hear(false);
    }

    /// Sometimes sets the clock to any time until 2096. No data may become older by that.
    fn let_time_pass(&mut self) {
        let micros_max = if self.purges { 12_000_000 } else { 3_000_000 };
        self.env.advance(self.random.below(micros_max) as u64);
        if self.random.one_in(3) {
            let micros = self.random.below(4_000_000_000) as u64 * 1_000_000;
            self.set_clock_to(micros);
        }
    }

    fn maintain(&mut self) {
        match self.random.below(8) {
            7 => self.make_checkpoint(),
            6 => {
                let given = KeyspaceOptions::new()
                    .block_bytes(256 << self.random.below(4))
                    .filter_bits_per_key(self.random.below(20) as f64)
                    .blobs_from([None, Some(1024)][self.random.below(2)])
                    .blob_garbage_max(0.1)
                    .compaction(self.policy())
                    .change_compaction(true);
                let keyspace = self.spaces[self.random.below(self.spaces.len())].keyspace();
                let result = self.risking(|| keyspace.set_options(given));
                self.returned("set options", false, result);
            }
            5 => {
                let steps = self.random.below(30);
                let result = self.risking(|| {
                    self.db().pause_background_work()?;
                    for _ in 0..steps {
                        self.env.step();
                    }
                    self.db().cancel_manual_compactions()?;
                    self.db().resume_background_work()
                });
                self.returned("pause", false, result);
            }
            0 => {
                let result = self.risking(|| self.db().flush());
                self.returned("flush", true, result);
            }
            1 => {
                let result = self.risking(|| self.db().sync());
                self.returned("sync", true, result);
            }
            2 => {
                let result = self.risking(|| self.db().wait_for_compactions());
                self.returned("wait for compactions", false, result);
            }
            _ => {
                let ((start, end), whole) = (self.random.range(), self.random.one_in(3));
                let keyspace = self.spaces[self.random.below(self.spaces.len())].keyspace();
                let result = if whole {
                    self.risking(|| keyspace.compact_range::<&[u8]>(..))
                } else {
                    self.risking(|| keyspace.compact_range(start..end))
                };
                self.returned("compact a range", true, result);
            }
        }
    }

    fn returned(&mut self, what: &str, durable: bool, result: Result<()>) {
        self.note(what);
        match result {
            // A dead process acknowledges nothing.
            _ if self.fs.crashed() => {}
            Ok(()) if durable => self.promises.all_durable(),
            Ok(()) => {}
            Err(error) => {
                assert!(self.may_fail() || wants_memory(&error), "{what}: {error}");
                self.note("failed");
                self.reopen_somehow();
            }
        }
    }
}

pub(crate) fn run(seed: u64, tally: &mut Tally) {
    let mut world = World::new(seed);
    for _ in 0..100 + world.random.below(400) {
        world.step();
    }
    world.fs.crash_at(u64::MAX);
    world.reopen(true);
    world.check_readers();
    if world.purges {
        tally.add("a purge", world.db().purged_through());
    }
    world.kill();
    for (kind, fault) in &world.injected {
        tally.add(kind, fault.fired());
    }
    let decisions = world.gardener.iter().flat_map(|gardener| of_the_filter(gardener));
    for (kind, count) in decisions.chain(world.counts) {
        tally.add(kind, count);
    }
}
