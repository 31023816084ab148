//! A memtable, filter, prefix extractor or compaction policy of the user panics at any of its calls. Each call of the
//! engine must return. The error has the kind `Callback` and tells what happened. Other keyspaces still write, flush
//! and read. No batch is visible in part, before and after reopening.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use lsm_engine::compaction_policies::{CompactionPolicy, SizeTiered, SizeTieredOptions};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{
    Db, ErrorKind, FilterPolicy, FixedPrefix, Keyspace, KeyspaceOptions, Options, PrefixExtractor, Result,
    WriteBatch,
};
use lsm_memtable::{BPlusMemtable, MemtableFactory};
use lsm_sstable::BloomFilter;

mod fused;

use fused::{Fuse, Fused, SAID};

struct Machine {
    fs: SimFs,
    env: Arc<SimEnv>,
    fuse: Arc<Fuse>,
    cache_bytes: usize,
}

impl Machine {
    fn new(fuse: &Arc<Fuse>) -> Self {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        // The engine asks no part of a filter that fits memory.
        let cache_bytes = if fuse.is_set_for("part") { 2 << 10 } else { 4 << 20 };
        Self { fs, env, fuse: Arc::clone(fuse), cache_bytes }
    }

    fn options(&self) -> Options {
        let options = Options::new().memory(8 << 20).cache_bytes(self.cache_bytes);
        let options = options.vfs(Arc::new(self.fs.clone()) as Arc<dyn Vfs>);
        options.env(Arc::clone(&self.env) as Arc<dyn Env>)
    }

    fn fused(&self) -> KeyspaceOptions {
        let fuse = || Arc::clone(&self.fuse);
        let memtable: Arc<dyn MemtableFactory> = Arc::new(BPlusMemtable::default());
        let policy: Arc<dyn CompactionPolicy> = Arc::new(SizeTiered::new(SizeTieredOptions::default()));
        KeyspaceOptions::new()
            .memtable(Arc::new(Fused(memtable, fuse())))
            .filter(Some(Arc::new(Fused(BloomFilter::new(10.0), fuse())) as Arc<dyn FilterPolicy>))
            .prefix_extractor(Arc::new(Fused(FixedPrefix { bytes: 1 }, fuse())) as Arc<dyn PrefixExtractor>)
            .compaction(Arc::new(Fused(policy, fuse())))
    }

    fn open(&self) -> (Db, Keyspace) {
        let db = self.options().open(Path::new("/db")).unwrap();
        let odd = db.keyspace("odd", self.fused()).unwrap();
        (db, odd)
    }

    /// The same files after all jobs ended, with parts that do not panic.
    fn next(self) -> Self {
        self.fuse.arm(false);
        self.env.drop_jobs();
        Self { env: Arc::new(SimEnv::new(2)), ..self }
    }
}

fn fuse_at(method: &'static str, call: usize) -> Arc<Fuse> {
    let fuse = Fuse::default();
    fuse.set(&[method], call);
    Arc::new(fuse)
}

/// Runs code while no part panics.
fn disarmed<T>(fuse: &Fuse, call: impl FnOnce() -> T) -> T {
    fuse.arm(false);
    let answer = call();
    fuse.arm(true);
    answer
}

/// Whether the call succeeded. An error must have the kind `Callback` and contain the message of the panic.
#[track_caller]
fn named<T>(result: &Result<T>, what: &str) -> bool {
    if let Err(error) = result {
        assert_eq!(error.kind(), ErrorKind::Callback, "{what}: {error}");
        assert!(error.to_string().contains(SAID), "{what}: {error}");
    }
    result.is_ok()
}

/// Number of entries in tables of the default keyspace.
fn flushed_entries(db: &Db) -> u64 {
    let keyspaces = db.metrics().keyspaces;
    let default = keyspaces.iter().find(|keyspace| keyspace.name == "default").unwrap();
    default.levels.iter().map(|level| level.entries).sum()
}

