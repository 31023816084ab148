//! Large values go to blob files: written once, read whole or in part, by every kind of read, and gone from the disk when
//! nothing points to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{AllLost, SimFs, Vfs};
use lsm_engine::{
    Backup, BuiltInMerge, CompactionAt, CompactionFilter, Db, Decision, DirectoryStore, Durability,
    ErrorKind, KeyspaceOptions, LazyValue, Options, WriteBatch,
};

const FROM: u64 = 1024;
/// With 1 MiB of memory, values of this length go to a blob file when they are written.
const HUGE: usize = 64 << 10;

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl World {
    fn new() -> Self {
        let env = Arc::new(SimEnv::new(1));
        env.set_unix_micros(1_700_000_000_000_000);
        Self { fs: SimFs::new(), env }
    }

    fn open_with(&self, keyspace: KeyspaceOptions) -> lsm_engine::Result<Db> {
        let options =
            Options::new().vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>);
        options.memory(1 << 20).keyspace(keyspace).open("/db")
    }

    fn open(&self) -> Db {
        self.open_with(KeyspaceOptions::new().blobs_from(FROM)).unwrap()
    }

    /// Background work ends, the removal of files included.
    fn settle(&self) {
        self.env.run_until_idle();
    }

    /// The process dies.
    fn crash(&self, db: Db) {
        self.env.drop_jobs();
        drop(db);
        self.env.drop_jobs();
    }

    fn files(&self, suffix: &str) -> Vec<String> {
        let mut names = self.fs.read_dir(Path::new("/db")).unwrap();
        names.retain(|name| name.ends_with(suffix));
        names.sort();
        names
    }

    fn bytes(&self, suffix: &str) -> u64 {
        let len = |name: String| self.fs.metadata(&Path::new("/db").join(name)).unwrap().len;
        self.files(suffix).into_iter().map(len).sum()
    }

    /// Destroys the values in all blob files, and leaves header, directory and footer.
    fn damage_values(&self) {
        for name in self.files(".blob") {
            let file = self.fs.open_write(&Path::new("/db").join(name)).unwrap();
            file.write_at(b"damaged", 100).unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

fn value(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(131)) as u8).collect()
}

/// Reads everything in every way and compares it.
fn check(db: &Db, expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let pairs =
        |iter: &mut dyn Iterator<Item = lsm_engine::Result<(lsm_engine::Slice, lsm_engine::Slice)>>| {
            iter.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
                .collect::<Vec<_>>()
        };
    let model: Vec<_> = expected.clone().into_iter().collect();
    assert!(pairs(&mut db.iter()) == model);
    let mut backward = pairs(&mut db.iter().rev());
    backward.reverse();
    assert!(backward == model);
    assert_eq!(db.count::<&[u8]>(..).unwrap(), model.len() as u64);
    let snapshot = db.snapshot().unwrap();
    for (key, value) in expected {
        assert!(db.get(key).unwrap().unwrap() == **value);
        assert!(snapshot.get(key).unwrap().unwrap() == **value);
        assert!(db.contains_key(key).unwrap());
        let (start, end) = (value.len() / 3, value.len() / 2);
        let part = db.get_part(key, start as u64..end as u64).unwrap().unwrap();
        assert!(*part == value[start..end]);
        assert!(snapshot.get_part(key, start as u64..).unwrap().unwrap() == value[start..]);
    }
    let mut cursor = db.cursor().unwrap();
    for (key, value) in expected {
        cursor.seek(key).unwrap();
        assert!(cursor.entry() == Some((key, value)));
        cursor.seek_for_prev(key).unwrap();
        assert!(cursor.entry() == Some((key, value)));
    }
}

