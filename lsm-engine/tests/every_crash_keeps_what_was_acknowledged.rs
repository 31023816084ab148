//! Crashes a database at every file-system operation of several small histories. Takes the files that a crash of the
//! process or of the machine may leave, checks that the log looks undamaged, opens them, and compares with the model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::RecordedEvents;
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{
    BuiltInMerge, CompactionAt, CompactionFilter, Db, Decision, Durability, Keyspace, KeyspaceOptions,
    LazyValue, Options, Result, Ticket, WriteBatch,
};

mod manifest;

use manifest::verify_log;

const DIRECTORY: &str = "/data/db";

#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, u32, Durability),
    /// Puts without waiting; a callback tells when the step is durable.
    Submit(&'static str, u32),
    /// Waits for the last submitted put.
    Wait,
    /// Sets a key to a value that depends on the old one.
    Update(&'static str, u32),
    PopFirst(&'static str),
    /// Puts a large value into the default keyspace, which fills memtables and log segments soon.
    Large(u32),
    /// Puts a value of so many bytes.
    Sized(&'static str, u32, usize),
    /// Writes one key in each of two keyspaces, in one batch.
    Batch(&'static str, &'static str, u32),
    /// Reads and writes two keyspaces in a transaction.
    Transact(&'static str, &'static str, u32),
    /// A transaction with every kind of write in two keyspaces, some of them taken back.
    TransactAll(&'static str, &'static str, u32),
    /// Appends to a value without reading it.
    Merge(&'static str, u32),
    /// Puts a value that expires long after the test, or at once, which hides what was there.
    PutExpiring(&'static str, u32, Duration),
    Delete(&'static str, u32),
    SingleDelete(&'static str, u32),
    DeleteRange(&'static str, u32, u32),
    /// A table that replaces a range: it puts the first key of it, and merges into the key behind it.
    Ingest(&'static str, u32, u32),
    /// A bulk load of a key and the next one.
    Load(&'static str, u32),
    Create(&'static str),
    Drop(&'static str),
    Clear(&'static str),
    Flush,
    /// Lets time pass until nothing that was deleted in the keyspace with a bound is in a file.
    Purge,
    /// Removes the one table that holds these keys, and no others.
    DeleteFiles(&'static str, u32, u32),
    Compact,
    CompactIn(&'static str),
    Sync,
    Reopen,
    DropAndReopen,
}
use Step::{
    Batch, Clear, Compact, CompactIn, Create, Delete, DeleteFiles, DeleteRange, Drop, DropAndReopen, Flush,
    Ingest, Large, Load, Merge, PopFirst, Purge, Put, PutExpiring, Reopen, SingleDelete, Sized, Submit, Sync,
    Transact, TransactAll, Update, Wait,
};

type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// All states of the history, and which of them must survive.
struct Model {
    /// The state after each step. The first is the empty database.
    states: Vec<State>,
    /// Number of steps that returned.
    acknowledged: usize,
    /// Number of steps that a power cut must not undo.
    durable: usize,
    /// The last step whose ticket said that it is durable.
    told: Arc<AtomicUsize>,
    /// Steps whose values must be in no file once the database says that writes up to this number are purged.
    purged: (u64, Vec<usize>),
}

const DECADE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const DEFAULT: &str = "default";
/// The keyspace with a compaction filter.
const GARDEN: &str = "garden";
/// The keyspace whose large values go to blob files.
const BLOBS: &str = "blobs";
/// The keyspace with a bound for purges.
const PURGED: &str = "purged";

fn key(number: u32) -> Vec<u8> {
    format!("key{number:04}").into_bytes()
}

/// The value names the step that wrote it.
fn value(step: usize, bytes: usize) -> Vec<u8> {
    let mut value = format!("step {step} ").into_bytes();
    value.resize(bytes, b'.');
    value
}

/// What an update in a step makes of a value.
fn updated(old: Option<&[u8]>, step: usize) -> Vec<u8> {
    [old.unwrap_or_default(), format!("step {step} ").as_bytes()].concat()
}

const BYTES: usize = 300;
const BYTES_LARGE: usize = 7000;

/// Appends the value of a step.
fn merge(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, at: u32, step: usize) {
    let operand = value(step, BYTES);
    let value = match entries.get(&key(at)) {
        Some(value) => [&value[..], &operand].join(&b','),
        None => operand,
    };
    entries.insert(key(at), value);
}

/// Takes a first element of every third step away, and shortens one of the steps after those.
#[derive(Debug)]
struct Gardener {
    deleted: AtomicUsize,
    replaced: AtomicUsize,
}

static GARDENER: Gardener = Gardener { deleted: AtomicUsize::new(0), replaced: AtomicUsize::new(0) };

impl CompactionFilter for &Gardener {
    fn decide(&self, _: &[u8], value: LazyValue<'_>, _: CompactionAt) -> Decision {
        match tended(value.get()) {
            None => {
                self.deleted.fetch_add(1, Ordering::Relaxed);
                Decision::Delete
            }
            Some(tended) if tended != value.get() => {
                self.replaced.fetch_add(1, Ordering::Relaxed);
                Decision::Replace(tended)
            }
            Some(_) => Decision::Keep,
        }
    }
}

/// What the filter makes of a value. A merge means the same before it and after it.
fn tended(value: &[u8]) -> Option<Vec<u8>> {
    let first = value.split(|byte| *byte == b',').next().unwrap_or_default();
    let step = first.split(|byte| *byte == b' ').nth(1)?;
    let step: u32 = str::from_utf8(step).unwrap().parse().unwrap();
    let rest = value.get(first.len() + 1..);
    match step % 3 {
        0 => tended(rest?),
        1 => Some([format!("step {step} ").as_bytes(), &value[first.len()..]].concat()),
        _ => Some(value.to_vec()),
    }
}

/// A state as it is after the filter has met all values of its keyspace.
fn all_tended(state: &State) -> State {
    let mut state = state.clone();
    if let Some(garden) = state.get_mut(GARDEN) {
        let rows = std::mem::take(garden).into_iter();
        *garden = rows.filter_map(|(key, value)| Some((key, tended(&value)?))).collect();
    }
    state
}

impl Model {
    fn new() -> Self {
        let empty = State::from([(DEFAULT.to_owned(), BTreeMap::new())]);
        Self {
            states: vec![empty],
            acknowledged: 0,
            durable: 0,
            told: Arc::default(),
            purged: (0, Vec::new()),
        }
    }

    /// The state after `step`, the next one.
    fn apply(&mut self, step: &Step) {
        let number = self.states.len();
        let mut state = self.states.last().unwrap().clone();
        let mut put = |keyspace: &str, at: u32| {
            state.get_mut(keyspace).unwrap().insert(key(at), value(number, BYTES));
        };
        match *step {
            Put(keyspace, at, _) | Submit(keyspace, at) | PutExpiring(keyspace, at, DECADE) => {
                put(keyspace, at);
            }
            Sized(keyspace, at, bytes) => {
                state.get_mut(keyspace).unwrap().insert(key(at), value(number, bytes));
            }
            Large(at) => {
                state.get_mut(DEFAULT).unwrap().insert(key(at), value(number, BYTES_LARGE));
            }
            Update(keyspace, at) => {
                let model = state.get_mut(keyspace).unwrap();
                let new = updated(model.get(&key(at)).map(|old| &**old), number);
                model.insert(key(at), new);
            }
            PopFirst(keyspace) => {
                state.get_mut(keyspace).unwrap().pop_first();
            }
            Batch(one, other, at) => {
                put(one, at);
                put(other, at);
            }
            Transact(one, other, at) => {
                let (from, to) = (key(at), key(at + 2));
                state.get_mut(one).unwrap().retain(|key, _| *key < from || *key >= to);
                state.get_mut(one).unwrap().insert(key(at + 1), value(number, BYTES));
                state.get_mut(other).unwrap().insert(key(at), value(number, BYTES));
            }
            TransactAll(one, other, at) => {
                let entries = state.get_mut(one).unwrap();
                entries.retain(|other, _| *other < key(at) || *other >= key(at + 3));
                entries.insert(key(at + 1), [value(number, BYTES), value(number, BYTES)].join(&b','));
                entries.remove(&key(at + 4));
                merge(entries, at, number);
                let entries = state.get_mut(other).unwrap();
                merge(entries, at, number);
                entries.insert(key(at + 1), value(number, BYTES));
                entries.remove(&key(at + 2));
                entries.remove(&key(at + 3));
            }
            Merge(keyspace, at) => merge(state.get_mut(keyspace).unwrap(), at, number),
            Delete(keyspace, at) | SingleDelete(keyspace, at) | PutExpiring(keyspace, at, _) => {
                state.get_mut(keyspace).unwrap().remove(&key(at));
            }
            DeleteRange(keyspace, from, to) | DeleteFiles(keyspace, from, to) => {
                let (from, to) = (key(from), key(to));
                state.get_mut(keyspace).unwrap().retain(|key, _| *key < from || *key >= to);
            }
            Ingest(keyspace, from, to) => {
                let entries = state.get_mut(keyspace).unwrap();
                entries.retain(|other, _| *other < key(from) || *other >= key(to));
                entries.insert(key(from), value(number, BYTES));
                merge(entries, to, number);
            }
            Load(keyspace, at) => {
                put(keyspace, at);
                put(keyspace, at + 1);
            }
            Create(keyspace) => {
                state.insert(keyspace.to_owned(), BTreeMap::new());
            }
            Drop(keyspace) => {
                state.remove(keyspace);
            }
            Clear(keyspace) => state.get_mut(keyspace).unwrap().clear(),
            Wait | Flush | Purge | Compact | CompactIn(_) | Sync | Reopen | DropAndReopen => {}
        }
        self.states.push(state);
    }

    /// All writes up to the number `visible` are to be purged.
    fn purge(&mut self, visible: u64) {
        let values = |state: &State| {
            let values = state.get(PURGED).into_iter().flat_map(|entries| entries.values().cloned());
            values.collect::<Vec<_>>()
        };
        let live = self.states.last().map(values).unwrap_or_default();
        let is_garbage = |step: &usize| {
            let value = value(*step, BYTES);
            !live.contains(&value) && self.states.iter().any(|state| values(state).contains(&value))
        };
        self.purged = (visible, (0..self.states.len()).filter(is_garbage).collect());
    }

    fn acknowledge(&mut self, step: &Step) {
        self.acknowledged = self.states.len() - 1;
        if !matches!(
            step,
            Put(_, _, Durability::Buffered)
                | Submit(..)
                | Update(..)
                | PopFirst(_)
                | Large(_)
                | Sized(..)
                | Batch(..)
                | Transact(..)
                | TransactAll(..)
                | Merge(..)
                | PutExpiring(..)
                | Delete(..)
                | SingleDelete(..)
                | DeleteRange(..)
        ) {
            self.durable = self.acknowledged;
        }
    }
}

fn options(fs: &SimFs, env: &Arc<SimEnv>) -> Options {
    Options::new()
        .memory(1 << 20)
        .memtable_bytes(70_000)
        .log_segment_bytes(16 << 10)
        .merge_operator(Arc::new(BuiltInMerge::append(",")))
        .vfs(Arc::new(fs.clone()))
        .env(Arc::clone(env) as Arc<dyn Env>)
}

fn keyspace(db: &Db, name: &str) -> Result<Keyspace> {
    let options = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::append(",")));
    let options = match name {
        GARDEN => options.compaction_filter(Arc::new(&GARDENER)),
        BLOBS => options.blobs_from(1024).blob_garbage_max(0.05),
        PURGED => options.purge_within(Duration::from_secs(10)),
        _ => options,
    };
    db.keyspace(name, options)
}

/// Runs the steps until the first failure.
fn run(fs: &SimFs, env: &Arc<SimEnv>, steps: &[Step]) -> (Model, Result<()>) {
    let mut model = Model::new();
    let result = run_into(fs, env, steps, &mut model);
    (model, result)
}

#[expect(clippy::too_many_lines, reason = "an arm for each step")]
fn run_into(fs: &SimFs, env: &Arc<SimEnv>, steps: &[Step], model: &mut Model) -> Result<()> {
    let mut db = options(fs, env).open(DIRECTORY)?;
    let mut tickets: Vec<Ticket> = Vec::new();
    for step in steps {
        model.apply(step);
        let value = value(model.states.len() - 1, BYTES);
        match *step {
            Put(name, at, durability) => keyspace(&db, name)?.put_with(key(at), &value, durability)?,
            Submit(name, at) => {
                let ticket = keyspace(&db, name)?.submit_put(key(at), &value)?;
                let (step, told) = (model.states.len() - 1, Arc::clone(&model.told));
                ticket.on_durable(move |result| {
                    if result.is_ok() {
                        told.fetch_max(step, Ordering::Relaxed);
                    }
                });
                tickets.push(ticket);
            }
            Update(name, at) => {
                let step = model.states.len() - 1;
                keyspace(&db, name)?.update(key(at), |old| Some(updated(old, step)))?;
            }
            PopFirst(name) => drop(keyspace(&db, name)?.pop_first()?),
            Wait => tickets.last().unwrap().wait()?,
            Sized(name, at, bytes) => {
                keyspace(&db, name)?.put(key(at), self::value(model.states.len() - 1, bytes))?;
            }
            Large(at) => db.put(key(at), self::value(model.states.len() - 1, BYTES_LARGE))?,
            Batch(one, other, at) => {
                let mut batch = WriteBatch::new();
                batch.put_in(&keyspace(&db, one)?, key(at), &value);
                batch.put_in(&keyspace(&db, other)?, key(at), &value);
                db.write(batch)?;
            }
            Transact(one, other, at) => {
                let (one, other) = (keyspace(&db, one)?, keyspace(&db, other)?);
                let transaction = db.transaction()?;
                transaction.range_in(&other, key(0)..).try_for_each(|entry| entry.map(drop))?;
                transaction.delete_range_in(&one, key(at)..key(at + 2))?;
                transaction.put_in(&one, key(at + 1), &value)?;
                transaction.put_in(&other, key(at), &value)?;
                tickets.push(transaction.commit()?);
            }
            TransactAll(one, other, at) => {
                let (one, other) = (keyspace(&db, one)?, keyspace(&db, other)?);
                let transaction = db.transaction()?;
                transaction.delete_range_in(&one, key(at)..key(at + 3))?;
                transaction.put_in(&one, key(at + 1), &value)?;
                transaction.merge_in(&one, key(at + 1), &value)?;
                let savepoint = transaction.savepoint();
                transaction.delete_range_in(&other, key(0)..key(9))?;
                transaction.put_in(&one, key(at + 5), "never there")?;
                transaction.merge_in(&one, key(at + 1), "never there")?;
                transaction.rollback_to(&savepoint)?;
                transaction.single_delete_in(&one, key(at + 4))?;
                transaction.merge_in(&one, key(at), &value)?;
                transaction.merge_in(&other, key(at), &value)?;
                transaction.put_expiring_in(&other, key(at + 1), &value, DECADE)?;
                transaction.put_expiring_in(&other, key(at + 2), &value, Duration::ZERO)?;
                transaction.delete_in(&other, key(at + 3))?;
                tickets.push(transaction.commit()?);
            }
            Merge(name, at) => keyspace(&db, name)?.merge(key(at), &value)?,
            PutExpiring(name, at, after) => keyspace(&db, name)?.put_expiring(key(at), &value, after)?,
            Delete(name, at) => keyspace(&db, name)?.delete(key(at))?,
            SingleDelete(name, at) => keyspace(&db, name)?.single_delete(key(at))?,
            DeleteRange(name, from, to) => keyspace(&db, name)?.delete_range(key(from)..key(to))?,
            Ingest(name, from, to) => {
                let path = format!("/data/given {}", model.states.len());
                let keyspace = keyspace(&db, name)?;
                let mut table = keyspace.table_builder(&path)?;
                table.put(key(from), &value)?;
                table.merge(key(to), &value)?;
                table.finish()?;
                keyspace.ingest(lsm_engine::Ingest::new().table(&path).replace(key(from)..key(to)).link())?;
            }
            Load(name, at) => {
                let mut load = keyspace(&db, name)?.bulk_load()?;
                load.put(key(at), &value)?;
                load.put(key(at + 1), &value)?;
                load.finish()?;
            }
            Create(name) => drop(keyspace(&db, name)?),
            Drop(name) => db.drop_keyspace(name)?,
            Clear(name) => keyspace(&db, name)?.clear()?,
            Flush => db.flush()?,
            Purge => {
                let visible = db.metrics().visible_sequence;
                model.purge(visible);
                for _ in 0..20 {
                    env.advance(1_000_000);
                    env.run_until_idle();
                }
                assert!(fs.crashed() || db.purged_through() >= visible);
            }
            DeleteFiles(name, from, to) => {
                let deleted = keyspace(&db, name)?.delete_files_in_range(key(from)..key(to))?;
                assert_eq!(deleted.tables, 1);
            }
            Compact => db.compact_range::<&[u8]>(..)?,
            CompactIn(name) => keyspace(&db, name)?.compact_range::<&[u8]>(..)?,
            Sync => db.sync()?,
            Reopen => {
                db.close()?;
                db = options(fs, env).open(DIRECTORY)?;
            }
            DropAndReopen => {
                drop(db);
                db = options(fs, env).open(DIRECTORY)?;
            }
        }
        // A dead process acknowledges nothing. Writes to a mapped window do not fail, so check for the crash here.
        if fs.crashed() {
            break;
        }
        model.acknowledge(step);
        env.run_until_idle();
    }
    Ok(())
}

fn read_state(db: &Db) -> Result<State> {
    db.keyspaces()
        .into_iter()
        .map(|name| {
            // By name alone: the merge operator is as stored.
            let entries = db.keyspace(&name, KeyspaceOptions::new())?.iter();
            let entries = entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
            Ok((name, entries.collect::<Result<_>>()?))
        })
        .collect()
}

/// An environment whose wall clock is an hour ahead of one that has just begun.
fn later(seed: u64) -> Arc<SimEnv> {
    let env = Arc::new(SimEnv::new(seed));
    env.set_unix_micros(env.unix_micros() + 3_600_000_000);
    env
}

/// A file that holds the value that a step wrote.
fn holder(fs: &SimFs, step: usize) -> Option<String> {
    let value = format!("step {step} .");
    let holds = |name: &String| {
        let file = fs.read_all(&Path::new(DIRECTORY).join(name)).unwrap();
        let begins = |(_, byte): &(usize, &u8)| **byte == b's';
        file.iter().enumerate().filter(begins).any(|(at, _)| file[at..].starts_with(value.as_bytes()))
    };
    fs.read_dir(Path::new(DIRECTORY)).ok()?.into_iter().find(holds)
}

/// Opens the files after a crash and compares the data with the model.
fn recover(fs: &SimFs, model: &Model, power_lost: bool, what: &dyn Fn() -> String) {
    verify_log(fs, Path::new(DIRECTORY), what);
    let held: Vec<_> = model.purged.1.iter().filter_map(|step| holder(fs, *step)).collect();
    // The flight recorder can be read, whatever the crash left of it.
    if fs.metadata(Path::new(DIRECTORY)).is_ok() {
        let mut recorded = RecordedEvents::of(Arc::new(fs.clone()), Path::new(DIRECTORY)).unwrap();
        recorded.try_for_each(|event| event.map(drop)).unwrap_or_else(|error| panic!("{}: {error}", what()));
    }
    // Time has passed since the crash.
    let env = later(3);
    let db = options(fs, &env).open(DIRECTORY).unwrap_or_else(|error| panic!("{}: {error}", what()));
    if db.purged_through() >= model.purged.0 {
        assert_eq!(held, [""; 0], "{}: hold what was purged", what());
    }
    let found = read_state(&db).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let durable = model.durable.max(model.told.load(Ordering::Relaxed));
    let least = if power_lost { durable } else { model.acknowledged };
    assert!(
        model.states[least..].iter().any(|state| *state == found || all_tended(state) == all_tended(&found)),
        "{}: at least step {least} of {} was promised; {}",
        what(),
        model.states.len() - 1,
        match model.states.iter().rposition(|state| all_tended(state) == all_tended(&found)) {
            Some(step) => format!("found the state after step {step}"),
            None => format!("found a state that never existed: {:?}", summary(&found)),
        }
    );
    // The recovered data stays, and can be written to.
    db.put_with("zzz", "after", Durability::Sync).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let cut = fs.power_cut(&mut lsm_engine::vfs::AllLost);
    drop(db);
    env.drop_jobs();
    let env = later(4);
    let db = options(&cut, &env).open(DIRECTORY).unwrap_or_else(|error| panic!("{}, again: {error}", what()));
    assert_eq!(db.get("zzz").unwrap().as_deref(), Some(&b"after"[..]), "{}", what());
    db.delete("zzz").unwrap();
    let again = read_state(&db).unwrap();
    assert_eq!(all_tended(&again), all_tended(&found), "{}: changed by a second recovery", what());
    drop(db);
    env.drop_jobs();
}

fn summary(state: &State) -> BTreeMap<&str, Vec<String>> {
    let entry = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        format!("{}={}", key.escape_ascii(), value[..value.len().min(9)].escape_ascii())
    };
    state.iter().map(|(name, entries)| (&**name, entries.iter().map(entry).collect())).collect()
}

/// Crashes at every `stride`th operation, and checks several images of each crash.
fn crash_everywhere(steps: &[Step], images: usize, stride: usize) {
    let fs = SimFs::new();
    fs_with_parent(&fs);
    let begun = fs.operations();
    let env = Arc::new(SimEnv::new(1));
    let (model, result) = run(&fs, &env, steps);
    result.unwrap();
    env.drop_jobs();
    recover(&fs.process_crash(), &model, false, &|| "no crash".to_owned());
    let last = fs.operations();
    assert!(last > begun + 20);
    for operation in (begun..last).step_by(stride) {
        let fs = SimFs::new();
        fs_with_parent(&fs);
        fs.crash_at(operation);
        let env = Arc::new(SimEnv::new(1));
        let (model, _) = run(&fs, &env, steps);
        env.drop_jobs();
        let at = |image: &str| format!("operation {operation} ({:?}), {image}", fs.last_operation());
        recover(&fs.process_crash(), &model, false, &|| at("process crash"));
        for (index, image) in fs.crash_images().at_most(images).with_seed(operation).enumerate() {
            if index == operation as usize % images {
                crash_again(&image.fs, &model, true, operation, &|| at(&image.description));
            }
            recover(&image.fs, &model, true, &|| at(&image.description));
        }
        crash_again(&fs.process_crash(), &model, false, operation, &|| at("process crash"));
    }
}

/// Also crashes the recovery, at one operation drawn from `sample`.
fn crash_again(crashed: &SimFs, model: &Model, power_lost: bool, sample: u64, what: &dyn Fn() -> String) {
    let open = |fs: &SimFs| {
        let env = Arc::new(SimEnv::new(3));
        drop(options(fs, &env).open(DIRECTORY));
        env.drop_jobs();
    };
    // A restart of the same disk, not a copy: what was not synced before is still not synced.
    let fs = crashed.process_crash();
    open(&fs);
    let operation = (sample * 7) % fs.operations();
    let fs = crashed.process_crash();
    fs.crash_at(operation);
    open(&fs);
    let at = |image: &str| {
        format!("{}, then operation {operation} of the recovery ({:?}), {image}", what(), fs.last_operation())
    };
    recover(&fs.process_crash(), model, power_lost, &|| at("process crash"));
    for image in fs.crash_images().at_most(5).with_seed(operation) {
        recover(&image.fs, model, true, &|| at(&image.description));
    }
}

fn fs_with_parent(fs: &SimFs) {
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
}

#[test]
fn writes_and_flushes() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Put(DEFAULT, 1, Buffered),
            Put(DEFAULT, 2, Synced),
            Put(DEFAULT, 1, Buffered),
            Flush,
            Delete(DEFAULT, 2),
            Put(DEFAULT, 3, Synced),
            DeleteRange(DEFAULT, 0, 2),
            Flush,
            Put(DEFAULT, 4, Buffered),
            Compact,
            Put(DEFAULT, 5, Buffered),
            Reopen,
            Put(DEFAULT, 6, Buffered),
            DropAndReopen,
            Put(DEFAULT, 7, Synced),
        ],
        10,
        1,
    );
}

#[test]
fn values_that_expire_and_single_deletes() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Put(DEFAULT, 1, Buffered),
            PutExpiring(DEFAULT, 2, DECADE),
            Flush,
            PutExpiring(DEFAULT, 1, Duration::ZERO),
            SingleDelete(DEFAULT, 2),
            PutExpiring(DEFAULT, 3, DECADE),
            Put(DEFAULT, 4, Synced),
            Flush,
            SingleDelete(DEFAULT, 4),
            PutExpiring(DEFAULT, 3, Duration::ZERO),
            Put(DEFAULT, 5, Buffered),
            SingleDelete(DEFAULT, 5),
            Flush,
            PutExpiring(DEFAULT, 6, DECADE),
            Compact,
            PutExpiring(DEFAULT, 6, Duration::ZERO),
            Reopen,
            Put(DEFAULT, 3, Buffered),
            Compact,
            DropAndReopen,
            PutExpiring(DEFAULT, 3, Duration::ZERO),
            Sync,
        ],
        10,
        1,
    );
}

#[test]
fn purges_and_deleted_files() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Create(PURGED),
            Put(PURGED, 1, Buffered),
            Put(PURGED, 2, Synced),
            Put(DEFAULT, 1, Buffered),
            Flush,
            Put(PURGED, 1, Buffered),
            Delete(PURGED, 2),
            Purge,
            Put(PURGED, 3, Buffered),
            Put(DEFAULT, 2, Buffered),
            DeleteRange(PURGED, 3, 4),
            Purge,
            Put(PURGED, 4, Buffered),
            DropAndReopen,
            Delete(PURGED, 4),
            Put(DEFAULT, 3, Buffered),
            Flush,
            Purge,
            Put(PURGED, 6, Buffered),
            Put(PURGED, 7, Buffered),
            Flush,
            DeleteFiles(PURGED, 6, 8),
            Put(PURGED, 6, Buffered),
            Purge,
            Reopen,
            Put(PURGED, 9, Synced),
        ],
        6,
        1,
    );
}

/// Values of a blob file that is written by a flush and rewritten later, and values that have a file of their own from the
/// moment at which they are written.
#[test]
fn large_values() {
    use Durability::{Buffered, Sync as Synced};
    const LARGE: usize = 3000;
    const HUGE: usize = 66_000;
    crash_everywhere(
        &[
            Create(BLOBS),
            Sized(BLOBS, 1, LARGE),
            Sized(BLOBS, 2, LARGE),
            Sized(BLOBS, 3, HUGE),
            Flush,
            Sized(BLOBS, 1, LARGE),
            Merge(BLOBS, 2),
            Sized(BLOBS, 3, HUGE),
            CompactIn(BLOBS),
            Put(BLOBS, 5, Synced),
            Flush,
            Sized(BLOBS, 4, HUGE),
            Delete(BLOBS, 3),
            Put(DEFAULT, 1, Synced),
            Reopen,
            Sized(BLOBS, 6, HUGE),
            Put(BLOBS, 4, Buffered),
            DropAndReopen,
            CompactIn(BLOBS),
            Sized(BLOBS, 7, HUGE),
            Clear(BLOBS),
            Sized(BLOBS, 8, LARGE),
            Flush,
        ],
        6,
        2,
    );
}

#[test]
fn tickets() {
    crash_everywhere(
        &[
            Create("other"),
            Submit(DEFAULT, 1),
            Submit("other", 1),
            Put(DEFAULT, 2, Durability::Buffered),
            Submit(DEFAULT, 1),
            Wait,
            Flush,
            Submit(DEFAULT, 3),
            Submit("other", 3),
            Reopen,
            Submit("other", 4),
            Submit("other", 4),
            DropAndReopen,
            Submit(DEFAULT, 5),
        ],
        10,
        1,
    );
}

#[test]
fn merges_and_their_folding() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Create("other"),
            Merge(DEFAULT, 1),
            Put(DEFAULT, 2, Synced),
            Merge(DEFAULT, 2),
            Merge("other", 1),
            Flush,
            Merge(DEFAULT, 1),
            Merge(DEFAULT, 2),
            Delete(DEFAULT, 1),
            Merge(DEFAULT, 1),
            Flush,
            DeleteRange(DEFAULT, 2, 3),
            Merge(DEFAULT, 2),
            Merge("other", 1),
            Compact,
            Merge(DEFAULT, 2),
            Put("other", 1, Buffered),
            Merge("other", 1),
            DropAndReopen,
            Merge(DEFAULT, 1),
            Sync,
            Merge(DEFAULT, 2),
            Reopen,
            Merge("other", 1),
        ],
        10,
        1,
    );
}