/// Whether the batch of `round` is there. It must be there as a whole or not at all.
fn is_there(db: &Db, odd: &Keyspace, round: usize, what: &str) -> bool {
    let (a, b) = (format!("a{round}"), format!("b{round}"));
    let found =
        [db.get(&a).unwrap(), odd.get(&a).unwrap(), odd.get(&b).unwrap()].map(|value| value.is_some());
    assert!(found.iter().all(|one| *one == found[0]), "{what}: batch {round} is there in part: {found:?}");
    found[0]
}

const ROUNDS: usize = 8;

/// The engine plans the memory of a filter after one megabyte of a table.
fn value(method: &str) -> Vec<u8> {
    vec![b'v'; if method == "filter_bytes" { 600 << 10 } else { 1 }]
}

/// Runs a history with a part that panics at the call of this number. Returns whether that call happened.
fn panic_at(method: &'static str, call: usize) -> bool {
    let what = format!("{method}, call {call}");
    let fuse = fuse_at(method, call);
    let machine = Machine::new(&fuse);
    let (db, odd) = machine.open();
    fuse.arm(true);
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut batch = WriteBatch::new();
        batch.put(format!("a{round}"), "1");
        batch.put_in(&odd, format!("a{round}"), "2").put_in(&odd, format!("b{round}"), value(method));
        if named(&db.write(batch), &what) {
            acknowledged.push(round);
        }
        // After success or failure, the next write must not show a part of the batch, and other keyspaces work.
        db.put(format!("beside{round}"), "4").unwrap();
        assert_eq!(db.get(format!("beside{round}")).unwrap().unwrap(), "4", "{what}");
        disarmed(&fuse, || (0..=round).for_each(|round| _ = is_there(&db, &odd, round, &what)));
        if round % 2 == 1 {
            let before = disarmed(&fuse, || flushed_entries(&db));
            if named(&db.flush(), &what) {
                let left = disarmed(&fuse, || db.metrics().active_memtable_bytes);
                assert_eq!(left, 0, "{what}: memtables are left after the flush");
            }
            assert!(disarmed(&fuse, || flushed_entries(&db)) >= before + 2, "{what}: nothing was flushed");
        }
    }
    named(&odd.compact_range::<&[u8]>(..), &what);
    named(&db.wait_for_compactions(), &what);
    disarmed(&fuse, || {
        assert!(acknowledged.iter().all(|&round| is_there(&db, &odd, round, &what)), "{what}");
    });
    named(&db.close(), &what);
    drop(odd);
    let machine = machine.next();
    let (db, odd) = machine.open();
    for round in 0..ROUNDS {
        let found = is_there(&db, &odd, round, &format!("{what}, reopened"));
        assert!(found || !acknowledged.contains(&round), "{what}: batch {round} is lost");
        assert_eq!(db.get(format!("beside{round}")).unwrap().unwrap(), "4", "{what}, reopened");
    }
    drop((db, odd));
    machine.env.drop_jobs();
    fuse.fired()
}

/// Tests every call of a method, from the first up to a maximum.
fn panic_at_every_call(method: &'static str, at_least: usize) {
    at_every_call(method, at_least, panic_at);
}

fn at_every_call(method: &'static str, at_least: usize, panics: impl Fn(&'static str, usize) -> bool) {
    let fired = (1..=60).take_while(|&call| panics(method, call)).count();
    assert!(fired >= at_least, "{method} was called {fired} times only");
}

#[test]
fn a_memtable_factory_that_panics() {
    panic_at_every_call("create", 3);
}

#[test]
fn a_memtable_writer_that_panics() {
    panic_at_every_call("insert", 16);
    panic_at_every_call("drop", 4);
    panic_at_every_call("reserve", 8);
}

#[test]
fn a_memtable_reader_that_panics() {
    for method in ["cursor", "entry_count", "memory_bytes"] {
        panic_at_every_call(method, 3);
    }
}

#[test]
fn a_memtable_cursor_that_panics() {
    for (method, at_least) in [("first", 3), ("next", 10), ("entry", 10)] {
        panic_at_every_call(method, at_least);
    }
}

#[test]
fn a_filter_that_panics() {
    for method in ["filter name", "filter build", "filter_bytes", "part"] {
        panic_at_every_call(method, 2);
    }
}