#[test]
fn values_from_a_length_on_are_separated_when_they_are_flushed_and_read_in_every_way() {
    let world = World::new();
    let db = world.open();
    let mut model = BTreeMap::new();
    for number in 0..40 {
        let (key, value) = (format!("key {number:02}").into_bytes(), value(number, 10 << (number % 11)));
        db.put(&key, &value).unwrap();
        model.insert(key, value);
    }
    check(&db, &model);
    db.flush().unwrap();
    assert!(!world.files(".blob").is_empty());
    let large: usize = model.values().map(Vec::len).filter(|&len| len as u64 >= FROM).sum();
    assert!(world.bytes(".blob") >= large as u64);
    check(&db, &model);
    let written = world.files(".blob");
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(world.files(".blob"), written, "a merge copies pointers");
    check(&db, &model);
    db.close().unwrap();
    let db = world.open_with(KeyspaceOptions::new()).unwrap();
    check(&db, &model);
    assert!(world.bytes(".sst") < large as u64 / 4);
}

#[test]
fn without_the_option_no_value_is_separated() {
    let world = World::new();
    let db = world.open_with(KeyspaceOptions::new().blobs_from(None)).unwrap();
    db.put("key", value(1, HUGE)).unwrap();
    db.flush().unwrap();
    assert!(world.files(".blob").is_empty());
    // Turned on later, values move when they are rewritten.
    db.set_options(KeyspaceOptions::new().blobs_from(FROM)).unwrap();
    db.put("a", "small").unwrap();
    db.put("other", "small").unwrap();
    db.flush().unwrap();
    assert!(world.files(".blob").is_empty());
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(world.files(".blob").len(), 1);
    let small = ["a", "other"].map(|key| (key.as_bytes().to_vec(), b"small".to_vec()));
    let large = (b"key".to_vec(), value(1, HUGE));
    check(&db, &small.into_iter().chain([large]).collect());
}

#[test]
fn huge_values_are_written_once_before_the_log_record_and_survive_every_crash() {
    let world = World::new();
    let db = world.open();
    let mut model = BTreeMap::new();
    for number in 0..4 {
        let (key, value) = (format!("key {number}").into_bytes(), value(number, HUGE + number));
        db.put(&key, &value).unwrap();
        model.insert(key, value);
    }
    assert_eq!(world.files(".blob").len(), 4);
    check(&db, &model);
    let mut batch = WriteBatch::new();
    batch.put("a", value(7, 3 * HUGE)).put("b", "small").delete("key 0").put("c", value(8, HUGE));
    db.write(batch).unwrap();
    model.remove(&b"key 0"[..]);
    for (key, value) in [("a", value(7, 3 * HUGE)), ("b", b"small".to_vec()), ("c", value(8, HUGE))] {
        model.insert(key.into(), value);
    }
    db.transact(|transaction| {
        transaction.put("t", value(9, HUGE))?;
        assert!(transaction.get("t")?.unwrap() == value(9, HUGE));
        assert!(transaction.get_part("t", 5..9)?.unwrap() == value(9, HUGE)[5..9]);
        assert!(transaction.get("a")?.unwrap() == value(7, 3 * HUGE));
        Ok(())
    })
    .unwrap();
    model.insert(b"t".to_vec(), value(9, HUGE));
    check(&db, &model);
    assert!(world.bytes(".wal") < 8 << 20);
    // The process dies.
    world.crash(db);
    let db = world.open();
    check(&db, &model);
    // What the manifest does not name and the log did not point to is gone; the rest is in tables.
    assert_eq!(world.files(".blob").len(), 6);
    db.put_with("last", value(10, HUGE), Durability::Sync).unwrap();
    model.insert(b"last".to_vec(), value(10, HUGE));
    let image = world.fs.power_cut(&mut AllLost);
    let (env, fs) = (Arc::new(SimEnv::new(2)), image);
    let after = Options::new().vfs(Arc::new(fs)).env(Arc::clone(&env) as Arc<dyn Env>).memory(1 << 20);
    let copy = after.open("/db").unwrap();
    check(&copy, &model);
    drop(copy);
    env.drop_jobs();
    drop(db);
}

