//! Each call that waits is listed while it waits, with its reason, and `health` tells what writes meet. Each wait ends.

#![expect(clippy::disallowed_methods, reason = "threads that wait for each other")]

use std::io::{self, ErrorKind as Io};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use lsm_engine::compaction_policies::{
    Action, Compaction, CompactionPolicy, InputLevel, LevelShape, OutputRun, Reason, TreeShape,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, PosixFs, SimFs, Vfs, VfsFile};
use lsm_engine::{Db, Durability, ErrorKind, EventKind, Health, KeyspaceOptions, Options, Wait, WaitReason};
use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, MemtableWriter};

use lsm_dev::{FileLayer, Hook, Layer, Observed, Synced, VfsLayer};

/// What was seen at one wait.
#[derive(Clone, Debug)]
struct Seen {
    waits: Vec<Wait>,
    health: Health,
    at_micros: u64,
}

/// A database on one thread. Whenever a caller waits, it notes what the database says about that.
struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
    hook: Hook<()>,
    db: Db,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl World {
    fn new(options: Options) -> Self {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let hook = Hook::default();
        let observed =
            Layer(Observed { env: Arc::clone(&env), hook: Arc::clone(&hook), micros: 1000, steps: 0 });
        let db = options.vfs(Arc::new(fs.clone())).env(Arc::new(observed)).open("/db").unwrap();
        let world = Self { fs, env, hook, db, seen: Arc::default() };
        world.observe(|_| {});
        world
    }

    /// Also calls `then` with the number of the wait.
    fn observe(&self, mut then: impl FnMut(usize) + Send + 'static) {
        let (db, seen, env) = (self.db.clone(), Arc::clone(&self.seen), Arc::clone(&self.env));
        let note = move |()| {
            let at_micros = env.unix_micros();
            let mut seen = seen.lock().unwrap();
            seen.push(Seen { waits: db.waits(), health: db.health(), at_micros });
            then(seen.len());
        };
        *self.hook.lock().unwrap() = Some(Box::new(note));
    }

    /// The first wait that was seen with this reason.
    #[track_caller]
    fn seen(&self, why: WaitReason) -> Seen {
        let seen = self.seen.lock().unwrap();
        let is = |seen: &&Seen| seen.waits.iter().any(|wait| wait.why == why);
        seen.iter().find(is).unwrap_or_else(|| panic!("{why:?} was not seen in {seen:#?}")).clone()
    }

    /// Nobody waits any more, and the database takes writes.
    fn end(self) {
        *self.hook.lock().unwrap() = None;
        assert_eq!(self.db.waits(), []);
        assert!(matches!(self.db.health(), Health::Writing), "{:?}", self.db.health());
        drop(self.db);
        self.env.drop_jobs();
    }
}

fn events(db: &Db) -> Vec<EventKind> {
    let mut events = db.events();
    std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect()
}

