//! A memtable, a filter and a compaction policy from outside that panic at any of their calls: each call of the engine
//! returns, the error says what happened, other keyspaces go on reading, and no batch is there in part, before and after
//! reopening.

use std::path::Path;
use std::sync::Arc;

use lsm_engine::compaction_policies::{CompactionPolicy, SizeTiered, SizeTieredOptions};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, FilterPolicy, Keyspace, KeyspaceOptions, Options, Result, WriteBatch};
use lsm_memtable::{BPlusMemtable, MemtableFactory};
use lsm_sstable::BloomFilter;

mod fused;

use fused::{Fuse, Fused, SAID};

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
        let memtable: Arc<dyn MemtableFactory> = Arc::new(BPlusMemtable::default());
        let policy: Arc<dyn CompactionPolicy> = Arc::new(SizeTiered::new(SizeTieredOptions::default()));
        let options = KeyspaceOptions::new()
            .memtable(Arc::new(Fused(memtable, fuse())))
            .filter(Some(Arc::new(Fused(BloomFilter::new(10.0), fuse())) as Arc<dyn FilterPolicy>))
            .compaction(Arc::new(Fused(policy, fuse())));
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

/// Calls nothing that panics meanwhile.
fn disarmed(fuse: &Fuse, call: impl FnOnce()) {
    fuse.arm(false);
    call();
    fuse.arm(true);
}

const ROUNDS: usize = 8;

/// Works with a part that panics at the call of this number; whether it came to that.
fn panic_at(method: &'static str, call: usize) -> bool {
    let what = format!("{method}, call {call}");
    let (fuse, env) = (Arc::new(Fuse::default()), Arc::new(SimEnv::new(1)));
    fuse.set(&[method], call);
    let machine = Machine { fs: SimFs::new(), env: Arc::clone(&env), fuse: Arc::clone(&fuse) };
    let (db, odd) = machine.open();
    fuse.arm(true);
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
        disarmed(&fuse, || (0..=round).for_each(|round| _ = is_there(&db, &odd, round, &what)));
        if round % 2 == 1 {
            named(db.flush());
        }
    }
    named(odd.compact_range::<&[u8]>(..));
    named(db.wait_for_compactions());
    disarmed(&fuse, || {
        assert!(acknowledged.iter().all(|&round| is_there(&db, &odd, round, &what)), "{what}");
    });
    named(db.close());
    fuse.arm(false);
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
    let (fuse, env) = (Arc::new(Fuse::default()), Arc::new(SimEnv::new(1)));
    fuse.set(&["pick"], 1);
    let machine = Machine { fs: SimFs::new(), env: Arc::clone(&env), fuse: Arc::clone(&fuse) };
    let (db, odd) = machine.open();
    fuse.arm(true);
    let error = db.wait_for_compactions().unwrap_err();
    assert!(error.to_string().contains(SAID), "{error}");
    drop((odd, db));
    env.drop_jobs();
}
