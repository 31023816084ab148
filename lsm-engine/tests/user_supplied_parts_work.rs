//! A memtable and compaction policies of a user, through the public traits. Good ones work; bad ones are reported and
//! lose no data.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use lsm_core::{Cursor, Entry, SEQUENCE_MAX, SequenceNumber, ValueKind};
use lsm_engine::compaction_policies::{
    Action, Compaction, CompactionPolicy, InputLevel, OutputRun, Reason, RunShape, TableShape, TreeShape,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, DelimitedPrefix, ErrorKind, FilterPolicy, KeyspaceOptions, Options, Slice, WriteBatch};
use lsm_memtable::{Full, MemtableFactory, MemtableReader, MemtableWriter};

/// A memtable that is a sorted map of internal keys. It is full after a few entries.
#[derive(Debug, Default)]
struct SmallMap {
    created: AtomicUsize,
}

const ENTRIES_MAX: usize = 16;

/// Holds the complement of the sequence number, because sequence numbers sort in descending order.
type InternalKey = (Vec<u8>, SequenceNumber);

/// Leaks its entries, so that readers can borrow them without a lock. A test has few.
type Entries = RwLock<BTreeMap<InternalKey, &'static (Vec<u8>, SequenceNumber, ValueKind, Vec<u8>)>>;

#[derive(Default)]
struct Map(Entries);

struct MapWriter(Arc<Map>);

impl MemtableFactory for SmallMap {
    fn name(&self) -> &'static str {
        "small map"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        self.created.fetch_add(1, Ordering::Relaxed);
        let map = Arc::new(Map::default());
        (Box::new(MapWriter(Arc::clone(&map))), map)
    }
}

impl MemtableWriter for MapWriter {
    fn insert(
        &mut self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<(), Full> {
        let mut entries = self.0.0.write().unwrap();
        if entries.len() >= ENTRIES_MAX {
            return Err(Full);
        }
        let entry = Box::leak(Box::new((key.to_vec(), sequence, kind, value.to_vec())));
        entries.insert((key.to_vec(), SEQUENCE_MAX - sequence), entry);
        Ok(())
    }
}

impl Map {
    fn first_from(&self, from: &InternalKey) -> Option<InternalKey> {
        self.0.read().unwrap().range(from.clone()..).next().map(|(key, _)| key.clone())
    }

    fn at(&self, key: &InternalKey) -> Option<Entry<'static>> {
        let entry = *self.0.read().unwrap().get(key)?;
        Some(Entry { key: &entry.0, sequence: entry.1, kind: entry.2, value: &entry.3 })
    }
}

impl MemtableReader for Map {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        let found = self.first_from(&(key.to_vec(), SEQUENCE_MAX - sequence))?;
        self.at(&found).filter(|entry| entry.key == key)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(MapCursor { map: self, at: None })
    }

    fn memory_bytes(&self) -> usize {
        self.entry_count() * 100
    }

    fn entry_count(&self) -> usize {
        self.0.read().unwrap().len()
    }
}

struct MapCursor {
    map: Arc<Map>,
    at: Option<InternalKey>,
}

impl Cursor for MapCursor {
    fn first(&mut self) {
        self.at = self.map.0.read().unwrap().first_key_value().map(|(key, _)| key.clone());
    }

    fn last(&mut self) {
        self.at = self.map.0.read().unwrap().last_key_value().map(|(key, _)| key.clone());
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.at = self.map.first_from(&(key.to_vec(), SEQUENCE_MAX - sequence));
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        let to = (key.to_vec(), SEQUENCE_MAX - sequence);
        self.at = self.map.0.read().unwrap().range(..=to).next_back().map(|(key, _)| key.clone());
    }

    fn next(&mut self) {
        if let Some((key, sequence)) = self.at.take() {
            self.at = self.map.first_from(&(key, sequence + 1));
        }
    }

    fn prev(&mut self) {
        if let Some(at) = self.at.take() {
            self.at = self.map.0.read().unwrap().range(..at).next_back().map(|(key, _)| key.clone());
        }
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.map.at(self.at.as_ref()?)
    }

    fn error(&self) -> Option<&lsm_core::Error> {
        None
    }
}