fn fill(db: &Db) {
    for key in 0..1500 {
        db.put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
}

#[test]
fn a_write_that_waits_for_memory_says_so() {
    let world = World::new(Options::new().memory(1 << 20));
    fill(&world.db);
    let seen = world.seen(WaitReason::Memory);
    let Health::Waiting { why: WaitReason::Memory, since } = seen.health else { panic!("{seen:?}") };
    assert_eq!(since, seen.waits[0].since);
    let since_micros = since.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    assert!(since_micros <= seen.at_micros && since_micros + 10_000_000 > seen.at_micros);
    let metrics = world.db.metrics();
    assert!(metrics.stall_memory_micros > 0);
    assert_eq!(metrics.stall_micros, metrics.stall_memory_micros);
    let kinds = events(&world.db);
    let begin = kinds.iter().position(|kind| *kind == EventKind::StallBegin { why: WaitReason::Memory });
    let end = kinds.iter().position(
        |kind| matches!(kind, EventKind::StallEnd { why: WaitReason::Memory, micros } if *micros > 0),
    );
    assert!(begin.unwrap() < end.unwrap(), "{kinds:#?}");
    world.end();
}

#[test]
fn a_write_that_waits_for_disk_space_says_so_and_goes_on_when_there_is_some() {
    let world = World::new(Options::new().memory(1 << 20));
    world.fs.inject(Fault::on(OperationKind::Create, Io::StorageFull).named(".sst").sticky());
    let fs = world.fs.clone();
    world.observe(move |count| {
        if count == 20 {
            fs.clear_faults();
        }
    });
    fill(&world.db);
    let seen = world.seen(WaitReason::DiskSpace);
    assert!(matches!(seen.health, Health::Waiting { why: WaitReason::DiskSpace, .. }), "{seen:?}");
    assert!(world.db.metrics().stall_space_micros >= 500_000, "at least until the next try");
    world.end();
}

/// A policy that always wants another merge, once it was told to begin.
#[derive(Debug)]
struct Behind {
    debt_bytes: u64,
    begins: AtomicBool,
}

impl CompactionPolicy for Behind {
    fn name(&self) -> &'static str {
        "behind"
    }

    fn level_count(&self) -> usize {
        1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let busy = shape.levels.iter().any(LevelShape::is_busy);
        (self.begins.load(Ordering::Relaxed) && !busy && shape.run_count() > 0).then(|| Compaction {
            inputs: vec![InputLevel::new(0, shape.tables().map(|(_, table)| table))],
            output_level: 0,
            output_run: OutputRun::NewRun,
            action: Action::Merge,
            target_table_bytes: 1 << 20,
            reason: Reason::Level0,
        })
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        if shape.run_count() > 0 { self.debt_bytes } else { 0 }
    }
}

/// Writes to a keyspace whose compactions are behind, because all merges fail.
fn throttled(debt_bytes: u64, flushes: usize, expected: WaitReason) {
    let world = World::new(Options::new().memory(64 << 20));
    let policy = Arc::new(Behind { debt_bytes, begins: AtomicBool::new(false) });
    let given = Arc::clone(&policy) as Arc<dyn CompactionPolicy>;
    let behind = world.db.keyspace("behind", KeyspaceOptions::new().compaction(given)).unwrap();
    for flush in 0..flushes {
        behind.put("key", format!("{flush}")).unwrap();
        world.db.flush().unwrap();
    }
    policy.begins.store(true, Ordering::Relaxed);
    world.fs.inject(Fault::on(OperationKind::Create, Io::Other).named(".sst").sticky());
    world.db.wait_for_compactions().unwrap_err();
    world.seen.lock().unwrap().clear();
    behind.put("key", vec![b'v'; 5_000_000]).unwrap();
    let seen = world.seen(expected);
    assert_eq!(seen.waits[0].keyspace.as_deref(), Some("behind"));
    let Health::Throttled { why, keyspace, bytes_per_second } = &seen.health else { panic!("{seen:?}") };
    assert_eq!((*why, keyspace.as_deref()), (expected, Some("behind")));
    assert!(*bytes_per_second >= 1_000_000);
    assert!(matches!(behind.health(), Health::Throttled { .. }));
    assert!(matches!(world.db.default_keyspace().health(), Health::Writing), "others are not slowed");
    assert!(world.db.metrics().stall_rate_micros > 0);
    let limited = |kind: &EventKind| {
        matches!(kind, EventKind::RateLimit { keyspace: Some(name), why, bytes_per_second: Some(_) }
            if **name == *"behind" && *why == expected)
    };
    assert!(events(&world.db).iter().any(limited), "{:#?}", events(&world.db));
    world.fs.clear_faults();
    world.db.drop_keyspace("behind").unwrap();
    world.env.run_until_idle();
    drop(behind);
    world.end();
}

#[test]
fn a_write_that_is_slowed_for_debt_says_so() {
    throttled(1 << 50, 1, WaitReason::CompactionDebt);
}

#[test]
fn a_write_that_is_slowed_for_runs_of_level_0_says_so() {
    throttled(1, 400, WaitReason::Level0Runs);
}

#[test]
fn calls_that_wait_for_flushes_and_compactions_say_so() {
    let world = World::new(Options::new().memory(8 << 20));
    for _ in 0..2 {
        world.db.put("key", "value").unwrap();
        world.db.flush().unwrap();
    }
    world.seen(WaitReason::Flush);
    world.db.compact_range::<&str>(..).unwrap();
    world.seen(WaitReason::Compaction);
    assert_eq!(world.db.metrics().stall_micros, 0, "no write waited");
    world.end();
}

