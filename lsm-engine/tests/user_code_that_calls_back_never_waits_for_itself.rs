//! A policy, filter or prefix extractor may call the database that calls it. A call that would wait for itself fails
//! with an error that says so. All other calls work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lsm_engine::compaction_policies::{Compaction, CompactionPolicy, SizeTiered, TreeShape};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    BloomFilter, Db, ErrorKind, FilterPolicy, FixedPrefix, Keyspace, KeyspaceOptions, Options,
    PrefixExtractor, Result,
};

type Call = Box<dyn Fn() + Send>;

/// The code that the method with this name runs when the database calls it, but not when that code itself calls it.
#[derive(Default)]
struct Hook {
    call: Mutex<Option<(&'static str, Call)>>,
    count: AtomicUsize,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Hook {
    fn set(&self, method: &'static str, call: impl Fn() + Send + 'static) {
        *self.call.lock().unwrap() = Some((method, Box::new(call)));
    }

    fn called(&self, method: &str) {
        let call = self.call.lock().unwrap().take_if(|(wanted, _)| *wanted == method);
        if let Some((method, call)) = call {
            call();
            self.count.fetch_add(1, Ordering::Relaxed);
            self.call.lock().unwrap().get_or_insert((method, call));
        }
    }

    /// Ends it. Returns how often the code ran.
    fn end(&self) -> usize {
        *self.call.lock().unwrap() = None;
        self.count.swap(0, Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Hooked<T>(T, Arc<Hook>);

impl CompactionPolicy for Hooked<SizeTiered> {
    fn name(&self) -> &'static str {
        self.1.called("policy name");
        self.0.name()
    }

    fn level_count(&self) -> usize {
        self.1.called("level_count");
        self.0.level_count()
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        self.1.called("pick");
        self.0.pick(shape)
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        self.1.called("debt_bytes");
        self.0.debt_bytes(shape)
    }
}

impl FilterPolicy for Hooked<BloomFilter> {
    fn name(&self) -> &'static str {
        self.1.called("filter name");
        "hooked"
    }

    fn build(&self, hashes: &[u64]) -> Vec<u8> {
        self.1.called("build");
        self.0.build(hashes)
    }

    fn may_contain(&self, filter: &[u8], hash: u64) -> bool {
        self.1.called("may_contain");
        self.0.may_contain(filter, hash)
    }
}

impl PrefixExtractor for Hooked<FixedPrefix> {
    fn name(&self) -> String {
        self.1.called("prefix name");
        self.0.name()
    }

    fn prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        self.1.called("prefix");
        self.0.prefix(key)
    }
}

struct Machine {
    fs: SimFs,
    env: Arc<SimEnv>,
    hook: Arc<Hook>,
}

impl Machine {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)), hook: Arc::default() }
    }

    fn open(&self) -> Db {
        let options = Options::new().memory(1 << 20).vfs(Arc::new(self.fs.clone()));
        options.env(Arc::clone(&self.env) as Arc<dyn Env>).open("/db").unwrap()
    }

    fn hooked(&self) -> KeyspaceOptions {
        let hook = || Arc::clone(&self.hook);
        let filter: Arc<dyn FilterPolicy> = Arc::new(Hooked(BloomFilter::new(10.0), hook()));
        KeyspaceOptions::new()
            .compaction(Arc::new(Hooked(SizeTiered::default(), hook())))
            .filter(Some(filter))
            .prefix_extractor(Arc::new(Hooked(FixedPrefix { bytes: 1 }, hook())))
    }
}

fn refused<T>(result: Result<T>) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("called by the database"), "{error}");
}

/// Calls that work from everywhere.
fn read_and_write(db: &Db, odd: &Keyspace) {
    assert_eq!(odd.get("read").unwrap().unwrap(), "value");
    assert!(odd.iter().all(|entry| entry.is_ok()));
    assert_eq!(db.snapshot().unwrap().get_in(odd, "read").unwrap().unwrap(), "value");
    odd.put("written", "back").unwrap();
    db.put("written", "back").unwrap();
    db.sync().unwrap();
    assert_eq!(db.metrics().keyspaces.len(), 2);
}