/// The behaviour of [`Eager`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Well,
    Panics,
    /// Panics even when it is asked for the number of levels.
    PanicsEarly,
    /// Picks a table that does not exist.
    Invents,
    /// Picks a merge of the newest and the oldest run, past the run between them.
    Skips,
    /// Picks a drop of all data, which is forbidden.
    Drops,
}

/// A policy that merges all of level 0 when there are three runs.
#[derive(Debug)]
struct Eager {
    manner: Manner,
    asked: AtomicBool,
}

impl Eager {
    fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self { manner, asked: AtomicBool::new(false) })
    }
}

impl CompactionPolicy for Eager {
    fn name(&self) -> &'static str {
        "eager"
    }

    fn level_count(&self) -> usize {
        assert!(self.manner != Manner::PanicsEarly, "the policy of the test panics");
        1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let level = shape.levels.first()?;
        if level.runs.len() < 3 || level.is_busy() {
            return None;
        }
        self.asked.store(true, Ordering::Relaxed);
        let mut tables: Vec<_> = level.tables().cloned().collect();
        match self.manner {
            Manner::Panics => panic!("the policy of the test panics"),
            Manner::Invents => tables.push(Arc::new(TableShape { id: 999_999, ..TableShape::default() })),
            Manner::Skips => {
                tables.remove(1);
            }
            Manner::Well | Manner::PanicsEarly | Manner::Drops => {}
        }
        Some(Compaction {
            inputs: vec![InputLevel { level: 0, tables }],
            output_level: 0,
            output_run: OutputRun::NewRun,
            action: if self.manner == Manner::Drops { Action::Drop } else { Action::Merge },
            target_table_bytes: u64::MAX,
            reason: Reason::Level0,
        })
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        if shape.levels.first().is_none_or(|level| level.runs.len() < 3) { 0 } else { shape.bytes() }
    }
}

struct Machine {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl Machine {
    fn new() -> Self {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/data")).unwrap();
        Self { fs, env: Arc::new(SimEnv::new(7)) }
    }

