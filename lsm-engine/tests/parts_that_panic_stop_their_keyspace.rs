//! A memtable, a filter and a compaction policy from outside that panic at any of their calls: each call of the engine
//! returns, the error says what happened, other keyspaces go on reading, and no batch is there in part, before and after
//! reopening.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lsm_core::{Cursor, Entry, SequenceNumber, ValueKind};
use lsm_engine::compaction_policies::{
    Compaction, CompactionPolicy, SizeTiered, SizeTieredOptions, TreeShape,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, FilterPolicy, Keyspace, KeyspaceOptions, Options, Result, WriteBatch};
use lsm_memtable::{BPlusMemtable, Full, MemtableFactory, MemtableReader, MemtableWriter};
use lsm_sstable::BloomFilter;

const SAID: &str = "the part of the test gave up";

/// Makes one method panic at one of its calls.
#[derive(Debug)]
struct Fuse {
    method: &'static str,
    calls_left: AtomicUsize,
    is_armed: AtomicBool,
}

impl Fuse {
    fn new(method: &'static str, call: usize) -> Arc<Self> {
        Arc::new(Self { method, calls_left: AtomicUsize::new(call), is_armed: AtomicBool::new(false) })
    }

    fn call(&self, method: &'static str) {
        if method != self.method || !self.is_armed.load(Ordering::Relaxed) {
            return;
        }
        let left = self.calls_left.load(Ordering::Relaxed);
        self.calls_left.store(left.saturating_sub(1), Ordering::Relaxed);
        assert!(left != 1, "{SAID}: {method}");
    }

    fn fired(&self) -> bool {
        self.calls_left.load(Ordering::Relaxed) == 0
    }

    /// Calls nothing that panics meanwhile.
    fn disarmed<T>(&self, call: impl FnOnce() -> T) -> T {
        let was_armed = self.is_armed.swap(false, Ordering::Relaxed);
        let answer = call();
        self.is_armed.store(was_armed, Ordering::Relaxed);
        answer
    }
}

/// What the engine uses by default, behind a fuse.
#[derive(Debug)]
struct Fused<T>(T, Arc<Fuse>);

struct FusedReader(Arc<dyn MemtableReader>, Arc<Fuse>);

impl MemtableFactory for Fused<BPlusMemtable> {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        self.1.call("create");
        let (writer, reader) = self.0.create();
        let fuse = || Arc::clone(&self.1);
        (Box::new(Fused(writer, fuse())), Arc::new(FusedReader(reader, fuse())))
    }
}

impl MemtableWriter for Fused<Box<dyn MemtableWriter>> {
    fn insert(
        &mut self,
        key: &[u8],
        at: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> std::result::Result<(), Full> {
        self.1.call("insert");
        self.0.insert(key, at, kind, value)
    }
}

impl MemtableReader for FusedReader {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        self.0.get(key, sequence)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        self.1.call("cursor");
        Box::new(Fused(Arc::clone(&self.0).cursor(), Arc::clone(&self.1)))
    }

    fn memory_bytes(&self) -> usize {
        self.1.call("memory_bytes");
        self.0.memory_bytes()
    }

    fn entry_count(&self) -> usize {
        self.1.call("entry_count");
        self.0.entry_count()
    }
}

impl Cursor for Fused<Box<dyn Cursor + Send>> {
    fn first(&mut self) {
        self.1.call("first");
        self.0.first();
    }

    fn last(&mut self) {
        self.0.last();
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.1.call("seek");
        self.0.seek(key, sequence);
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.0.seek_for_prev(key, sequence);
    }

    fn next(&mut self) {
        self.1.call("next");
        self.0.next();
    }

    fn prev(&mut self) {
        self.0.prev();
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.1.call("entry");
        self.0.entry()
    }

    fn error(&self) -> Option<&lsm_core::Error> {
        self.0.error()
    }
}

impl FilterPolicy for Fused<BloomFilter> {
    fn name(&self) -> &'static str {
        self.1.call("filter name");
        // Of its own: tables whose filter is named like the one of the engine are read with that.
        "fused"
    }

    fn build(&self, hashes: &[u64]) -> Vec<u8> {
        self.1.call("filter build");
        self.0.build(hashes)
    }

    fn may_contain(&self, filter: &[u8], hash: u64) -> bool {
        self.0.may_contain(filter, hash)
    }

    fn filter_bytes(&self, hash_count: usize) -> usize {
        self.1.call("filter_bytes");
        self.0.filter_bytes(hash_count)
    }
}

impl CompactionPolicy for Fused<SizeTiered> {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn level_count(&self) -> usize {
        self.1.call("level_count");
        self.0.level_count()
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        self.1.call("pick");
        self.0.pick(shape)
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        self.1.call("debt_bytes");
        self.0.debt_bytes(shape)
    }
}

struct Machine {
    fs: SimFs,
    env: Arc<SimEnv>,
    fuse: Arc<Fuse>,
}