#[test]
fn updates() {
    crash_everywhere(
        &[
            Update(DEFAULT, 1),
            Update(DEFAULT, 2),
            Update(DEFAULT, 1),
            PopFirst(DEFAULT),
            Sync,
            Update(DEFAULT, 1),
            Flush,
            Update(DEFAULT, 1),
            Update(DEFAULT, 3),
            PopFirst(DEFAULT),
            PopFirst(DEFAULT),
            DropAndReopen,
            Update(DEFAULT, 3),
            Compact,
            PopFirst(DEFAULT),
        ],
        10,
        1,
    );
}

#[test]
fn transactions_across_keyspaces() {
    use Durability::Buffered;
    crash_everywhere(
        &[
            Create("other"),
            Transact(DEFAULT, "other", 1),
            Put("other", 3, Buffered),
            Transact("other", DEFAULT, 2),
            Wait,
            Flush,
            Transact(DEFAULT, "other", 1),
            Transact("other", DEFAULT, 3),
            Compact,
            DropAndReopen,
            Transact(DEFAULT, "other", 2),
            Reopen,
            Transact("other", DEFAULT, 1),
        ],
        10,
        1,
    );
}

#[test]
fn transactions_with_every_kind_of_write() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Create("other"),
            Put(DEFAULT, 2, Buffered),
            Put("other", 4, Synced),
            PutExpiring("other", 3, DECADE),
            TransactAll(DEFAULT, "other", 1),
            Flush,
            Merge("other", 1),
            TransactAll("other", DEFAULT, 0),
            Wait,
            TransactAll(DEFAULT, "other", 2),
            Compact,
            TransactAll("other", DEFAULT, 2),
            DropAndReopen,
            TransactAll(DEFAULT, "other", 0),
            Clear("other"),
            TransactAll("other", DEFAULT, 1),
            Flush,
            Reopen,
            TransactAll("other", DEFAULT, 3),
        ],
        10,
        1,
    );
}