    fn options(&self) -> Options {
        Options::new()
            .memory(4 << 20)
            .memtable_bytes(1 << 20)
            .vfs(Arc::new(self.fs.clone()))
            .env(Arc::clone(&self.env) as Arc<dyn Env>)
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn read(db: &Db) -> Model {
    db.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn read_backwards(db: &Db) -> Model {
    db.iter().rev().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn write(db: &Db, model: &mut Model, round: u32) {
    for number in 0..25_u32 {
        let key = format!("key{:03}", (number * 7 + round) % 60).into_bytes();
        if number % 6 == 5 {
            db.delete(&key).unwrap();
            model.remove(&key);
        } else {
            let value = format!("round {round}, {number}").into_bytes();
            db.put(&key, &value).unwrap();
            model.insert(key, value);
        }
    }
    let (from, to) = (format!("key{:03}", round * 5), format!("key{:03}", round * 5 + 3));
    db.delete_range(&from..&to).unwrap();
    model.retain(|key, _| **key < *from.as_bytes() || **key >= *to.as_bytes());
    let mut batch = WriteBatch::new();
    for number in 0..40_u32 {
        let (key, value) = (format!("batch{number}").into_bytes(), format!("{round}").into_bytes());
        batch.put(&key, &value);
        model.insert(key, value);
    }
    db.write(batch).unwrap();
}

#[test]
fn the_engine_works_with_a_memtable_and_a_policy_of_the_user() {
    let machine = Machine::new();
    let factory = Arc::new(SmallMap::default());
    let policy = Eager::new(Manner::Well);
    let options = || {
        let keyspace = KeyspaceOptions::new().memtable(Arc::clone(&factory) as Arc<dyn MemtableFactory>);
        machine.options().keyspace(keyspace.compaction(Arc::clone(&policy) as Arc<dyn CompactionPolicy>))
    };
    let mut model = Model::new();
    for round in 0..6 {
        let db = options().open("/data/db").unwrap();
        assert_eq!(read(&db), model, "round {round}");
        write(&db, &mut model, round);
        assert_eq!(read(&db), model);
        let snapshot = db.snapshot().unwrap();
        db.put("key000", "after the snapshot").unwrap();
        db.wait_for_compactions().unwrap();
        assert_eq!(
            snapshot.get("key000").unwrap().as_deref(),
            model.get(&b"key000"[..]).map(|value| &**value)
        );
        model.insert(b"key000".to_vec(), b"after the snapshot".to_vec());
        assert_eq!(read(&db), model);
        assert_eq!(read_backwards(&db), model);
        assert!(db.metrics().keyspaces[0].levels[0].runs < 3, "the policy was followed");
        drop(snapshot);
        if round % 2 == 0 { db.close().unwrap() } else { drop(db) }
    }
    assert!(factory.created.load(Ordering::Relaxed) > 20);
    // The files do not depend on the memtable, so another memtable can open them.
    let db = machine.options().compaction(Eager::new(Manner::Well)).open("/data/db").unwrap();
    assert_eq!(read(&db), model);
    drop(db);
    machine.env.drop_jobs();
}

/// Three runs make the policy misbehave. After reopening with a good policy, everything acknowledged is there.
fn misbehave(manner: Manner) {
    let machine = Machine::new();
    let policy = Eager::new(manner);
    let db = machine.options().compaction(Arc::clone(&policy) as Arc<dyn CompactionPolicy>).open("/data/db");
    let db = db.unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    let mut model = Model::new();
    for round in 0..3 {
        write(&db, &mut model, round);
        // The third flush asks the policy, which may stop the keyspace before this call sees that the flush ended.
        let flushed = db.flush();
        assert!(flushed.is_ok() || (manner == Manner::Panics && round == 2), "{flushed:?}");
        machine.env.run_until_idle();
    }
    assert!(policy.asked.load(Ordering::Relaxed));
    assert_eq!(read(&db), model, "reading goes on");
    if manner == Manner::Panics {
        for error in [db.put("key", "refused"), db.wait_for_compactions(), db.compact_range::<&[u8]>(..)] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Callback, "{error}");
            assert!(error.to_string().contains("the policy of the test panics"), "{error}");
        }
        let failure = &db.metrics().keyspaces[0].failure;
        assert!(failure.as_ref().unwrap().contains("the policy of the test panics"), "{failure:?}");
        other.put("key", "of another keyspace").unwrap();
    } else {
        // The pick is rejected: nothing is merged, and nothing stops.
        db.wait_for_compactions().unwrap();
        db.put("key", "taken").unwrap();
        model.insert(b"key".to_vec(), b"taken".to_vec());
        assert_eq!(db.metrics().keyspaces[0].levels[0].runs, 3);
        assert_eq!(read(&db), model);
    }
    drop((other, db));
    let db = machine.options().compaction(Eager::new(Manner::Well)).open("/data/db").unwrap();
    assert_eq!(read(&db), model);
    db.wait_for_compactions().unwrap();
    assert_eq!(read(&db), model);
    db.put("key", "taken again").unwrap();
    db.close().unwrap();
    machine.env.drop_jobs();
}

#[test]
fn a_policy_that_panics_stops_its_keyspace_and_loses_nothing() {
    misbehave(Manner::Panics);
}

/// Such a policy also stops only its keyspace, and not the job that flushes all keyspaces.
#[test]
fn a_policy_that_always_panics_stops_only_its_keyspace() {
    let machine = Machine::new();
    let options =
        KeyspaceOptions::new().compaction(Eager::new(Manner::PanicsEarly) as Arc<dyn CompactionPolicy>);
    let db = machine.options().open("/data/db").unwrap();
    let keyspace = db.keyspace("mad", options).unwrap();
    keyspace.put("key", "value").unwrap();
    let _refused = db.flush();
    let error = keyspace.put("key", "refused").unwrap_err();
    assert!(error.to_string().contains("the policy of the test panics"), "{error}");
    assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value");
    let flushes = db.metrics().flushes;
    for round in 0..10_u8 {
        db.put("key", vec![round; 200_000]).unwrap();
        machine.env.run_until_idle();
    }
    assert!(db.metrics().flushes > flushes);
    assert_eq!(db.get("key").unwrap().unwrap(), vec![9; 200_000]);
    drop((db, keyspace));
    machine.env.drop_jobs();
}

/// A writer that waits for memory waits for the flushes of the healthy keyspaces.
#[test]
fn a_failed_keyspace_does_not_stop_writers_of_others_that_wait_for_memory() {
    let machine = Machine::new();
    let options =
        KeyspaceOptions::new().compaction(Eager::new(Manner::PanicsEarly) as Arc<dyn CompactionPolicy>);
    let db = machine.options().open("/data/db").unwrap();
    let mad = db.keyspace("mad", options).unwrap();
    mad.put("key", "value").unwrap();
    let _refused = db.flush();
    assert!(mad.put("key", "refused").is_err());
    for round in 0..60_u8 {
        db.put([round], vec![round; 100_000]).unwrap();
    }
    assert!(db.metrics().flushes > 1, "writers had to wait");
    assert_eq!(db.iter().count(), 60);
    drop((db, mad));
    machine.env.drop_jobs();
}

#[test]
fn a_compaction_of_a_missing_table_is_rejected() {
    misbehave(Manner::Invents);
}

#[test]
fn a_compaction_that_would_reorder_versions_is_rejected() {
    misbehave(Manner::Skips);
}

/// A policy that merges the newest and the oldest of three runs, and leaves the run between them in place.
#[derive(Debug)]
struct AroundOne;

impl CompactionPolicy for AroundOne {
    fn name(&self) -> &'static str {
        "around one"
    }

    fn level_count(&self) -> usize {
        1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let [newest, _, oldest] = &*shape.levels.first()?.runs else { return None };
        Some(Compaction {
            inputs: vec![InputLevel::new(0, [newest, oldest].into_iter().filter_map(RunShape::first))],
            output_level: 0,
            output_run: OutputRun::NewRun,
            action: Action::Merge,
            target_table_bytes: u64::MAX,
            reason: Reason::Level0,
        })
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

#[test]
fn the_output_of_a_merge_around_a_run_stays_newer_than_the_run() {
    let machine = Machine::new();
    let db = machine.options().compaction(Arc::new(AroundOne)).open("/data/db").unwrap();
    for (key, value) in [("apart", "1"), ("key", "old"), ("key", "new")] {
        db.put(key, value).unwrap();
        db.flush().unwrap();
    }
    db.wait_for_compactions().unwrap();
    assert_eq!(db.metrics().compactions, 1);
    assert_eq!(db.get("key").unwrap().unwrap(), "new");
    assert_eq!(db.get("apart").unwrap().unwrap(), "1");
    drop(db);
    machine.env.drop_jobs();
}

/// A policy that moves each run of level 0 to level 1, as a separate run, when the test allows it.
#[derive(Debug, Default)]
struct MovesDown {
    may: AtomicBool,
}

impl CompactionPolicy for MovesDown {
    fn name(&self) -> &'static str {
        "moves down"
    }

    fn level_count(&self) -> usize {
        2
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let oldest = shape.levels.first()?.runs.last().filter(|_| self.may.load(Ordering::Relaxed))?;
        Some(Compaction {
            inputs: vec![InputLevel::new(0, oldest.first())],
            output_level: 1,
            output_run: OutputRun::NewRun,
            action: Action::Move,
            target_table_bytes: u64::MAX,
            reason: Reason::Level0,
        })
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

/// The number of a run is in no file name, so recovery must find the highest in the manifest.
#[test]
fn runs_flushed_after_a_crash_are_newer_than_runs_from_before_it() {
    let machine = Machine::new();
    let write = |fs: &SimFs, value: &str| {
        let policy = Arc::new(MovesDown::default());
        let options = machine.options().vfs(Arc::new(fs.clone()));
        let db =
            options.compaction(Arc::clone(&policy) as Arc<dyn CompactionPolicy>).open("/data/db").unwrap();
        db.put("key", value).unwrap();
        db.flush().unwrap();
        if value == "old" {
            // Flushes without data use up numbers.
            (0..50).for_each(|_| db.flush().unwrap());
        }
        policy.may.store(true, Ordering::Relaxed);
        db.wait_for_compactions().unwrap();
        assert_eq!(db.metrics().moves, 1);
        db
    };
    let db = write(&machine.fs, "old");
    let crashed = machine.fs.process_crash();
    drop(db);
    let db = write(&crashed, "new");
    assert_eq!(db.get("key").unwrap().unwrap(), "new");
    drop(db);
    machine.env.drop_jobs();
}

#[test]
fn a_forbidden_drop_of_data_is_rejected() {
    misbehave(Manner::Drops);
}

/// Each batch fills several memtables, and parts of the ones before and after.
#[test]
fn readers_see_whole_batches_that_span_memtables() {
    let memtable = Arc::new(SmallMap::default()) as Arc<dyn MemtableFactory>;
    let db = Options::new().vfs(Arc::new(SimFs::new())).memtable(memtable).open("/db").unwrap();
    let keys: Vec<String> = (0..39).map(|number| format!("key{number:02}")).collect();
    let write = |round: u32| {
        let mut batch = WriteBatch::new();
        for key in &keys {
            batch.put(key, round.to_string());
        }
        db.write(batch).unwrap();
    };
    write(0);
    let done = AtomicBool::new(false);
    let whole = |values: Vec<Vec<u8>>, how: &str| {
        assert_eq!(values.len(), keys.len(), "{how}");
        assert!(values.iter().all(|value| *value == values[0]), "{how} saw a part of a batch: {values:?}");
    };
    std::thread::scope(|scope| {
        for backwards in [false, true] {
            let (db, keys, done, whole) = (&db, &keys, &done, &whole);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let values = db.multi_get(keys).unwrap();
                    whole(values.into_iter().map(|value| value.unwrap().to_vec()).collect(), "multi_get");
                    let value = |entry: lsm_engine::Result<(Slice, Slice)>| entry.unwrap().1.to_vec();
                    let values: Vec<_> = if backwards {
                        db.iter().rev().map(value).collect()
                    } else {
                        db.iter().map(value).collect()
                    };
                    whole(values, "a scan");
                }
            });
        }
        for round in 1..200 {
            write(round);
        }
        done.store(true, Ordering::Relaxed);
    });
    db.close().unwrap();
}

/// A filter of a given size that excludes no key. It counts its lookups, and runs a callback once when its name is
/// asked for.
struct Weighty {
    name: &'static str,
    bytes: usize,
    asked: AtomicUsize,
    at_name: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Weighty {
    fn new(name: &'static str, bytes: usize) -> Arc<Self> {
        Arc::new(Self { name, bytes, asked: AtomicUsize::new(0), at_name: Mutex::default() })
    }
}

impl fmt::Debug for Weighty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FilterPolicy for Weighty {
    fn name(&self) -> &str {
        let callback = self.at_name.lock().unwrap().take();
        if let Some(callback) = callback {
            callback();
        }
        self.name
    }