#[test]
fn a_prefix_extractor_that_panics() {
    for method in ["prefix name", "prefix"] {
        panic_at_every_call(method, 2);
    }
}

#[test]
fn a_compaction_policy_that_panics() {
    for method in ["level_count", "pick", "debt_bytes", "policy name"] {
        panic_at_every_call(method, 3);
    }
}

/// Opens a database with a log to replay, with a part that panics at the call of this number. Returns whether that call
/// happened.
fn panic_in_open(method: &'static str, call: usize) -> bool {
    let what = format!("{method}, call {call}");
    let fuse = fuse_at(method, call);
    let machine = Machine::new(&fuse);
    let open = |machine: &Machine| machine.options().keyspace(machine.fused()).open(Path::new("/db"));
    let db = open(&machine).unwrap();
    let other = db.keyspace("other", machine.fused()).unwrap();
    db.put("a table", "1").unwrap();
    db.flush().unwrap();
    for number in 0..4 {
        let mut batch = WriteBatch::new();
        batch.put(format!("log{number}"), value(method)).put_in(&other, format!("log{number}"), "3");
        db.write(batch).unwrap();
    }
    let crashed = machine.fs.process_crash();
    drop((other, db));
    let machine = Machine { fs: crashed, ..machine.next() };
    fuse.arm(true);
    let opened = open(&machine);
    let is_open = named(&opened, &what);
    assert!(!is_open || !fuse.fired(), "{what}: opened nevertheless");
    drop(opened);
    let machine = machine.next();
    let db = open(&machine).unwrap();
    let other = db.keyspace("other", machine.fused()).unwrap();
    assert_eq!(db.get("a table").unwrap().unwrap(), "1", "{what}");
    for number in 0..4 {
        assert!(db.get(format!("log{number}")).unwrap().is_some(), "{what}");
        assert_eq!(other.get(format!("log{number}")).unwrap().unwrap(), "3", "{what}");
    }
    db.close().unwrap();
    machine.env.drop_jobs();
    fuse.fired()
}

#[test]
fn parts_that_panic_while_the_log_is_replayed() {
    for (method, at_least) in [("create", 2), ("insert", 8), ("memory_bytes", 2)] {
        at_every_call(method, at_least, panic_in_open);
    }
    // Later calls only bound memory, and stop nothing.
    assert!(panic_in_open("set_pool_bytes", 1));
}

#[test]
fn parts_that_panic_while_recovery_flushes() {
    for method in ["cursor", "entry_count", "first", "next", "entry"] {
        at_every_call(method, 2, panic_in_open);
    }
    for method in ["filter name", "filter build", "filter_bytes", "part"] {
        at_every_call(method, 1, panic_in_open);
    }
    for method in ["prefix", "prefix name", "policy name"] {
        at_every_call(method, 1, panic_in_open);
    }
}

/// Writes with a factory that panics at this call of `set_pool_bytes`. Returns whether that call happened.
fn panic_in_pool(method: &'static str, call: usize) -> bool {
    let fuse = fuse_at(method, call);
    let machine = Machine::new(&fuse);
    let db = machine.options().keyspace(machine.fused()).open(Path::new("/db")).unwrap();
    fuse.arm(true);
    for number in 0..40 {
        db.put(format!("key{number}"), vec![b'v'; 100 << 10]).unwrap();
    }
    db.flush().unwrap();
    assert_eq!(db.iter().count(), 40);
    db.close().unwrap();
    fuse.arm(false);
    machine.env.drop_jobs();
    fuse.fired()
}

/// The pool only bounds memory. Nothing else depends on it.
#[test]
fn a_factory_that_panics_when_its_pool_is_set_stops_nothing() {
    at_every_call("set_pool_bytes", 3, panic_in_pool);
}