#[test]
fn a_huge_value_may_be_larger_than_the_memory() {
    let world = World::new();
    let db = world.open();
    let large = value(3, 3 << 20);
    db.put("key", &large).unwrap();
    assert!(db.get("key").unwrap().unwrap() == large);
    let mut batch = WriteBatch::new();
    batch.put("other", &large);
    db.write(batch).unwrap();
    db.flush().unwrap();
    assert!(db.get("other").unwrap().unwrap() == large);
    assert_eq!(db.get_part("other", 3_000_000..3_000_003).unwrap().unwrap(), large[3_000_000..3_000_003]);
}

#[test]
fn overwritten_deleted_and_cleared_values_leave_the_disk() {
    let world = World::new();
    let db = world.open();
    for round in 0..5 {
        db.put("huge", value(round, HUGE)).unwrap();
        db.put("large", value(round, 5000)).unwrap();
    }
    db.flush().unwrap();
    world.settle();
    assert_eq!(world.files(".blob").len(), 2, "one of the huge values is left, and the file of the flush");
    db.delete("huge").unwrap();
    db.delete("large").unwrap();
    db.flush().unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    world.settle();
    assert_eq!(world.files(".blob"), [""; 0]);
    for (key, len) in [("a", HUGE), ("b", 5000)] {
        db.put(key, value(1, len)).unwrap();
        db.flush().unwrap();
    }
    db.put("c", value(2, HUGE)).unwrap();
    let snapshot = db.snapshot().unwrap();
    db.default_keyspace().clear().unwrap();
    assert_eq!(db.count::<&[u8]>(..).unwrap(), 0);
    assert!(snapshot.get("a").unwrap().unwrap() == value(1, HUGE));
    assert!(snapshot.get("c").unwrap().unwrap() == value(2, HUGE));
    assert_eq!(world.files(".blob").len(), 3);
    drop(snapshot);
    world.settle();
    assert_eq!(world.files(".blob"), [""; 0]);
    let keyspace = db.keyspace("other", KeyspaceOptions::new().blobs_from(FROM)).unwrap();
    keyspace.put("a", value(1, 5000)).unwrap();
    db.flush().unwrap();
    keyspace.put("b", value(1, HUGE)).unwrap();
    assert_eq!(world.files(".blob").len(), 2);
    drop(keyspace);
    db.drop_keyspace("other").unwrap();
    world.settle();
    assert_eq!(world.files(".blob"), [""; 0]);
}

#[test]
fn keys_and_counts_read_no_blob_file_and_a_lazy_cursor_only_what_is_asked_for() {
    let world = World::new();
    let db = world.open();
    for number in 0..5 {
        db.put(format!("key {number}"), value(number, 2000)).unwrap();
    }
    db.flush().unwrap();
    world.damage_values();
    assert_eq!(db.iter().keys().map(|key| key.unwrap()).collect::<Vec<_>>().len(), 5);
    assert_eq!(db.iter().keys().rev().count(), 5);
    assert_eq!(db.count::<&[u8]>(..).unwrap(), 5);
    assert!(db.contains_key("key 0").unwrap());
    let error = db.get("key 0").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains(".blob"), "{error}");
    // Nothing else is lost.
    assert!(db.get("key 1").unwrap().unwrap() == value(1, 2000));
    let mut cursor = db.cursor().unwrap();
    cursor.first().unwrap_err();
    assert_eq!(cursor.key(), None);
    cursor.read_lazily();
    for forward in [true, false] {
        if forward {
            cursor.first().unwrap();
        } else {
            cursor.last().unwrap();
        }
        for step in 0..5 {
            let number = if forward { step } else { 4 - step };
            assert_eq!(cursor.key(), Some(format!("key {number}").as_bytes()));
            assert_eq!(cursor.value(), None);
            match cursor.read_value() {
                Ok(found) => assert!(found == Some(&value(number, 2000)[..]) && number > 0),
                Err(error) => assert!(error.kind() == ErrorKind::Corruption && number == 0),
            }
            if forward { cursor.next().unwrap() } else { cursor.prev().unwrap() }
        }
        assert_eq!(cursor.key(), None);
    }
}