#[test]
fn values_that_a_filter_deletes_and_changes() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Create(GARDEN),
            Put(GARDEN, 1, Buffered),
            Put(GARDEN, 2, Buffered),
            Put(GARDEN, 3, Synced),
            Merge(GARDEN, 2),
            PutExpiring(GARDEN, 4, DECADE),
            PutExpiring(GARDEN, 5, DECADE),
            Flush,
            Put(GARDEN, 1, Buffered),
            Put(GARDEN, 2, Buffered),
            Merge(GARDEN, 3),
            Merge(GARDEN, 1),
            CompactIn(GARDEN),
            Merge(GARDEN, 2),
            PutExpiring(GARDEN, 4, Duration::ZERO),
            TransactAll(GARDEN, DEFAULT, 1),
            Flush,
            CompactIn(GARDEN),
            DropAndReopen,
            Put(GARDEN, 1, Buffered),
            SingleDelete(GARDEN, 3),
            DeleteRange(GARDEN, 2, 3),
            CompactIn(GARDEN),
            Reopen,
            Merge(GARDEN, 1),
        ],
        10,
        1,
    );
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    assert!(count(&GARDENER.deleted) > 0 && count(&GARDENER.replaced) > 0, "{GARDENER:?}");
}

#[test]
fn batches_across_keyspaces() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Create("other"),
            Batch(DEFAULT, "other", 1),
            Put("other", 2, Buffered),
            Flush,
            Batch(DEFAULT, "other", 3),
            Put(DEFAULT, 4, Synced),
            Batch("other", DEFAULT, 1),
            Sync,
            Batch("other", DEFAULT, 5),
            DropAndReopen,
            Batch("other", DEFAULT, 6),
            Flush,
        ],
        10,
        1,
    );
}

