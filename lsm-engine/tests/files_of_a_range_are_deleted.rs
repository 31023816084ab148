//! `delete_files_in_range` removes whole tables. Nothing older comes back, and snapshots keep their view.

use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, DeletedFiles, ErrorKind, Options};

mod never;

use never::Never;

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)) }
    }

    /// Nothing is compacted: each flush leaves a table.
    fn options(&self) -> Options {
        let options = Options::new().memory(8 << 20).compaction(Arc::new(Never { splits: false }));
        options.vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>)
    }

    fn open(&self) -> Db {
        self.options().open("/db").unwrap()
    }

    fn tables(&self) -> usize {
        self.env.run_until_idle();
        let names = self.fs.read_dir(Path::new("/db")).unwrap();
        names
            .iter()
            .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "sst"))
            .count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

/// Writes these keys with a value to one table.
fn table(db: &Db, keys: &[&str], value: &str) {
    for key in keys {
        db.put(key, value).unwrap();
    }
    db.flush().unwrap();
}

fn keys(db: &Db) -> Vec<String> {
    db.iter().keys().map(|key| String::from_utf8(key.unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn whole_tables_leave_and_others_stay() {
    let world = World::new();
    let db = world.open();
    table(&db, &["a", "b"], "1");
    table(&db, &["c", "d"], "1");
    table(&db, &["e", "g"], "1");
    db.put("c2", "in memory").unwrap();
    let deleted = db.delete_files_in_range("b".."g").unwrap();
    assert_eq!(deleted.tables, 1);
    assert!(deleted.bytes > 0);
    assert_eq!(keys(&db), ["a", "b", "c2", "e", "g"]);
    assert_eq!(world.tables(), 2);
    assert_eq!(db.delete_files_in_range("b".."g").unwrap(), DeletedFiles::default());
    // The end of a range counts if it is included.
    assert_eq!(db.delete_files_in_range("e"..="g").unwrap().tables, 1);
    // Durable at once.
    drop(db);
    let world =
        World { fs: world.fs.power_cut(&mut lsm_engine::vfs::AllLost), env: Arc::new(SimEnv::new(2)) };
    let db = world.open();
    assert!(db.get("c").unwrap().is_none() && db.get("e").unwrap().is_none());
    assert_eq!(db.get("a").unwrap().unwrap(), b"1");
}

#[test]
fn nothing_older_comes_back() {
    let world = World::new();
    let db = world.open();
    table(&db, &["a", "c", "z"], "old");
    table(&db, &["b", "c"], "new");
    db.delete("d").unwrap();
    table(&db, &["e"], "new");
    // The table of "old" reaches out of the range, so those above it must stay.
    assert_eq!(db.delete_files_in_range("b"..="e").unwrap(), DeletedFiles::default());
    assert_eq!(db.get("c").unwrap().unwrap(), b"new");
    // All three together may go.
    assert_eq!(db.delete_files_in_range::<&str>(..).unwrap().tables, 3);
    assert_eq!(keys(&db), [""; 0]);
    assert_eq!(world.tables(), 0);
}

#[test]
fn tables_of_all_levels_leave() {
    let world = World::new();
    let db = world.open();
    table(&db, &["b", "c", "d"], "old");
    db.compact_range::<&str>(..).unwrap();
    table(&db, &["b", "d"], "newer");
    table(&db, &["c"], "newest");
    table(&db, &["x"], "other");
    assert_eq!(db.metrics().keyspaces[0].levels[1].tables, 1);
    // What hides the table below stays as long as that does.
    assert_eq!(db.delete_files_in_range("c".."d").unwrap(), DeletedFiles::default());
    assert_eq!(db.delete_files_in_range("b"..="d").unwrap().tables, 3);
    assert_eq!(keys(&db), ["x"]);
    assert_eq!(world.tables(), 1);
}

#[test]
fn snapshots_and_iterators_keep_their_view_and_their_files() {
    let world = World::new();
    let db = world.open();
    table(&db, &["a", "b"], "1");
    let snapshot = db.snapshot().unwrap();
    let mut iter = db.iter();
    assert_eq!(db.delete_files_in_range::<&str>(..).unwrap().tables, 1);
    assert_eq!(keys(&db), [""; 0]);
    assert_eq!(snapshot.get("b").unwrap().unwrap(), b"1");
    assert_eq!(snapshot.count::<&str>(..).unwrap(), 2);
    assert_eq!(iter.next().unwrap().unwrap().0, b"a");
    assert_eq!(world.tables(), 1);
    drop((snapshot, iter));
    assert_eq!(world.tables(), 0);
    // A write after it is seen, of course.
    db.put("a", "2").unwrap();
    assert_eq!(keys(&db), ["a"]);
}

#[test]
fn bad_calls_are_refused() {
    let world = World::new();
    let db = world.open();
    table(&db, &["a"], "1");
    let error = db.delete_files_in_range("b".."a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let other = db.keyspace("other", lsm_engine::KeyspaceOptions::new()).unwrap();
    db.drop_keyspace("other").unwrap();
    assert!(other.delete_files_in_range::<&str>(..).is_err());
    let kept = db.clone();
    db.close().unwrap();
    assert_eq!(kept.delete_files_in_range::<&str>(..).unwrap_err().kind(), ErrorKind::Closed);
    let db = world.options().read_only(true).open("/db").unwrap();
    assert_eq!(db.delete_files_in_range::<&str>(..).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(db.get("a").unwrap().unwrap(), b"1");
}