/// Creates a keyspace with a part that panics at the call of this number. Returns whether that call happened.
fn panic_in_create(method: &'static str, call: usize) -> bool {
    let what = format!("{method}, call {call}");
    let fuse = fuse_at(method, call);
    let machine = Machine::new(&fuse);
    let db = machine.options().open(Path::new("/db")).unwrap();
    let names = |db: &Db| db.metrics().keyspaces.into_iter().map(|one| one.name).collect::<Vec<_>>();
    fuse.arm(true);
    let created = db.keyspace("odd", machine.fused());
    fuse.arm(false);
    named(&created, &what);
    let before = names(&db);
    // Memory and disk agree, so the keyspace can be created now.
    drop((created, db));
    let machine = machine.next();
    let db = machine.options().open(Path::new("/db")).unwrap();
    assert_eq!(names(&db), before, "{what}");
    let odd = db.keyspace("odd", machine.fused()).unwrap();
    odd.put("key", "value").unwrap();
    db.flush().unwrap();
    assert_eq!(odd.get("key").unwrap().unwrap(), "value", "{what}");
    drop(odd);
    db.close().unwrap();
    machine.env.drop_jobs();
    fuse.fired()
}

#[test]
fn parts_that_panic_while_their_keyspace_is_created() {
    for (method, at_least) in [("policy name", 1), ("set_pool_bytes", 1), ("create", 0), ("filter name", 0)] {
        at_every_call(method, at_least, panic_in_create);
    }
}

/// Reads with a part that panics at the call of this number. Returns whether that call happened.
fn panic_in_reader(method: &'static str, call: usize) -> bool {
    let what = format!("{method}, call {call}");
    let fuse = fuse_at(method, call);
    let machine = Machine::new(&fuse);
    let (db, odd) = machine.open();
    odd.put("a table", "1").unwrap();
    db.flush().unwrap();
    odd.put("a memtable", "2").unwrap();
    let read = || {
        let found = odd.iter().map(|entry| entry.unwrap().0).collect::<Vec<_>>();
        assert_eq!(found, ["a memtable", "a table"]);
        assert_eq!(odd.prefix("a").count(), 2);
        assert_eq!(odd.get("a table").unwrap().unwrap(), "1");
        assert_eq!(odd.get("a memtable").unwrap().unwrap(), "2");
    };
    fuse.arm(true);
    let unwound = catch_unwind(AssertUnwindSafe(read));
    fuse.arm(false);
    assert_eq!(unwound.is_err(), fuse.fired(), "{what}");
    // Nothing is locked or broken.
    read();
    odd.put("another", "3").unwrap();
    db.flush().unwrap();
    odd.compact_range::<&[u8]>(..).unwrap();
    db.wait_for_compactions().unwrap();
    assert_eq!(odd.get("another").unwrap().unwrap(), "3", "{what}");
    drop(odd);
    db.close().unwrap();
    machine.env.drop_jobs();
    fuse.fired()
}

#[test]
fn a_panic_in_a_read_unwinds_the_reader_and_leaves_nothing_locked() {
    for (method, at_least) in [("get", 2), ("may_contain", 1), ("cursor", 2), ("seek", 1), ("next", 1)] {
        at_every_call(method, at_least, panic_in_reader);
    }
    for (method, at_least) in [("prefix", 1), ("entry", 2), ("first", 1), ("part", 1)] {
        at_every_call(method, at_least, panic_in_reader);
    }
}

/// Clears and drops with a memtable that panics at the call of this number. Returns whether that call happened.
fn panic_as_data_goes(method: &'static str, call: usize) -> bool {
    let what = format!("{method}, call {call}");
    let fuse = fuse_at(method, call);
    let machine = Machine::new(&fuse);
    let (db, odd) = machine.open();
    let gone = db.keyspace("gone", machine.fused()).unwrap();
    for entry in ["in a table", "in a memtable"] {
        db.flush().unwrap();
        odd.put(entry, "1").unwrap();
        gone.put(entry, "1").unwrap();
    }
    fuse.arm(true);
    let cleared = named(&odd.clear(), &what);
    let dropped = named(&db.drop_keyspace("gone"), &what);
    fuse.arm(false);
    let rows = |keyspace: &Keyspace| keyspace.iter().map(Result::unwrap).count();
    // A failed call may have done its work, but not half of it.
    let found = rows(&odd);
    assert!(found == 0 || (found == 2 && !cleared), "{what}: {found}");
    assert!(!dropped || db.existing_keyspace("gone").unwrap().is_none(), "{what}");
    db.put("beside", "4").unwrap();
    db.default_keyspace().clear().unwrap();
    db.put("beside", "5").unwrap();
    named(&db.close(), &what);
    drop((odd, gone));
    let machine = machine.next();
    let (db, odd) = machine.open();
    assert_eq!(rows(&odd), found, "{what}, reopened");
    assert!(!dropped || db.existing_keyspace("gone").unwrap().is_none(), "{what}, reopened");
    assert_eq!(db.get("beside").unwrap().unwrap(), "5", "{what}, reopened");
    db.close().unwrap();
    drop(odd);
    machine.env.drop_jobs();
    fuse.fired()
}