#[test]
fn large_values_expire_and_hide_what_is_below() {
    let world = World::new();
    let db = world.open();
    for (key, len) in [("flushed", 2000), ("direct", HUGE)] {
        db.put(key, value(1, len)).unwrap();
        db.put_expiring(key, value(2, len), Duration::from_secs(60)).unwrap();
    }
    let check = |count: u64| {
        for (key, len) in [("flushed", 2000), ("direct", HUGE)] {
            let found = db.get(key).unwrap();
            assert!(found.as_deref() == (count > 0).then_some(&*value(2, len)));
        }
        assert_eq!(db.count::<&[u8]>(..).unwrap(), count);
    };
    check(2);
    db.flush().unwrap();
    check(2);
    db.compact_range::<&[u8]>(..).unwrap();
    check(2);
    world.env.set_unix_micros(world.env.unix_micros() + 61_000_000);
    check(0);
    db.compact_range::<&[u8]>(..).unwrap();
    check(0);
    world.settle();
    assert_eq!(world.files(".blob"), [""; 0]);
}

#[test]
fn operands_apply_to_values_in_blob_files_in_reads_and_in_compactions() {
    let world = World::new();
    let options =
        || KeyspaceOptions::new().blobs_from(FROM).merge_operator(Arc::new(BuiltInMerge::append("")));
    let db = world.open_with(options()).unwrap();
    let mut model = BTreeMap::new();
    for (key, len) in [("flushed", 2000), ("direct", HUGE)] {
        db.put(key, value(1, len)).unwrap();
        db.flush().unwrap();
        for operand in ["one", "two"] {
            db.merge(key, operand).unwrap();
        }
        model.insert(key.as_bytes().to_vec(), [&value(1, len)[..], b"onetwo"].concat());
    }
    check(&db, &model);
    db.flush().unwrap();
    check(&db, &model);
    db.compact_range::<&[u8]>(..).unwrap();
    check(&db, &model);
    let operands: u64 = db.metrics().keyspaces[0].levels.iter().map(|level| level.merge_operands).sum();
    assert_eq!(operands, 1, "folded where the value is small enough for background work");
}

#[derive(Debug)]
struct Reducer;

impl CompactionFilter for Reducer {
    fn decide(&self, key: &[u8], value: LazyValue<'_>, _: CompactionAt) -> Decision {
        match key {
            b"kept" => Decision::Keep,
            b"dropped" => Decision::Delete,
            b"shorter" => Decision::Replace(value.get()[..100].to_vec()),
            b"other" => Decision::Replace(vec![value.get()[0]; value.len() * 2]),
            _ => panic!("an unknown key"),
        }
    }
}

#[test]
fn a_compaction_filter_reads_a_large_value_only_if_it_asks() {
    let world = World::new();
    let db = world
        .open_with(KeyspaceOptions::new().blobs_from(FROM).compaction_filter(Arc::new(Reducer)))
        .unwrap();
    for key in ["kept", "dropped", "shorter", "other"] {
        db.put(key, value(1, 2000)).unwrap();
    }
    db.flush().unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    let expected =
        [("kept", value(1, 2000)), ("shorter", value(1, 100)), ("other", vec![value(1, 1)[0]; 4000])];
    check(&db, &expected.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect());
}

