//! `close` may be called on several handles at once. No call returns before all data is in tables, and all calls return
//! the same result.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use lsm_core::{Cursor, Entry, SequenceNumber};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{Db, Options};
use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, MemtableWriter};

/// A memtable whose flush begins only when the test says so.
#[derive(Debug)]
struct Gated(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    entered: Sender<()>,
    leave: Mutex<Receiver<()>>,
    left: AtomicBool,
}

struct GatedReader(Arc<dyn MemtableReader>, Arc<Gate>);

impl MemtableFactory for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = BPlusMemtable::default().create();
        (writer, Arc::new(GatedReader(reader, Arc::clone(&self.0))))
    }
}

impl MemtableReader for GatedReader {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        self.0.get(key, sequence)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        self.1.entered.send(()).unwrap();
        self.1.leave.lock().unwrap().recv().unwrap();
        self.1.left.store(true, Ordering::SeqCst);
        Arc::clone(&self.0).cursor()
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    fn entry_count(&self) -> usize {
        self.0.entry_count()
    }
}

#[test]
fn a_second_close_waits_for_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (entered, is_entered) = channel();
    let (leave, may_leave) = channel();
    let gate = Arc::new(Gate { entered, leave: Mutex::new(may_leave), left: AtomicBool::new(false) });
    let memtable = Arc::new(Gated(Arc::clone(&gate))) as Arc<dyn MemtableFactory>;
    let db = Options::new().memtable(memtable).open(dir.path()).unwrap();
    db.put("key", "value").unwrap();
    let first = db.clone();
    std::thread::scope(|scope| {
        let first = scope.spawn(move || first.close());
        is_entered.recv().unwrap();
        scope.spawn(|| {
            // Gives the second close time to return too early.
            (0..10_000).for_each(|_| std::thread::yield_now());
            leave.send(()).unwrap();
        });
        db.close().unwrap();
        assert!(gate.left.load(Ordering::SeqCst), "the first close still flushes");
        first.join().unwrap().unwrap();
    });
    assert_eq!(Db::open(dir.path()).unwrap().get("key").unwrap().unwrap(), "value");
}

#[test]
fn a_second_close_returns_the_error_of_the_first() {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
    let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.open(Path::new("/db")).unwrap();
    db.put("key", "value").unwrap();
    fs.inject(Fault::on(OperationKind::Write, std::io::ErrorKind::StorageFull).sticky().named(".sst"));
    let first = db.clone().close().unwrap_err();
    let second = db.close().unwrap_err();
    assert_eq!(first.to_string(), second.to_string());
    env.drop_jobs();
}