/// Calls the database back when background work, or a call that waits for it, calls the method.
fn call_back_from(method: &'static str) {
    let machine = Machine::new();
    let db = machine.open();
    let odd = db.keyspace("odd", machine.hooked()).unwrap();
    odd.put("read", "value").unwrap();
    let (db_inside, odd_inside) = (db.clone(), odd.clone());
    machine.hook.set(method, move || {
        read_and_write(&db_inside, &odd_inside);
        refused(db_inside.flush());
        refused(odd_inside.compact_range::<&[u8]>(..));
        refused(db_inside.wait_for_compactions());
        refused(db_inside.clone().close());
    });
    for round in 0..6 {
        odd.put(format!("{round}"), "value").unwrap();
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
    }
    odd.compact_range::<&[u8]>(..).unwrap();
    assert!(machine.hook.end() > 2, "{method}");
    assert_eq!(odd.get("written").unwrap().unwrap(), "back", "{method}");
    db.close().unwrap();
    drop(odd);
    machine.env.drop_jobs();
}

#[test]
fn user_code_may_read_and_write_but_not_wait_for_background_work() {
    for method in ["policy name", "level_count", "pick", "debt_bytes"] {
        call_back_from(method);
    }
    for method in ["filter name", "build", "prefix name", "prefix"] {
        call_back_from(method);
    }
}

/// Such a write would wait for the flush that calls it.
#[test]
fn a_write_from_user_code_that_would_wait_for_memory_is_refused() {
    let machine = Machine::new();
    let db = machine.open();
    let odd = db.keyspace("odd", machine.hooked()).unwrap();
    let inside = db.clone();
    machine.hook.set("prefix", move || {
        refused((0..100).try_for_each(|number| inside.put(format!("{number}"), vec![7; 20_000])));
    });
    odd.put("key", "value").unwrap();
    db.flush().unwrap();
    assert!(machine.hook.end() > 0);
    db.close().unwrap();
    drop(odd);
    machine.env.drop_jobs();
}

/// A read holds no lock, and background work does not lock keyspaces.
#[test]
fn user_code_may_make_all_calls_in_a_read_and_change_keyspaces_in_background_work() {
    let machine = Machine::new();
    let db = machine.open();
    let odd = db.keyspace("odd", machine.hooked()).unwrap();
    odd.put("key", "value").unwrap();
    let change = |db: &Db| {
        db.keyspace("other", KeyspaceOptions::new()).unwrap().clear().unwrap();
        db.drop_keyspace("other").unwrap();
    };
    let inside = db.clone();
    machine.hook.set("build", move || change(&inside));
    db.flush().unwrap();
    assert!(machine.hook.end() > 0);
    let inside = db.clone();
    machine.hook.set("may_contain", move || {
        change(&inside);
        inside.put("key", "value").unwrap();
        inside.flush().unwrap();
        inside.wait_for_compactions().unwrap();
    });
    assert_eq!(odd.get("key").unwrap().unwrap(), "value");
    assert_eq!(machine.hook.end(), 1);
    db.close().unwrap();
    drop(odd);
    machine.env.drop_jobs();
}

/// Opening a keyspace asks for names first. Then it reopens the tables with the given filter, under the manifest lock.
#[test]
fn user_code_must_not_change_keyspaces_while_one_is_opened() {
    for method in ["filter name", "prefix name"] {
        let machine = Machine::new();
        let db = machine.open();
        db.keyspace("odd", machine.hooked()).unwrap().put("read", "value").unwrap();
        db.close().unwrap();
        machine.env.drop_jobs();
        let db = machine.open();
        let (inside, locked) = (db.clone(), Arc::new(AtomicUsize::new(0)));
        let locked_count = Arc::clone(&locked);
        machine.hook.set(method, move || {
            let odd = inside.existing_keyspace("odd").unwrap().unwrap();
            read_and_write(&inside, &odd);
            if inside.flush().is_ok() {
                return;
            }
            locked_count.fetch_add(1, Ordering::Relaxed);
            refused(odd.clear());
            refused(inside.keyspace("other", KeyspaceOptions::new()));
            refused(inside.drop_keyspace("odd"));
            refused(inside.flush());
        });
        db.keyspace("odd", machine.hooked()).unwrap();
        assert!(machine.hook.end() > 0, "{method}");
        assert!(locked.load(Ordering::Relaxed) > 0, "{method} was not called under the lock");
        assert_eq!(db.keyspaces(), ["default", "odd"]);
        db.close().unwrap();
        machine.env.drop_jobs();
    }
}