#[test]
fn a_memtable_that_panics_while_its_keyspace_is_cleared_or_dropped() {
    at_every_call("drop", 2, panic_as_data_goes);
}

/// The memtable of a stopped keyspace panics during its rotation. It stays the active memtable, and `flush` returns the
/// error that stopped the keyspace, after all others are flushed.
#[test]
fn a_memtable_of_a_stopped_keyspace_that_panics_at_rotation_does_not_block_other_flushes() {
    let fuse = fuse_at("pick", 1);
    let machine = Machine::new(&fuse);
    let (db, odd) = machine.open();
    odd.put("key", "1").unwrap();
    db.put("beside", "1").unwrap();
    fuse.arm(true);
    let stopped = db.wait_for_compactions().unwrap_err().to_string();
    assert!(stopped.contains("pick"), "{stopped}");
    fuse.set(&["memory_bytes"], 1);
    for round in 0..2 {
        let flushed = db.flush();
        assert!(!named(&flushed, "flush"));
        assert!(flushed.unwrap_err().to_string().contains("pick"));
        assert_eq!(flushed_entries(&db), 1 + round);
        assert_eq!(odd.get("key").unwrap().unwrap(), "1");
        db.put(format!("beside {round}"), "1").unwrap();
    }
    assert!(fuse.fired());
    named(&db.close(), "close");
    drop(odd);
    let machine = machine.next();
    let (db, odd) = machine.open();
    assert_eq!((odd.iter().count(), db.iter().count()), (1, 3));
    db.close().unwrap();
    drop(odd);
    machine.env.drop_jobs();
}

/// The panic happens in the waiting call itself. Only the next call used to return the error.
#[test]
fn wait_for_compactions_returns_the_panic_of_a_policy() {
    let fuse = fuse_at("pick", 1);
    let machine = Machine::new(&fuse);
    let (db, odd) = machine.open();
    fuse.arm(true);
    let error = db.wait_for_compactions().unwrap_err();
    assert!(error.to_string().contains(SAID), "{error}");
    drop((odd, db));
    machine.env.drop_jobs();
}

/// The tables of a keyspace found on disk are reopened with the filter that the user gives.
#[test]
fn a_keyspace_can_be_reopened_after_its_filter_panicked() {
    let fuse = Arc::new(Fuse::default());
    let machine = Machine::new(&fuse);
    let (db, odd) = machine.open();
    odd.put("key", "value").unwrap();
    drop(odd);
    db.close().unwrap();
    machine.env.drop_jobs();
    let options = || Options::new().vfs(Arc::new(machine.fs.clone()) as Arc<dyn Vfs>);
    let env = Arc::new(SimEnv::new(2));
    let db = options().env(Arc::clone(&env) as Arc<dyn Env>).open(Path::new("/db")).unwrap();
    let filter = || Some(Arc::new(Fused(BloomFilter::new(10.0), Arc::clone(&fuse))) as Arc<dyn FilterPolicy>);
    let policy = || Arc::new(SizeTiered::new(SizeTieredOptions::default()));
    let open = || db.keyspace("odd", KeyspaceOptions::new().compaction(policy()).filter(filter()));
    fuse.set(&["filter name"], 1);
    fuse.arm(true);
    let error = open().unwrap_err();
    assert!(error.to_string().contains(SAID), "{error}");
    assert!(fuse.fired());
    assert_eq!(open().unwrap().get("key").unwrap().unwrap(), b"value");
    db.close().unwrap();
    env.drop_jobs();
}