#[test]
fn ingests_and_bulk_loads() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Create("other"),
            Put("other", 1, Buffered),
            Put(DEFAULT, 1, Synced),
            Flush,
            Batch(DEFAULT, "other", 4),
            Put(DEFAULT, 2, Buffered),
            Ingest(DEFAULT, 1, 4),
            Put(DEFAULT, 3, Buffered),
            Load("other", 4),
            Ingest("other", 1, 5),
            DropAndReopen,
            Merge(DEFAULT, 4),
            Load(DEFAULT, 2),
            Clear("other"),
            Load("other", 1),
            Compact,
            Ingest(DEFAULT, 2, 3),
            Reopen,
        ],
        6,
        2,
    );
}

#[test]
fn clears_and_drops() {
    use Durability::{Buffered, Sync as Synced};
    crash_everywhere(
        &[
            Create("other"),
            Put("other", 1, Buffered),
            Put(DEFAULT, 1, Buffered),
            Flush,
            Put("other", 2, Synced),
            Clear("other"),
            Put("other", 3, Buffered),
            DropAndReopen,
            Clear(DEFAULT),
            Put(DEFAULT, 2, Buffered),
            Drop("other"),
            Create("other"),
            Put("other", 4, Synced),
        ],
        10,
        1,
    );
}

#[test]
fn rotation_of_log_and_memtable() {
    let mut steps: Vec<Step> = (0..14).map(|at| Large(at % 9)).collect();
    steps.insert(7, Sync);
    steps.extend((0..22).map(Large));
    steps.push(Put(DEFAULT, 30, Durability::Sync));
    crash_everywhere(&steps, 4, 5);
}