#[test]
fn a_call_that_waits_for_the_end_of_background_work_says_so() {
    let world = World::new(Options::new().memory(8 << 20));
    world.db.put("key", "value").unwrap();
    world.db.clone().close().unwrap();
    world.seen(WaitReason::BackgroundWork);
    let Health::ReadOnly(error) = world.db.health() else { panic!("{:?}", world.db.health()) };
    assert_eq!(error.kind(), ErrorKind::Closed);
    *world.hook.lock().unwrap() = None;
    drop(world.db);
    world.env.drop_jobs();
}

/// Waits, on other threads than the one that waits, until a call of the database waits for `why`.
fn until_someone_waits(db: &Db, why: WaitReason) {
    while !db.waits().iter().any(|wait| wait.why == why) {
        std::thread::yield_now();
    }
}

type Shared = Arc<OnceLock<Db>>;

/// Opens a database whose next sync of a file with `part` in its name calls `hook` with the database.
fn open_synced(
    part: &'static str,
    mut hook: impl FnMut(&Db) + Send + 'static,
) -> (tempfile::TempDir, Db, impl Fn()) {
    let dir = tempfile::tempdir().unwrap();
    let synced = Layer(Synced { vfs: PosixFs, hook: Hook::default() });
    let (shared, armed) = (Shared::default(), Arc::clone(&synced.hook));
    let db = Options::new().memory(8 << 20).vfs(Arc::new(synced)).open(dir.path()).unwrap();
    shared.get_or_init(|| db.clone());
    let hook = Arc::new(Mutex::new(move |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains(part) {
            hook(shared.get().unwrap());
        }
    }));
    let arm = move || {
        let hook = Arc::clone(&hook);
        *armed.lock().unwrap() = Some(Box::new(move |path| (hook.lock().unwrap())(path)));
    };
    (dir, db, arm)
}

#[test]
fn a_write_that_waits_for_the_sync_of_the_log_says_so() {
    let (_dir, db, arm) = open_synced(".wal", |db| until_someone_waits(db, WaitReason::LogSync));
    arm();
    db.put_with("key", "value", Durability::Sync).unwrap();
    arm();
    db.submit_put("key", "other").unwrap().wait().unwrap();
    assert!(db.metrics().stall_sync_micros > 0);
    assert_eq!(db.waits(), []);
}

/// A disk whose next write of the log takes a while.
struct Slow {
    fs: SimFs,
    env: Arc<SimEnv>,
    db: Arc<Mutex<Option<Db>>>,
    health: Arc<Mutex<Option<Health>>>,
}

struct SlowFile(Arc<dyn VfsFile>, Slow);

impl Slow {
    fn clone(&self) -> Self {
        let Self { fs, env, db, health } = self;
        Self { fs: fs.clone(), env: Arc::clone(env), db: Arc::clone(db), health: Arc::clone(health) }
    }
}

impl VfsLayer for Slow {
    fn below(&self) -> &dyn Vfs {
        &self.fs
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = self.fs.create_new(path)?;
        let is_log = path.extension().is_some_and(|extension| extension == "wal");
        if is_log { Ok(Arc::new(Layer(SlowFile(file, self.clone())))) } else { Ok(file) }
    }
}

impl FileLayer for SlowFile {
    fn below(&self) -> &dyn VfsFile {
        &*self.0
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(db) = &*self.1.db.lock().unwrap() {
            self.1.env.advance(200_000);
            *self.1.health.lock().unwrap() = Some(db.health());
        }
        self.0.write_at(bytes, offset)
    }
}

