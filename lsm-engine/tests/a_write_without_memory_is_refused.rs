//! A memtable that gets no memory from the system reports it before the write is in the log. The write fails, and
//! nothing else does.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Keyspace, KeyspaceOptions, Options, WriteBatch};
use lsm_memtable::BPlusMemtable;

mod short;

use short::{Short, Shortage};

fn open(fs: &SimFs, memtable: &Short) -> (Arc<SimEnv>, Db, Keyspace) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    let options = KeyspaceOptions::new().memtable(Arc::new(memtable.clone()));
    let short = db.keyspace("short", options).unwrap();
    (env, db, short)
}

fn batch(short: &Keyspace, key: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, "1").put_in(short, key, "2").put_in(short, format!("{key}!"), vec![3; 20_000]);
    batch
}

#[test]
fn a_write_without_memory_fails_and_nothing_else_does() {
    let (fs, shortage) = (SimFs::new(), Arc::new(Shortage::default()));
    let memtable = Short(Arc::new(BPlusMemtable::default()), Arc::clone(&shortage));
    let (env, db, short) = open(&fs, &memtable);
    db.write(batch(&short, "before")).unwrap();
    for filled in [true, false] {
        shortage.set(&["reserve", "insert"], 0, usize::MAX);
        for _ in 0..3 {
            for refused in [short.put("refused", "value"), db.write(batch(&short, "refused"))] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("memory") && error.contains("/db"), "{error}");
            }
        }
        // Other keyspaces, reads and background work are not affected.
        db.put(format!("beside{filled}"), "value").unwrap();
        assert_eq!(short.get("before").unwrap().unwrap(), "2");
        assert_eq!(short.get("refused").unwrap(), None);
        db.flush().unwrap();
        assert!(shortage.refusals() >= 6);
        shortage.set(&[], 0, 0);
        db.write(batch(&short, &format!("after{filled}"))).unwrap();
        short.delete("nothing").unwrap();
        if filled {
            db.flush().unwrap();
        }
    }
    let crashed = fs.process_crash();
    drop((short, db));
    env.drop_jobs();
    let (env, db, short) = open(&crashed, &memtable);
    for key in ["before", "aftertrue", "afterfalse"] {
        assert_eq!(db.get(key).unwrap().unwrap(), "1");
        assert_eq!(short.get(key).unwrap().unwrap(), "2");
        assert_eq!(short.get(format!("{key}!")).unwrap().unwrap(), vec![3; 20_000]);
    }
    assert_eq!((db.get("refused").unwrap(), short.get("refused").unwrap()), (None, None));
    db.close().unwrap();
    drop(short);
    env.drop_jobs();
}