#[test]
fn a_keyspace_that_is_dropped_while_it_is_opened_stays_dropped() {
    let machine = Machine::new();
    let db = machine.open();
    db.keyspace("odd", KeyspaceOptions::new()).unwrap().put("read", "value").unwrap();
    db.close().unwrap();
    machine.env.drop_jobs();
    let db = machine.open();
    let inside = db.clone();
    machine.hook.set("prefix name", move || {
        if inside.existing_keyspace("odd").unwrap().is_some() {
            inside.drop_keyspace("odd").unwrap();
        }
    });
    assert_eq!(
        db.keyspace("odd", machine.hooked().change_compaction(true)).unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert!(machine.hook.end() > 0);
    db.close().unwrap();
    machine.env.drop_jobs();
    let db = machine.open();
    assert_eq!(db.keyspaces(), ["default"]);
    db.close().unwrap();
    machine.env.drop_jobs();
}

#[test]
fn user_code_must_not_change_keyspaces_while_one_is_created() {
    let machine = Machine::new();
    let db = machine.open();
    let inside = db.clone();
    machine.hook.set("policy name", move || {
        refused(inside.default_keyspace().clear());
        refused(inside.keyspace("other", KeyspaceOptions::new()));
        inside.put("key", "value").unwrap();
    });
    db.keyspace("odd", machine.hooked()).unwrap();
    assert!(machine.hook.end() > 0);
    assert_eq!(db.keyspaces(), ["default", "odd"]);
    db.close().unwrap();
    machine.env.drop_jobs();
}

/// The limits apply only to the database that calls the user code.
#[test]
fn user_code_may_use_another_database_without_limits() {
    let (machine, other) = (Machine::new(), Machine::new());
    let (db, inside) = (machine.open(), other.open());
    let odd = db.keyspace("odd", machine.hooked()).unwrap();
    for method in ["pick", "build", "prefix"] {
        let inside = inside.clone();
        machine.hook.set(method, move || {
            inside.put("key", "value").unwrap();
            inside.flush().unwrap();
            inside.compact_range::<&[u8]>(..).unwrap();
            inside.wait_for_compactions().unwrap();
            inside.keyspace("other", KeyspaceOptions::new()).unwrap().clear().unwrap();
            inside.metrics();
        });
        odd.put("key", "value").unwrap();
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
        assert!(machine.hook.end() > 0, "{method}");
    }
    db.close().unwrap();
    inside.close().unwrap();
    drop(odd);
    machine.env.drop_jobs();
    other.env.drop_jobs();
}

#[test]
fn background_work_may_drop_the_last_handle() {
    let machine = Machine::new();
    let db = machine.open();
    let odd = db.keyspace("odd", machine.hooked()).unwrap();
    odd.put("key", "value").unwrap();
    db.flush().unwrap();
    odd.put("key", "another").unwrap();
    let handles = Mutex::new(Some((db, odd)));
    machine.hook.set("pick", move || drop(handles.lock().unwrap().take()));
    machine.env.advance(2_000_000);
    machine.env.run_until_idle();
    assert!(machine.hook.end() > 0);
    let db = machine.open();
    assert_eq!(db.keyspace("odd", machine.hooked()).unwrap().get("key").unwrap().unwrap(), "another");
    db.close().unwrap();
    machine.env.drop_jobs();
}