#[test]
fn a_write_that_waits_for_the_disk_inside_the_append_says_so() {
    let env = Arc::new(SimEnv::new(1));
    let slow = Slow { fs: SimFs::new(), env: Arc::clone(&env), db: Arc::default(), health: Arc::default() };
    let options = Options::new().memory(8 << 20).vfs(Arc::new(Layer(slow.clone())));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    *slow.db.lock().unwrap() = Some(db.clone());
    db.put("short", "it is only copied").unwrap();
    assert!(slow.health.lock().unwrap().is_none());
    db.put("long", vec![b'v'; 300_000]).unwrap();
    let health = slow.health.lock().unwrap().take();
    assert!(matches!(health, Some(Health::Waiting { why: WaitReason::LogWrite, .. })), "{health:?}");
    slow.db.lock().unwrap().take();
    let metrics = db.metrics();
    assert!(metrics.stall_write_micros >= 200_000);
    assert_eq!(metrics.stall_micros, metrics.stall_write_micros);
    assert!(matches!(db.health(), Health::Writing));
    drop(db);
    env.drop_jobs();
}

#[test]
fn a_call_that_waits_for_the_manifest_says_so() {
    let (_dir, db, arm) = open_synced("MANIFEST", |db| {
        let other = db.clone();
        std::thread::spawn(move || other.keyspace("second", KeyspaceOptions::new()).unwrap());
        until_someone_waits(db, WaitReason::Manifest);
    });
    arm();
    db.keyspace("first", KeyspaceOptions::new()).unwrap();
    db.keyspace("second", KeyspaceOptions::new()).unwrap();
    while !db.waits().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn a_second_close_says_that_it_waits_for_the_first() {
    let (_dir, db, arm) = open_synced("CURRENT", |db| {
        let other = db.clone();
        std::thread::spawn(move || other.close().unwrap());
        until_someone_waits(db, WaitReason::Close);
    });
    arm();
    db.put("key", "value").unwrap();
    db.clone().flush().unwrap();
    arm();
    db.close().unwrap();
}

/// A memtable that is made, under the commit lock, only when another write waits for that lock.
#[derive(Debug)]
struct Contended(Shared);

impl MemtableFactory for Contended {
    fn name(&self) -> &'static str {
        "contended"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        if let Some(db) = self.0.get() {
            let other = db.clone();
            std::thread::spawn(move || other.put("other", "value").unwrap());
            until_someone_waits(db, WaitReason::CommitLock);
        }
        BPlusMemtable::default().create()
    }
}

#[test]
fn a_write_that_waits_for_the_commit_lock_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Shared::default();
    let memtable = Arc::new(Contended(Arc::clone(&shared)));
    let db = Options::new().memtable(memtable).open(dir.path()).unwrap();
    shared.get_or_init(|| db.clone());
    db.put("key", "value").unwrap();
    while db.get("other").unwrap().is_none() {
        std::thread::yield_now();
    }
    assert!(db.metrics().stall_lock_micros >= 1000, "it was registered after a millisecond");
}

#[test]
fn a_database_that_takes_no_writes_says_why() {
    let world = World::new(Options::new().memory(8 << 20));
    world.db.put("key", "value").unwrap();
    world.fs.inject(Fault::on(OperationKind::Sync, Io::Other).named(".wal"));
    world.db.sync().unwrap_err();
    let refused = world.db.put("key", "value").unwrap_err();
    let Health::ReadOnly(error) = world.db.health() else { panic!("{:?}", world.db.health()) };
    assert_eq!(error.to_string(), refused.to_string());
    *world.hook.lock().unwrap() = None;
    drop(world.db);
    world.env.drop_jobs();
    let reader = Options::new().read_only(true).vfs(Arc::new(world.fs.process_crash()));
    let reader = reader.env(Arc::new(SimEnv::new(2))).open("/db").unwrap();
    assert!(matches!(reader.health(), Health::ReadOnly(error) if error.kind() == ErrorKind::ReadOnly));
}

#[test]
fn each_reason_tells_what_ends_the_wait() {
    let reasons = [
        WaitReason::Level0Runs,
        WaitReason::CompactionDebt,
        WaitReason::Memory,
        WaitReason::DiskSpace,
        WaitReason::CommitLock,
        WaitReason::LogSync,
        WaitReason::Update,
        WaitReason::Flush,
        WaitReason::Compaction,
        WaitReason::Manifest,
        WaitReason::BackgroundWork,
        WaitReason::Close,
    ];
    for why in reasons {
        assert!(!why.ended_by().is_empty() && !why.to_string().is_empty(), "{why:?}");
    }
}