impl Machine {
    fn open(&self) -> (Db, Keyspace) {
        let options = Options::new().memory(8 << 20).vfs(Arc::new(self.fs.clone()) as Arc<dyn Vfs>);
        let db = options.env(Arc::clone(&self.env) as Arc<dyn Env>).open(Path::new("/db")).unwrap();
        let fuse = || Arc::clone(&self.fuse);
        let options = KeyspaceOptions::new()
            .memtable(Arc::new(Fused(BPlusMemtable::default(), fuse())) as Arc<dyn MemtableFactory>)
            .filter(Some(Arc::new(Fused(BloomFilter::new(10.0), fuse())) as Arc<dyn FilterPolicy>))
            .compaction(Arc::new(Fused(SizeTiered::new(SizeTieredOptions::default()), fuse()))
                as Arc<dyn CompactionPolicy>);
        let odd = db.keyspace("odd", options).unwrap();
        (db, odd)
    }
}

/// Whether the batch of `round` is there; all of it is, or nothing.
fn is_there(db: &Db, odd: &Keyspace, round: usize, what: &str) -> bool {
    let (a, b) = (format!("a{round}"), format!("b{round}"));
    let found =
        [db.get(&a).unwrap(), odd.get(&a).unwrap(), odd.get(&b).unwrap()].map(|value| value.is_some());
    assert!(found.iter().all(|one| *one == found[0]), "{what}: batch {round} is there in part: {found:?}");
    found[0]
}

const ROUNDS: usize = 8;

/// Works with a part that panics at the call of this number; whether it came to that.
fn panic_at(method: &'static str, call: usize) -> bool {
    let what = format!("{method}, call {call}");
    let (fuse, env) = (Fuse::new(method, call), Arc::new(SimEnv::new(1)));
    let machine = Machine { fs: SimFs::new(), env: Arc::clone(&env), fuse: Arc::clone(&fuse) };
    let (db, odd) = machine.open();
    fuse.is_armed.store(true, Ordering::Relaxed);
    let named = |result: Result<()>| {
        if let Err(error) = &result {
            assert!(error.to_string().contains(SAID), "{what}: {error}");
        }
        result.is_ok()
    };
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut batch = WriteBatch::new();
        batch.put(format!("a{round}"), "1");
        batch.put_in(&odd, format!("a{round}"), "2").put_in(&odd, format!("b{round}"), "3");
        if named(db.write(batch)) {
            acknowledged.push(round);
        }
        // Whatever came of it, the next write must not show a part of it.
        named(db.put("beside", round.to_string()));
        fuse.disarmed(|| (0..=round).for_each(|round| _ = is_there(&db, &odd, round, &what)));
        if round % 2 == 1 {
            named(db.flush());
        }
    }
    named(odd.compact_range::<&[u8]>(..));
    named(db.wait_for_compactions());
    fuse.disarmed(|| assert!(acknowledged.iter().all(|&round| is_there(&db, &odd, round, &what)), "{what}"));
    named(db.close());
    fuse.is_armed.store(false, Ordering::Relaxed);
    drop(odd);
    env.drop_jobs();
    let machine = Machine { env: Arc::new(SimEnv::new(2)), ..machine };
    let (db, odd) = machine.open();
    for round in 0..ROUNDS {
        let found = is_there(&db, &odd, round, &format!("{what}, reopened"));
        assert!(found || !acknowledged.contains(&round), "{what}: batch {round} is lost");
    }
    drop((db, odd));
    machine.env.drop_jobs();
    fuse.fired()
}

/// Every call of a method, from the first on, up to so many.
fn panic_at_every_call(method: &'static str, at_least: usize) {
    let fired = (1..=60).take_while(|&call| panic_at(method, call)).count();
    assert!(fired >= at_least, "{method} was called {fired} times only");
}

#[test]
fn a_memtable_factory_that_panics() {
    panic_at_every_call("create", 3);
}

#[test]
fn a_memtable_writer_that_panics() {
    panic_at_every_call("insert", 16);
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
    for method in ["filter name", "filter build"] {
        panic_at_every_call(method, 2);
    }
}

#[test]
fn a_compaction_policy_that_panics() {
    for method in ["level_count", "pick", "debt_bytes"] {
        panic_at_every_call(method, 3);
    }
}

/// The panic came in the very call that waits, and was told by the next.
#[test]
fn whoever_waits_for_compactions_hears_of_a_policy_that_panics_when_it_is_asked() {
    let (fuse, env) = (Fuse::new("pick", 1), Arc::new(SimEnv::new(1)));
    let machine = Machine { fs: SimFs::new(), env: Arc::clone(&env), fuse: Arc::clone(&fuse) };
    let (db, odd) = machine.open();
    fuse.is_armed.store(true, Ordering::Relaxed);
    let error = db.wait_for_compactions().unwrap_err();
    assert!(error.to_string().contains(SAID), "{error}");
    drop((odd, db));
    env.drop_jobs();
}
