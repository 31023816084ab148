//! Automatic and manual compactions at the same time, also while their keyspace is dropped or cleared.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::ThreadId;

use lsm_engine::compaction_policies::{
    Action, Compaction, CompactionPolicy, Fifo, InputLevel, OutputRun, Reason, TableShape, TreeShape,
};
use lsm_engine::env::{Env, Event, Job, Priority, SimEnv, ThreadEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, Error, ErrorKind, Keyspace, KeyspaceOptions, Options};

use lsm_dev::{EnvLayer, Layer, Wide};

/// The moment at which [`Scripted`] drops its keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Pick,
    Look,
}

/// Picks the compactions that the test gives it, and drops the keyspace "gone" meanwhile.
#[derive(Default)]
struct Scripted {
    next: Mutex<Vec<Compaction>>,
    shape: Mutex<TreeShape>,
    drops: Mutex<Option<(Moment, Db)>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    fn drop_at(&self, moment: Moment) {
        let mut drops = self.drops.lock().unwrap();
        if let Some((_, db)) = drops.take_if(|(wanted, _)| *wanted == moment) {
            drop(drops);
            db.drop_keyspace("gone").unwrap();
        }
    }
}

impl CompactionPolicy for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn level_count(&self) -> usize {
        self.drop_at(Moment::Look);
        3
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        self.shape.lock().unwrap().clone_from(shape);
        let mut next = self.next.lock().unwrap().pop()?;
        for table in next.inputs.iter_mut().flat_map(|input| &mut input.tables) {
            if let Some((_, known)) = shape.tables().find(|(_, known)| known.id == table.id) {
                *table = Arc::clone(known);
            }
        }
        self.drop_at(Moment::Pick);
        Some(next)
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

/// Of the tables of level 0 with these numbers.
fn compaction(tables: &[u64], output_level: usize, action: Action) -> Compaction {
    let named = |id: &u64| Arc::new(TableShape { id: *id, ..TableShape::default() });
    Compaction {
        inputs: vec![InputLevel { level: 0, tables: tables.iter().map(named).collect() }],
        output_level,
        output_run: OutputRun::NewRun,
        action,
        target_table_bytes: 1 << 20,
        reason: Reason::Level0,
    }
}

struct Machine {
    fs: SimFs,
    env: Arc<Layer<Wide>>,
    policy: Arc<Scripted>,
}

impl Machine {
    fn new() -> Self {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/data")).unwrap();
        Self { fs, env: Arc::new(Wide::new(11)), policy: Arc::default() }
    }

    fn open(&self) -> Db {
        let options = Options::new().memory(16 << 20).vfs(Arc::new(self.fs.clone()));
        options.env(Arc::clone(&self.env) as Arc<dyn Env>).open("/data/db").unwrap()
    }

    fn keyspace_options(&self) -> KeyspaceOptions {
        KeyspaceOptions::new().compaction(Arc::clone(&self.policy) as Arc<dyn CompactionPolicy>)
    }