#[test]
fn a_missing_cut_or_wrong_blob_file_is_named_when_the_database_is_opened() {
    let world = World::new();
    let db = world.open();
    db.put("key", value(1, 2000)).unwrap();
    db.close().unwrap();
    let name = world.files(".blob").pop().unwrap();
    let path = Path::new("/db").join(&name);
    let whole = {
        let file = world.fs.open_read(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let refuse = |what: &str| {
        let error = world.open_with(KeyspaceOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}");
        assert!(error.to_string().contains(&name), "{what}: {error}");
    };
    world.fs.remove_file(&path).unwrap();
    refuse("missing");
    let file = world.fs.create_new(&path).unwrap();
    refuse("empty");
    file.write_at(&whole[..whole.len() - 1], 0).unwrap();
    refuse("cut");
    let mut other = whole.clone();
    other[20] ^= 1;
    file.write_at(&other, 0).unwrap();
    refuse("another file");
    file.write_at(&whole, 0).unwrap();
    let db = world.open();
    assert!(db.get("key").unwrap().unwrap() == value(1, 2000));
    // A record of the log that points to a file which is gone.
    db.put("huge", value(2, HUGE)).unwrap();
    let huge = world.files(".blob").pop().unwrap();
    world.crash(db);
    world.fs.remove_file(&Path::new("/db").join(&huge)).unwrap();
    let error = world.open_with(KeyspaceOptions::new()).unwrap_err();
    assert!(error.kind() == ErrorKind::Corruption && error.to_string().contains(&huge), "{error}");
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let world = World::new();
    for (options, name) in [
        (KeyspaceOptions::new().blobs_from(10), "blobs_from"),
        (KeyspaceOptions::new().blob_garbage_max(0.0), "blob_garbage_max"),
        (KeyspaceOptions::new().blob_garbage_max(f64::NAN), "blob_garbage_max"),
    ] {
        let error = world.open_with(options).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(name), "{error}");
    }
}

/// Overwrites keys at random, settled after each round.
fn overwrite(world: &World, db: &Db, rounds: usize, mut each: impl FnMut(&Db)) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut model = BTreeMap::new();
    for round in 0..rounds {
        for step in 0..20 {
            let number = (round * 7 + step * step) % 50;
            let (key, value) = (format!("key {number:02}").into_bytes(), value(round * 20 + step, 3000));
            db.put(&key, &value).unwrap();
            model.insert(key, value);
        }
        db.flush().unwrap();
        db.compact_range::<&[u8]>(..).unwrap();
        db.wait_for_compactions().unwrap();
        world.settle();
        each(db);
    }
    model
}

#[test]
fn files_with_garbage_are_rewritten_so_that_the_space_stays_bounded() {
    let world = World::new();
    let db = world.open();
    let mut held: Vec<(Vec<(lsm_engine::Slice, lsm_engine::Slice)>, lsm_engine::Iter)> = Vec::new();
    let model = overwrite(&world, &db, 12, |db| {
        let metrics = &db.metrics().keyspaces[0];
        assert!(metrics.blob_garbage_bytes * 4 <= metrics.blob_bytes, "{metrics:?}");
        let live: usize = db.iter().map(|entry| entry.unwrap().1.len()).sum();
        assert_eq!(metrics.blob_bytes - metrics.blob_garbage_bytes, live as u64);
        // An iterator keeps what it reads, whatever is rewritten.
        if held.len() < 3 {
            let all = db.iter().map(Result::unwrap).collect();
            let mut iter = db.iter();
            iter.next().unwrap().unwrap();
            held.push((all, iter));
        }
    });
    check(&db, &model);
    assert!(db.metrics().blob_bytes_rewritten > 0);
    for (all, iter) in held {
        assert!(all[1..] == iter.map(Result::unwrap).collect::<Vec<_>>());
    }
    world.settle();
    let live: usize = model.values().map(Vec::len).sum();
    assert!(world.bytes(".blob") < live as u64 * 3 / 2, "{} for {live}", world.bytes(".blob"));
    db.close().unwrap();
    let db = world.open();
    check(&db, &model);
    // Rewritten files are rewritten again.
    let more = overwrite(&world, &db, 12, |_| ());
    check(&db, &model.into_iter().chain(more).collect());
}

