//! There are many tables and few file descriptors. The engine closes the files of some tables to open others, and opens
//! them again for a read.

use std::io::ErrorKind as Io;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{Db, Options};

mod never;

use never::Never;

struct Machine {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl Machine {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)) }
    }

    fn options(&self) -> Options {
        let env = Arc::clone(&self.env) as Arc<dyn Env>;
        // No block cache, so that reads go to the files.
        let options = Options::new().cache_bytes(0).compaction(Arc::new(Never { splits: false }));
        options.vfs(Arc::new(self.fs.clone())).env(env)
    }

    /// The paths of all tables, after obsolete files were removed.
    fn tables(&self) -> Vec<PathBuf> {
        self.env.run_until_idle();
        let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
        self.fs.paths().into_iter().filter(is_table).collect()
    }
}

fn key(number: usize) -> String {
    format!("{number:05}")
}

/// Writes one table per number, each with three keys of its own.
fn write_tables(db: &Db, numbers: std::ops::Range<usize>) {
    for number in numbers {
        for part in ["a", "b", "c"] {
            db.put(key(number) + part, format!("{number} {part}")).unwrap();
        }
        db.flush().unwrap();
    }
}

fn check(db: &Db, number: usize) {
    assert_eq!(db.get(key(number) + "b").unwrap().unwrap(), *format!("{number} b"));
}

#[test]
fn five_thousand_tables_are_written_read_and_merged_with_128_descriptors() {
    let machine = Machine::new();
    machine.fs.set_open_files_max(Some(128));
    let options = || machine.options().memory(64 << 20).compaction(Arc::new(Never { splits: true }));
    let db = options().open("/db").unwrap();
    assert_eq!(db.metrics().open_files_max, 64);
    let count = 5000;
    for number in 0..count {
        db.put(key(number), key(number)).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    assert_eq!(machine.tables().len(), count);
    let check = |db: &Db| {
        for number in (0..count).step_by(7) {
            assert_eq!(db.get(key(number)).unwrap().unwrap(), *key(number));
        }
        assert!(db.iter().rev().map(Result::unwrap).map(|(key, _)| key).eq((0..count).rev().map(key)));
    };
    check(&db);
    assert_eq!(db.metrics().open_files, 64);
    db.close().unwrap();

    let db = options().open("/db").unwrap();
    check(&db);
    db.compact_range::<&str>(..).unwrap();
    assert!(machine.tables().len() < 10);
    check(&db);
    assert_eq!(db.metrics().open_files_max, 64, "the limit was not lowered");
    assert_eq!(db.metrics().background_error, None);
    db.close().unwrap();
}

#[test]
fn an_iterator_reads_compacted_tables_whose_files_were_closed() {
    let machine = Machine::new();
    let db = machine.options().open_files_max(3).open("/db").unwrap();
    write_tables(&db, 0..20);
    let mut old = db.iter();
    assert_eq!(old.next().unwrap().unwrap().0, "00000a");
    let before = machine.tables();
    db.compact_range::<&str>(..).unwrap();
    db.put("00000b", "later").unwrap();
    write_tables(&db, 20..25);
    (20..25).for_each(|number| check(&db, number));
    let stay = |tables: &[PathBuf]| before.iter().filter(|table| tables.contains(table)).count();
    assert_eq!(stay(&machine.tables()), 20, "until their last reader is dropped");
    assert!(db.metrics().open_files <= 3);
    let rest: Vec<_> = old.map(|entry| entry.unwrap().1).collect();
    assert_eq!(rest.len(), 59);
    assert_eq!((&*rest[0], &*rest[58]), (&b"0 b"[..], &b"19 c"[..]));
    assert!(stay(&machine.tables()) <= 1, "all except one that was moved");
    db.close().unwrap();
    machine.env.drop_jobs();
    assert_eq!(machine.fs.open_files(), 0);
}

#[test]
fn a_file_that_is_read_often_stays_open() {
    let machine = Machine::new();
    let db = machine.options().open_files_max(4).open("/db").unwrap();
    write_tables(&db, 0..40);
    check(&db, 0);
    let before = db.metrics().file_opens;
    for number in 1..40 {
        check(&db, number);
        check(&db, 0);
    }
    // After one round the hand may take each file once.
    assert!(db.metrics().file_opens - before <= 40, "{}", db.metrics().file_opens - before);
}

#[test]
fn a_read_names_the_file_that_cannot_be_reopened() {
    let machine = Machine::new();
    let db = machine.options().open_files_max(1).open("/db").unwrap();
    write_tables(&db, 0..3);
    check(&db, 2);
    let first = machine.tables().remove(0);
    machine.fs.inject(Fault::on(OperationKind::Open, Io::NotFound));
    let error = db.get("00000a").unwrap_err();
    assert!(error.to_string().contains(first.to_str().unwrap()), "{error}");
    // The disk failed, not the table.
    (0..3).for_each(|number| check(&db, number));
    assert_eq!(db.metrics().open_files, 1);
}

#[test]
fn tables_close_files_when_descriptors_run_out() {
    let machine = Machine::new();
    let db = machine.options().open_files_max(1000).open("/db").unwrap();
    write_tables(&db, 0..100);
    assert_eq!(db.metrics().open_files, 100);
    // No further file can be opened, neither for writing nor for reading.
    machine.fs.set_open_files_max(Some(machine.fs.open_files()));
    write_tables_whatever_fails(&db, 100..110);
    (0..110).for_each(|number| check(&db, number));
    assert!(db.metrics().open_files < 100);
    assert!(db.metrics().open_files_max < 110, "{}", db.metrics().open_files_max);
    db.close().unwrap();
}

#[test]
fn tables_with_few_open_files_keep_them_when_descriptors_run_out() {
    let machine = Machine::new();
    let db = machine.options().open_files_max(1000).open("/db").unwrap();
    write_tables(&db, 0..10);
    machine.fs.set_open_files_max(Some(machine.fs.open_files()));
    db.put("00010b", "10 b").unwrap();
    assert!(db.flush().is_err(), "no file can be closed instead");
    machine.fs.set_open_files_max(None);
    db.flush().unwrap();
    write_tables(&db, 11..50);
    assert_eq!((db.metrics().open_files, db.metrics().open_files_max), (50, 1000));
    (0..50).for_each(|number| check(&db, number));
    db.close().unwrap();
}

/// Retries a flush until it finds a file descriptor.
fn write_tables_whatever_fails(db: &Db, numbers: std::ops::Range<usize>) {
    for number in numbers {
        db.put(key(number) + "b", format!("{number} b")).unwrap();
        if db.flush().is_err() {
            db.flush().unwrap();
        }
    }
}

#[test]
fn threads_that_share_few_open_files_read_correct_values() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        Options::new().cache_bytes(0).compaction(Arc::new(Never { splits: false })).open_files_max(2);
    let db = options.open(directory.path()).unwrap();
    write_tables(&db, 0..8);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for round in 0..500 {
                    check(db, (thread + round * (thread + 1)) % 8);
                }
            });
        }
    });
    let metrics = db.metrics();
    assert!(metrics.open_files <= 2 && metrics.file_opens > 100, "{metrics:?}");
    db.close().unwrap();
}

#[test]
fn a_limit_of_zero_open_files_is_refused() {
    let error = Machine::new().options().open_files_max(0).open("/db").unwrap_err();
    assert!(error.to_string().contains("open_files_max"), "{error}");
}
