//! A forked child has the handles of its parent, but none of its threads. It shares files, locks and the window of the
//! log with the parent. So the child must not change them, and must not wait for background work.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, KeyspaceOptions, Options, Result, WriteBatch};

struct Machine {
    fs: SimFs,
    env: SimEnv,
}

impl Machine {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: SimEnv::new(1) }
    }

    fn options(&self) -> Options {
        let env = Arc::new(self.env.clone()) as Arc<dyn Env>;
        Options::new().memory(8 << 20).vfs(Arc::new(self.fs.clone())).env(env)
    }

    /// Runs the code of a child, and checks that no job takes a step and no file changes.
    fn in_child(&self, run: impl FnOnce()) {
        let before = (self.env.steps(), self.fs.operations(), self.fs.fingerprint());
        self.env.set_forked(true);
        run();
        assert_eq!((self.env.steps(), self.fs.operations(), self.fs.fingerprint()), before);
        self.env.set_forked(false);
    }
}

fn refused<T>(what: &str, result: Result<T>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} in a child"));
    assert!(error.to_string().contains("forked"), "{what}: {error}");
}

fn filled(machine: &Machine) -> Db {
    let db = machine.options().open("/db").unwrap();
    for number in 0..300 {
        db.put(format!("key{number:03}"), [7; 100]).unwrap();
        if number % 100 == 50 {
            db.flush().unwrap();
        }
    }
    db
}

#[test]
fn dropping_handles_in_a_child_does_not_wait_and_changes_nothing() {
    let machine = Machine::new();
    let db = filled(&machine);
    let (snapshot, space) = (db.snapshot().unwrap(), db.keyspace("space", KeyspaceOptions::new()).unwrap());
    let mut iter = db.iter();
    iter.next().unwrap().unwrap();
    machine.in_child(|| drop((iter, snapshot, space, db)));
    // The parent still holds the lock.
    assert!(machine.options().open("/db").is_err());
    let next = Machine { fs: machine.fs.process_crash(), env: SimEnv::new(2) };
    let db = next.options().open("/db").unwrap();
    assert_eq!(db.iter().count(), 300);
    db.close().unwrap();
    next.env.drop_jobs();
}

#[test]
fn a_child_of_a_read_only_database_keeps_the_lock_of_its_parent() {
    let machine = Machine::new();
    filled(&machine).close().unwrap();
    let reader = machine.options().read_only(true).open("/db").unwrap();
    machine.in_child(|| drop(reader));
    assert!(machine.options().open("/db").is_err());
    machine.env.drop_jobs();
}

#[test]
fn all_writing_calls_fail_in_a_child() {
    let machine = Machine::new();
    let db = filled(&machine);
    let space = db.keyspace("space", KeyspaceOptions::new()).unwrap();
    machine.in_child(|| {
        refused("put", db.put("key", "value"));
        let mut batch = WriteBatch::new();
        batch.put("key", "value").put_in(&space, "key", "value");
        refused("write", db.write(batch));
        refused("delete_range", db.delete_range("a".."z"));
        refused("clear", space.clear());
        refused("flush", db.flush());
        refused("sync", db.sync());
        refused("compact_range", db.compact_range::<&[u8]>(..));
        refused("wait_for_compactions", db.wait_for_compactions());
        refused("a new keyspace", db.keyspace("new", KeyspaceOptions::new()));
        refused("drop_keyspace", db.drop_keyspace("space"));
        refused("close", db.clone().close());
        refused("open", machine.options().open("/other"));
    });
    // The parent can still write.
    db.put("key", "value").unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    drop(space);
    db.close().unwrap();
    machine.env.drop_jobs();
}