#[test]
fn a_snapshot_keeps_the_values_that_it_sees() {
    let world = World::new();
    let db = world.open();
    let before = overwrite(&world, &db, 2, |_| ());
    let snapshot = db.snapshot().unwrap();
    let after = overwrite(&world, &db, 8, |_| ());
    for (key, value) in &before {
        assert!(snapshot.get(key).unwrap().unwrap() == **value);
    }
    let model: BTreeMap<_, _> = before.into_iter().chain(after).collect();
    check(&db, &model);
    drop(snapshot);
    db.put("key 00", "small").unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    db.wait_for_compactions().unwrap();
    let metrics = &db.metrics().keyspaces[0];
    assert!(metrics.blob_garbage_bytes * 4 <= metrics.blob_bytes, "{metrics:?}");
}

#[test]
fn a_damaged_file_is_reported_and_stops_the_rewriting_of_no_other() {
    let world = World::new();
    let db = world.open_with(KeyspaceOptions::new().blobs_from(FROM).blob_garbage_max(0.5)).unwrap();
    for number in 0..20 {
        db.put(format!("a {number:02}"), value(number, 3000)).unwrap();
    }
    db.flush().unwrap();
    world.damage_values();
    for number in 0..20 {
        db.put(format!("b {number:02}"), value(number, 3000)).unwrap();
    }
    db.flush().unwrap();
    for number in 1..20 {
        db.put(format!("a {number:02}"), "").unwrap();
        db.put(format!("b {number:02}"), "").unwrap();
    }
    db.compact_range::<&[u8]>(..).unwrap();
    let error = db.wait_for_compactions().unwrap_err();
    assert!(error.kind() == ErrorKind::Corruption && error.to_string().contains(".blob"), "{error}");
    world.env.advance(2_000_000);
    world.settle();
    db.wait_for_compactions().unwrap();
    assert!(db.metrics().blob_bytes_rewritten > 3000);
    assert!(db.get("b 00").unwrap().unwrap() == value(0, 3000));
    assert_eq!(db.get("a 00").unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn copies_of_the_database_and_readers_of_its_changes_have_the_large_values() {
    let world = World::new();
    let db = world.open();
    let from = db.snapshot().unwrap().change_position().unwrap();
    let mut model = overwrite(&world, &db, 3, |_| ());
    assert!(db.metrics().blob_bytes_rewritten > 0, "a copy has rewritten files, too");
    for (key, len) in [("direct", HUGE), ("small", 10), ("unflushed", 5000)] {
        db.put(key, value(7, len)).unwrap();
        model.insert(key.into(), value(7, len));
    }
    let open = |path: &str| {
        let env = Arc::new(SimEnv::new(5));
        let options = Options::new().vfs(Arc::new(world.fs.clone())).env(Arc::clone(&env) as Arc<dyn Env>);
        (options.memory(1 << 20).open(path).unwrap(), env)
    };
    db.checkpoint("/copy").unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(world.fs.clone());
    let store = DirectoryStore::create_on(Arc::clone(&vfs), "/backups").unwrap();
    let backup = Backup::open(store).unwrap().vfs(vfs);
    let generation = backup.create(&db).unwrap();
    assert!(backup.verify().unwrap().damage.is_empty());
    backup.restore(generation.number, "/restored").unwrap();
    for path in ["/copy", "/restored"] {
        let (copy, env) = open(path);
        check(&copy, &model);
        drop(copy);
        env.drop_jobs();
    }
    db.sync().unwrap();
    let mut seen = BTreeMap::new();
    let mut changes = db.changes(&from).unwrap();
    while let Some(batch) = changes.try_next().unwrap() {
        for change in batch.changes {
            if let lsm_engine::ChangeKind::Put { key, value } = change.kind {
                seen.insert(key.to_vec(), value.to_vec());
            }
        }
    }
    assert!(seen == model);
    // A slot keeps the log, so values stay in it.
    let files = world.files(".blob").len();
    let slot = db.change_slot("slot", 1 << 30).unwrap();
    db.put("direct", value(8, HUGE)).unwrap();
    assert_eq!(world.files(".blob").len(), files);
    drop((changes, slot));
}