    fn build(&self, _: &[u64]) -> Vec<u8> {
        vec![0; self.bytes]
    }

    fn may_contain(&self, _: &[u8], _: u64) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// The engine reopens a table to pin its index and filter while the user opens the keyspace with the filter that wrote
/// the table. Until then the keyspace used the filter of this name that the default keyspace was given.
#[test]
fn a_table_reopened_in_the_background_gets_the_filter_that_its_keyspace_is_opened_with() {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(21)));
    let (heavy, own) = (Weighty::new("weighty", 386_500), Weighty::new("weighty", 100));
    let options = |memory: usize| {
        let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(&env) as Arc<dyn Env>);
        options.memory(memory).keyspace(KeyspaceOptions::new().filter(Some(Arc::clone(&heavy) as _)))
    };
    let with = |filter: &Arc<Weighty>| KeyspaceOptions::new().filter(Some(Arc::clone(filter) as _));
    let db = options(16 << 20).open("/db").unwrap();
    db.keyspace("heavy", with(&heavy)).unwrap().put("key", "value").unwrap();
    let space = db.keyspace("own", with(&own).block_bytes(256)).unwrap();
    for number in 0..300 {
        space.put(format!("key{number:03}"), [7; 200]).unwrap();
    }
    db.close().unwrap();
    drop(space);
    env.drop_jobs();