    /// The numbers of the tables, oldest first.
    fn tables(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self
            .fs
            .read_dir(Path::new("/data/db"))
            .unwrap()
            .iter()
            .filter_map(|name| name.strip_suffix(".sst")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }
}

/// An edit for the tables of a dropped keyspace would contradict the manifest. The database could then be neither
/// written to nor opened.
#[test]
fn a_move_does_not_install_tables_of_a_keyspace_dropped_meanwhile() {
    let machine = Machine::new();
    let db = machine.open();
    let gone = db.keyspace("gone", machine.keyspace_options()).unwrap();
    gone.put("key", "value").unwrap();
    db.flush().unwrap();
    machine.policy.next.lock().unwrap().push(compaction(&machine.tables(), 1, Action::Move));
    *machine.policy.drops.lock().unwrap() = Some((Moment::Pick, db.clone()));
    db.wait_for_compactions().unwrap();
    assert_eq!(db.keyspaces(), ["default"]);
    db.put("key", "new value").unwrap();
    db.close().unwrap();
    let db = machine.open();
    assert_eq!(db.get("key").unwrap().unwrap(), b"new value");
    drop((db, gone));
    machine.env.drop_jobs();
}

/// A program may keep its handles as long as it runs.
#[test]
fn a_dropped_keyspace_frees_memory_and_disk_although_handles_remain() {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(11)));
    let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(4 << 20).open("/db").unwrap();
    let handle = db.keyspace("handle", KeyspaceOptions::new()).unwrap();
    handle.put("key", vec![b'v'; 100_000]).unwrap();
    db.flush().unwrap();
    handle.put("other", vec![b'v'; 100_000]).unwrap();
    let tables = || fs.paths().iter().filter(|path| path.to_string_lossy().ends_with(".sst")).count();
    let (running, snapshot, before) = (handle.iter(), db.snapshot().unwrap(), db.metrics());
    db.drop_keyspace("handle").unwrap();
    env.run_until_idle();
    assert_eq!(tables(), 1, "an iterator reads it");
    assert!(db.metrics().held_memtable_bytes > 100_000, "and the memtable");
    assert_eq!(running.map(Result::unwrap).count(), 2);
    env.run_until_idle();
    let metrics = db.metrics();
    assert_eq!((tables(), metrics.held_memtable_bytes), (0, 0));
    assert!(metrics.pinned_bytes < before.pinned_bytes);
    assert_eq!(handle.get("key").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(snapshot.get_in(&handle, "key").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(snapshot.range_in::<&str>(&handle, ..).next().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    drop((handle, snapshot, db));
    env.drop_jobs();
}

#[test]
fn compact_range_fails_when_its_keyspace_is_dropped_meanwhile() {
    let machine = Machine::new();
    let db = machine.open();
    let gone = db.keyspace("gone", machine.keyspace_options()).unwrap();
    gone.put("key", "value").unwrap();
    db.flush().unwrap();
    *machine.policy.drops.lock().unwrap() = Some((Moment::Look, db.clone()));
    let error = gone.compact_range::<&[u8]>(..).unwrap_err();
    assert!(matches!(error, Error::KeyspaceDropped(_)), "{error}");
    db.put("key", "value").unwrap();
    db.close().unwrap();
    drop(gone);
    machine.env.drop_jobs();
}

/// The output of a compaction within level 0 has a file number like that of a new flush, but holds old data.
#[test]
fn compact_range_includes_the_output_of_a_running_compaction_in_level_0() {
    let machine = Machine::new();
    let db = machine.open();
    let keyspace = db.keyspace("kept", machine.keyspace_options()).unwrap();
    for value in ["oldest", "older", "newest"] {
        keyspace.put("a", value).unwrap();
        keyspace.put("z", value).unwrap();
        db.flush().unwrap();
    }
    let tables = machine.tables();
    assert_eq!(tables.len(), 3);
    machine.policy.next.lock().unwrap().push(compaction(&tables[..2], 0, Action::Merge));
    // The clean-up job starts due compactions every second. The merge that it starts has not run a step yet.
    let runs =
        || db.metrics().keyspaces.iter().find(|keyspace| keyspace.name == "kept").unwrap().levels.clone();
    while !machine.policy.next.lock().unwrap().is_empty() {
        machine.env.advance(1_000_000);
        machine.env.step();
    }
    assert_eq!(runs()[0].runs, 3);
    keyspace.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(runs()[0].runs, 0, "all of it is in the last level");
    assert_eq!(runs()[2].runs, 1);
    assert_eq!(runs()[2].entries, 2, "the newest of each key");
    assert_eq!(keyspace.get("a").unwrap().unwrap(), b"newest");
    db.close().unwrap();
    drop(keyspace);
    machine.env.drop_jobs();
}

/// Two runs in one leveled level would later have to be merged as a whole.
#[test]
fn concurrent_compactions_into_an_empty_level_make_one_run() {
    let machine = Machine::new();
    let db = machine.open();
    let keyspace = db.keyspace("wide", machine.keyspace_options()).unwrap();
    for key in ["a", "a", "m", "m"] {
        keyspace.put(key, "value").unwrap();
        db.flush().unwrap();
    }
    let tables = machine.tables();
    let join = |tables| Compaction { output_run: OutputRun::Join, ..compaction(tables, 1, Action::Merge) };
    machine.policy.next.lock().unwrap().extend([join(&tables[..2]), join(&tables[2..])]);
    db.wait_for_compactions().unwrap();
    let metrics = db.metrics();
    let levels = &metrics.keyspaces.iter().find(|keyspace| keyspace.name == "wide").unwrap().levels;
    assert_eq!((levels[1].runs, levels[1].tables), (1, 2));
    db.close().unwrap();
    drop(keyspace);
    machine.env.drop_jobs();
}

/// The output of a running merge spans the range between its inputs. Another compaction must not put tables there.
#[test]
fn a_compaction_between_the_inputs_of_a_running_one_waits_for_it() {
    let machine = Machine::new();
    let db = machine.open();
    let keyspace = db.keyspace("spanned", machine.keyspace_options()).unwrap();
    for key in ["a", "z", "m"] {
        keyspace.put(key, "value").unwrap();
        db.flush().unwrap();
    }
    let tables = machine.tables();
    let join = |tables| Compaction { output_run: OutputRun::Join, ..compaction(tables, 1, Action::Merge) };
    machine.policy.next.lock().unwrap().extend([join(&tables[2..]), join(&tables[..2])]);
    db.wait_for_compactions().unwrap();
    let metrics = db.metrics();
    let levels = &metrics.keyspaces.iter().find(|keyspace| keyspace.name == "spanned").unwrap().levels;
    assert_eq!((levels[0].tables, levels[1].tables), (1, 1));
    db.close().unwrap();
    drop(keyspace);
    machine.env.drop_jobs();
}

/// Starts a flush, and then clears or drops its keyspace in the middle of it.
fn lose_while_flushing(lose: impl FnOnce(&Db, &Keyspace)) {
    let machine = Machine::new();
    let db = machine.open();
    let keyspace = db.keyspace("gone", KeyspaceOptions::new()).unwrap();
    let mut number = 0_u32;
    while db.metrics().immutable_memtable_bytes == 0 {
        // Many more than a job handles in one step.
        keyspace.put(number.to_be_bytes(), "").unwrap();
        number += 1;
    }
    assert!(number > 20_000, "{number}");
    let tables = machine.tables().len();
    while machine.tables().len() == tables {
        assert!(machine.env.step());
    }
    assert_eq!(db.metrics().flushes, 0);
    lose(&db, &keyspace);
    machine.env.run_until_idle();
    assert!(machine.tables().is_empty());
    db.put("key", "value").unwrap();
    db.close().unwrap();
    drop(keyspace);
    let db = machine.open();
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    if let Some(keyspace) = db.existing_keyspace("gone").unwrap() {
        assert_eq!(keyspace.iter().count(), 0);
    }
    db.close().unwrap();
    machine.env.drop_jobs();
}

#[test]
fn a_flush_does_not_restore_data_cleared_meanwhile() {
    lose_while_flushing(|_, keyspace| {
        keyspace.clear().unwrap();
        assert_eq!(keyspace.iter().count(), 0);
    });
}

#[test]
fn a_flush_of_a_keyspace_dropped_meanwhile_installs_nothing() {
    lose_while_flushing(|db, _| db.drop_keyspace("gone").unwrap());
}

/// An output table ends where a table of the next level begins, so that each overlaps few of them.
#[test]
fn output_tables_are_cut_where_tables_of_the_next_level_begin() {
    let machine = Machine::new();
    let db = machine.open();
    let keyspace = db.keyspace("cut", machine.keyspace_options()).unwrap();
    let fill = |output_level, target_table_bytes| {
        let before = machine.tables();
        for number in 0..400_u32 {
            keyspace.put(number.to_be_bytes(), [7; 20]).unwrap();
        }
        db.flush().unwrap();
        let flushed: Vec<u64> =
            machine.tables().into_iter().filter(|number| !before.contains(number)).collect();
        let merge = compaction(&flushed, output_level, Action::Merge);
        machine.policy.next.lock().unwrap().push(Compaction { target_table_bytes, ..merge });
        db.wait_for_compactions().unwrap();
    };
    fill(2, 4000);
    fill(1, 5000);
    let shape = machine.policy.shape.lock().unwrap().clone();
    let (upper, lower) = (&shape.levels[1].runs[0], &shape.levels[2].runs[0]);
    assert!(upper.len() > 2 && lower.len() > 2);
    for table in upper.tables() {
        assert_eq!(lower.overlapping(&table.smallest, &table.largest).len(), 1, "{table:?}");
    }
    db.close().unwrap();
    drop(keyspace);
    machine.env.drop_jobs();
}

/// A queue is cleared again and again beside an old snapshot. States that no snapshot sees are not kept, and dropping
/// the rest does not recurse once per clear.
#[test]
fn a_snapshot_keeps_only_what_it_sees_of_a_keyspace_that_is_cleared_often() {
    let machine = Machine::new();
    let db = machine.open();
    let keyspace = db.default_keyspace();
    let mut snapshots = Vec::new();
    for round in 0..20_000_u32 {
        db.put("round", round.to_be_bytes()).unwrap();
        if round % 5_000 == 17 {
            snapshots.push((db.snapshot().unwrap(), round));
            if round % 10_000 == 17 {
                db.flush().unwrap();
            }
        }
        keyspace.clear().unwrap();
    }
    // Two of the four snapshots see one table each.
    assert_eq!(machine.tables().len(), 2);
    for (snapshot, round) in snapshots.drain(..2) {
        assert_eq!(snapshot.get("round").unwrap().unwrap(), round.to_be_bytes());
        assert_eq!(snapshot.iter().count(), 1);
    }
    machine.env.run_until_idle();
    assert_eq!(machine.tables().len(), 1);
    for (snapshot, round) in snapshots.drain(..) {
        assert_eq!(snapshot.get("round").unwrap().unwrap(), round.to_be_bytes());
    }
    machine.env.run_until_idle();
    assert_eq!(machine.tables().len(), 0);
    assert_eq!(db.get("round").unwrap(), None);
    db.close().unwrap();
    machine.env.drop_jobs();
}

/// Moves the oldest run of level 0 down when the test says so.
#[derive(Debug, Default)]
struct Mover {
    goes: AtomicBool,
}

impl CompactionPolicy for Mover {
    fn name(&self) -> &'static str {
        "mover"
    }

    fn level_count(&self) -> usize {
        2
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let oldest = shape.levels[0].runs.last().filter(|_| self.goes.load(Ordering::Acquire))?;
        let inputs = vec![InputLevel::new(0, oldest.tables())];
        Some(Compaction { inputs, output_run: OutputRun::Join, ..compaction(&[], 1, Action::Move) })
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

/// Orders two threads: the work of one starts when that thread waits, and after the wait the thread stops until the
/// other thread waits for the next event.
struct Meeting {
    env: ThreadEnv,
    held: Mutex<Vec<(Priority, Box<dyn Job>)>>,
    policy: Arc<Mover>,
    one: OnceLock<ThreadId>,
    one_waits: AtomicBool,
    other: OnceLock<ThreadId>,
    other_saw: AtomicU64,
}

impl EnvLayer for Meeting {
    fn below(&self) -> &dyn Env {
        &self.env
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        if self.one.get() == Some(&std::thread::current().id()) {
            self.held.lock().unwrap().push((priority, job));
        } else {
            self.env.spawn(priority, job);
        }
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        let here = Some(std::thread::current().id());
        if here == self.other.get().copied() {
            self.other_saw.store(seen, Ordering::Release);
        }
        if here != self.one.get().copied() {
            return self.env.wait(event, seen, deadline_micros);
        }
        self.policy.goes.store(true, Ordering::Release);
        self.one_waits.store(true, Ordering::Release);
        for (priority, job) in self.held.lock().unwrap().drain(..) {
            self.env.spawn(priority, job);
        }
        let notified = self.env.wait(event, seen, deadline_micros);
        while self.other_saw.load(Ordering::Acquire) != event.epoch() {
            std::thread::yield_now();
        }
        notified
    }
}

/// A manual compaction puts the policy on hold. A caller of `wait_for_compactions` must be woken when that ends.
#[test]
fn wait_for_compactions_returns_after_a_manual_compaction() {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    let policy = Arc::new(Mover::default());
    let env = Arc::new(Layer(Meeting {
        env: ThreadEnv::new(2),
        held: Mutex::default(),
        policy: Arc::clone(&policy),
        one: OnceLock::new(),
        one_waits: AtomicBool::new(false),
        other: OnceLock::new(),
        other_saw: AtomicU64::new(u64::MAX),
    }));
    let db = Options::new()
        .memory(1 << 20)
        .vfs(Arc::new(fs))
        .env(Arc::clone(&env) as Arc<dyn Env>)
        .compaction(Arc::clone(&policy) as Arc<dyn CompactionPolicy>)
        .open("/data/db")
        .unwrap();
    // The manual compaction merges the two runs of "a". After that the policy moves the run of "z".
    for key in ["z", "a", "a"] {
        db.put(key, "value").unwrap();
        db.flush().unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            env.one.set(std::thread::current().id()).unwrap();
            db.compact_range::<&[u8]>(..).unwrap();
        });
        env.other.set(std::thread::current().id()).unwrap();
        while !env.one_waits.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        db.wait_for_compactions().unwrap();
    });
    db.close().unwrap();
}

/// FIFO merges nothing, so many runs do not mean that background work is behind.
#[test]
fn many_runs_in_a_fifo_keyspace_do_not_slow_writers() {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()) as Arc<dyn Vfs>);
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    let fifo = KeyspaceOptions::new().compaction(Arc::new(Fifo::default()) as Arc<dyn CompactionPolicy>);
    let log = db.keyspace("log", fifo).unwrap();
    for number in 0..40_u8 {
        log.put([number], vec![number; 100]).unwrap();
        db.flush().unwrap();
        env.run_until_idle();
        let metrics = db.metrics();
        assert_eq!(metrics.write_rate_limit, None, "after {number} flushes");
        assert_eq!(metrics.stall_micros, 0, "after {number} flushes");
    }
    let runs = db.metrics().keyspaces.iter().filter_map(|keyspace| Some(keyspace.levels.first()?.runs)).max();
    assert!(runs.is_some_and(|runs| runs > 16), "{runs:?} runs would slow nobody down anyway");
    drop((log, db));
    env.drop_jobs();
}
