//! A memtable that gets no memory from the system says so before the write is in the log: the write fails, and nothing
//! else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_core::{SequenceNumber, ValueKind};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Keyspace, KeyspaceOptions, Options, WriteBatch};
use lsm_memtable::{BPlusMemtable, Coming, Full, MemtableFactory, MemtableReader, MemtableWriter};

/// Memtables for which there is no memory when that is said.
#[derive(Clone, Debug)]
struct Short(BPlusMemtable, Arc<AtomicBool>);

struct ShortWriter(Box<dyn MemtableWriter>, Arc<AtomicBool>);

impl MemtableFactory for Short {
    fn name(&self) -> &'static str {
        "short"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = self.0.create();
        (Box::new(ShortWriter(writer, Arc::clone(&self.1))), reader)
    }
}

impl ShortWriter {
    fn check(&self) -> Result<(), Full> {
        if self.1.load(Ordering::Relaxed) { Err(Full) } else { Ok(()) }
    }
}

impl MemtableWriter for ShortWriter {
    fn insert(&mut self, key: &[u8], at: SequenceNumber, kind: ValueKind, value: &[u8]) -> Result<(), Full> {
        self.check()?;
        self.0.insert(key, at, kind, value)
    }

    fn reserve(&mut self, coming: &Coming<'_>) -> Result<(), Full> {
        self.check()?;
        self.0.reserve(coming)
    }
}

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
fn it_fails_alone() {
    let (fs, is_short) = (SimFs::new(), Arc::new(AtomicBool::new(false)));
    let memtable = Short(BPlusMemtable::default(), Arc::clone(&is_short));
    let (env, db, short) = open(&fs, &memtable);
    db.write(batch(&short, "before")).unwrap();
    for filled in [true, false] {
        is_short.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            for refused in [short.put("refused", "value"), db.write(batch(&short, "refused"))] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("memory") && error.contains("/db"), "{error}");
            }
        }
        // Other keyspaces, reads and background work go on.
        db.put(format!("beside{filled}"), "value").unwrap();
        assert_eq!(short.get("before").unwrap().unwrap(), "2");
        assert_eq!(short.get("refused").unwrap(), None);
        db.flush().unwrap();
        is_short.store(false, Ordering::Relaxed);
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