    // The heavy filter leaves no room for the index of the other table.
    let db = options(1 << 20).open("/db").unwrap();
    env.run_until_idle();
    let handle = db.clone();
    let opened = Arc::new(Mutex::new(None));
    let (result, wanted) = (Arc::clone(&opened), with(&own));
    *heavy.at_name.lock().unwrap() = Some(Box::new(move || {
        *result.lock().unwrap() = Some(handle.keyspace("own", wanted).unwrap());
    }));
    db.drop_keyspace("heavy").unwrap();
    env.run_until_idle();
    let space = opened.lock().unwrap().take().expect("the table was opened anew");
    let asked = own.asked.load(Ordering::Relaxed);
    assert_eq!(space.get("key010").unwrap().unwrap(), [7; 200]);
    assert_eq!(own.asked.load(Ordering::Relaxed), asked + 1);
    db.close().unwrap();
    drop(space);
    env.drop_jobs();

    // A read-only database also takes keyspace options.
    let db = options(16 << 20).read_only(true).open("/db").unwrap();
    let space = db.keyspace("own", with(&own)).unwrap();
    let asked = own.asked.load(Ordering::Relaxed);
    assert_eq!(space.get("key010").unwrap().unwrap(), [7; 200]);
    assert_eq!(own.asked.load(Ordering::Relaxed), asked + 1);
}

/// A filter that holds the keys themselves, each with its length, so it never errs. It counts what it denies.
#[derive(Debug, Default)]
struct Exact {
    denied: AtomicUsize,
}

impl FilterPolicy for Exact {
    fn name(&self) -> &'static str {
        "exact"
    }

