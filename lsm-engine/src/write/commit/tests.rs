use std::sync::Arc;

use lsm_core::env::SimEnv;
use lsm_core::vfs::{AllLost, SimFs};
use lsm_core::{SequenceNumber, ValueKind};
use lsm_memtable::{BPlusMemtable, Full, MemtableFactory, MemtableReader, MemtableWriter};

use crate::read::Bounds;
use crate::{Db, DbCursor, Options, WriteBatch};

/// Memtables that ask a function whether to take an insert, which they count from 1 on.
#[derive(Debug)]
struct Odd(BPlusMemtable, fn(usize) -> Result<(), Full>);

struct OddWriter(Box<dyn MemtableWriter>, fn(usize) -> Result<(), Full>, usize);

impl MemtableFactory for Odd {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = self.0.create();
        (Box::new(OddWriter(writer, self.1, 0)), reader)
    }
}

impl MemtableWriter for OddWriter {
    fn insert(
        &mut self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<(), Full> {
        self.2 += 1;
        (self.1)(self.2)?;
        self.0.insert(key, sequence, kind, value)
    }
}

/// Memtables that are full after four entries.
fn tiny() -> Arc<dyn MemtableFactory> {
    Arc::new(Odd(BPlusMemtable::default(), |insert| if insert > 4 { Err(Full) } else { Ok(()) }))
}

/// Memtables that panic at the second operation of a batch.
fn broken() -> Arc<dyn MemtableFactory> {
    let at_third = |insert| {
        assert!(insert != 3, "the memtable of the test is broken");
        Ok(())
    };
    Arc::new(Odd(BPlusMemtable::default(), at_third))
}

fn open() -> (Arc<SimEnv>, Db) {
    open_in(&SimFs::new())
}

fn open_in(fs: &SimFs) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(&env) as _);
    let db = options.memory(8 << 20).memtable(tiny()).open("/db").unwrap();
    (env, db)
}

const KEYS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A batch that sets all keys to `value`. It does not fit one memtable, wherever it starts.
fn batch(value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for key in KEYS {
        batch.put(key, value);
    }
    batch
}

/// A read loads the state, then the visible number. Here a batch that spans two memtables is committed between the two.
#[test]
fn a_reader_of_an_older_state_sees_nothing_of_a_batch_that_spans_memtables() {
    for filled in 0..=4 {
        let (env, db) = open();
        db.write(batch("old")).unwrap();
        db.flush().unwrap();
        for number in 0..filled {
            db.put(format!("other{number}"), "value").unwrap();
        }
        let (visibility, tree) = (&db.database.visibility, db.default.tree());
        let states: Vec<_> = ["new", "newer"]
            .map(|value| {
                let state = tree.load_full();
                db.write(batch(value)).unwrap();
                state
            })
            .into();
        for (state, expected) in states.into_iter().zip(["old", "new"]) {
            let visible = visibility.point_in(&state);
            let got = KEYS.map(|key| state.get(key.as_bytes(), &visible).unwrap().unwrap());
            assert!(got.iter().all(|value| value == expected.as_bytes()), "{filled}: {got:?}");
            let mut cursor = DbCursor::new(state, visible, Bounds::ALL, None);
            cursor.first().unwrap();
            for key in KEYS {
                assert_eq!(cursor.key(), Some(key.as_bytes()), "{filled}");
                assert_eq!(cursor.value(), Some(expected.as_bytes()), "{filled}");
                cursor.next().unwrap();
            }
        }
        // Later readers see the whole batch.
        let seen = |db: &Db| KEYS.map(|key| db.get(key).unwrap().unwrap());
        assert!(seen(&db).iter().all(|value| value == b"newer"));
        db.flush().unwrap();
        assert!(seen(&db).iter().all(|value| value == b"newer"));
        drop((tree, db));
        env.drop_jobs();
    }
}

/// Like the test above, with a memtable that panics in the middle of the batch.
#[test]
fn a_reader_of_an_older_state_sees_nothing_of_a_batch_during_which_a_memtable_panicked() {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as _);
    let db = options.memory(8 << 20).memtable(broken()).open("/db").unwrap();
    db.put("before", "value").unwrap();
    let (visibility, tree) = (&db.database.visibility, db.default.tree());
    let state = tree.load_full();
    db.write(batch("value")).unwrap_err();
    let visible = visibility.point_in(&state);
    assert!(KEYS.iter().all(|key| state.get(key.as_bytes(), &visible).unwrap().is_none()));
    drop(state);
    // Later readers see the whole batch.
    assert!(KEYS.iter().all(|key| db.get(key).unwrap().is_some()));
    assert_eq!(db.iter().count(), 1 + KEYS.len());
    db.put("after", "value").unwrap_err();
    drop((tree, db));
    env.drop_jobs();
}

#[test]
fn a_crash_keeps_all_or_nothing_of_a_batch_with_a_flushed_part() {
    let fs = SimFs::new();
    let (env, db) = open_in(&fs);
    db.write(batch("value")).unwrap();
    env.run_until_idle();
    assert_eq!(db.metrics().flushes, 1, "of two memtables, and the rest of it is in a third");
    let (cut, crashed) = (fs.power_cut(&mut AllLost), fs.process_crash());
    drop(db);
    env.drop_jobs();
    let found = |fs: &SimFs| {
        let (env, db) = open_in(fs);
        let found = KEYS.iter().filter(|key| db.get(key).unwrap().is_some()).count();
        drop(db);
        env.drop_jobs();
        found
    };
    assert_eq!(found(&crashed), KEYS.len());
    assert!([0, KEYS.len()].contains(&found(&cut)), "{}", found(&cut));
}