    fn build(&self, _: &[u64]) -> Vec<u8> {
        panic!("the policy needs keys")
    }

    fn may_contain(&self, _: &[u8], _: u64) -> bool {
        panic!("the policy needs keys")
    }

    fn needs_keys(&self) -> bool {
        true
    }

    fn build_from_keys(&self, keys: &mut dyn Iterator<Item = &[u8]>) -> Vec<u8> {
        keys.flat_map(|key| [&(key.len() as u16).to_le_bytes(), key].concat()).collect()
    }

    fn may_contain_key(&self, mut filter: &[u8], key: &[u8], _: u64) -> bool {
        while let Some((length, rest)) = filter.split_first_chunk() {
            let Some((found, rest)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
                break;
            };
            if found == key {
                return true;
            }
            filter = rest;
        }
        self.denied.fetch_add(1, Ordering::Relaxed);
        false
    }
}

#[test]
fn a_filter_that_needs_the_keys_is_built_and_asked_with_them() {
    let (fs, env, exact) = (SimFs::new(), Arc::new(SimEnv::new(22)), Arc::new(Exact::default()));
    let open = || {
        let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
        let keyspace = KeyspaceOptions::new()
            .filter(Some(Arc::clone(&exact) as _))
            .prefix_extractor(Arc::new(DelimitedPrefix { delimiter: b'/' }))
            .block_bytes(300);
        options.env(Arc::clone(&env) as Arc<dyn Env>).keyspace(keyspace).open("/db").unwrap()
    };
    let denials = |what: &dyn Fn()| {
        let before = exact.denied.load(Ordering::Relaxed);
        what();
        exact.denied.load(Ordering::Relaxed) - before
    };
    let key =
        |number: usize| format!("{}/{number:03}", if number.is_multiple_of(2) { "even" } else { "odd" });
    let db = open();
    // Two tables: one of all keys, and one of a few in the middle, so that compactions copy blocks of the first.
    for numbers in [0..400, 190..210] {
        numbers.for_each(|number| db.put(key(number), "v".repeat(50)).unwrap());
        db.flush().unwrap();
    }
    let check = |db: &Db, tables: usize| {
        let all = || (0..400).for_each(|number| assert!(db.get(key(number)).unwrap().is_some(), "{number}"));
        // Half of the keys are between the bounds of the small table.
        assert_eq!(denials(&all), if tables == 1 { 0 } else { 190 });
        // The odd ones are behind all tables.
        let absent = || (400..500).for_each(|number| assert_eq!(db.get(key(number)).unwrap(), None));
        assert_eq!(denials(&absent), 50 * tables);
        assert_eq!(denials(&|| assert_eq!(db.prefix("none/").count(), 0)), tables);
        assert_eq!(denials(&|| assert_eq!(db.prefix("odd/").count(), 200)), 0);
    };
    check(&db, 2);
    db.compact_range::<&str>(..).unwrap();
    check(&db, 1);
    db.close().unwrap();
    env.drop_jobs();
    let db = open();
    check(&db, 1);
    drop(db);
    env.drop_jobs();
}
