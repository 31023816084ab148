//! A second database that is kept equal by the change feed, while both sides crash at random.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsm_dev::{Random, each_seed};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, Seeded, SimFs};
use lsm_engine::{
    BuiltInMerge, ChangeKind, ChangePosition, Db, Durability, Error, ErrorKind, Keyspace, KeyspaceOptions,
    Options, Result, WriteBatch,
};

const ROUNDS: usize = 200;
/// The keyspace of the follower in which it notes how far it is.
const NOTES: &str = "notes";
const SLOT: &str = "follower";

type Content = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// A database in a simulated world that crashes.
struct Side {
    fs: SimFs,
    env: Arc<SimEnv>,
    db: Option<Db>,
}

fn merging() -> KeyspaceOptions {
    KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::append(",")))
}

impl Side {
    fn new(seed: u64) -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(seed)), db: None }
    }

    /// Opens the database, which may crash on the way.
    fn open(&mut self) -> Result<Db> {
        if let Some(db) = &self.db {
            return Ok(db.clone());
        }
        let env = Arc::clone(&self.env) as Arc<dyn Env>;
        let options = Options::new().memory(4 << 20).vfs(Arc::new(self.fs.clone())).env(env);
        let db = options.keyspace(merging()).open("/db")?;
        self.db = Some(db.clone());
        Ok(db)
    }

    /// The process ends, or the machine loses power; another process goes on with what is left.
    fn crash(&mut self, random: &mut Random) {
        let power_cut = random.below(2) == 0;
        let left = if power_cut {
            self.fs.power_cut(&mut Seeded::new(random.next()))
        } else {
            self.fs.process_crash()
        };
        // From now on the old process does nothing to its files.
        self.fs.crash_at(0);
        self.db = None;
        self.env.drop_jobs();
        self.fs = left;
        self.env = Arc::new(SimEnv::new(random.next()));
    }

    fn content(&mut self) -> Content {
        let db = self.open().unwrap();
        let names = db.keyspaces().into_iter().filter(|name| name != NOTES);
        let entries = |keyspace: &Keyspace| keyspace.iter().map(|entry| entry.unwrap());
        let read = |name: String| {
            let keyspace = db.existing_keyspace(&name).unwrap().unwrap();
            let entries = entries(&keyspace).map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            (name, entries)
        };
        names.map(read).collect()
    }
}

fn key(random: &mut Random) -> String {
    format!("key{:02}", random.below(60))
}

/// One thing that a user of the first database does.
fn act(db: &Db, random: &mut Random, step: usize) -> Result<()> {
    let name = format!("k{}", random.below(3));
    let existing = db.existing_keyspace(&name)?;
    let keyspace = existing.clone().unwrap_or_else(|| db.default_keyspace());
    let value = vec![b'a' + (step % 26) as u8; random.below(1200)];
    match random.below(24) {
        0..8 => db.put(key(random), value),
        8..11 => keyspace.put(key(random), value),
        11 => keyspace.delete(key(random)),
        12 => {
            let (one, other) = (key(random), key(random));
            keyspace.delete_range(one.clone().min(other.clone())..one.max(other))
        }
        13 | 14 => keyspace.merge(key(random), format!("{step}")),
        15 => {
            let mut batch = WriteBatch::new();
            batch.put(key(random), &value).put_in(&keyspace, key(random), &value).delete(key(random));
            batch.merge_in(&keyspace, key(random), format!("{step}"));
            db.write_with(batch, if step.is_multiple_of(2) { Durability::Sync } else { Durability::Buffered })
        }
        16 => db.keyspace(&name, merging()).map(drop),
        17 => existing.map_or(Ok(()), |_| db.drop_keyspace(&name)),
        18 => keyspace.clear(),
        19 => db.flush(),
        20 | 21 => db.sync(),
        22 => keyspace.put_with(key(random), vec![b'l'; 200_000], Durability::Sync),
        _ => db.compact_range::<&[u8]>(..),
    }
}

fn keyspace_of(sink: &Db, name: &str) -> Result<Keyspace> {
    if name == "default" { Ok(sink.default_keyspace()) } else { sink.keyspace(name, merging()) }
}

/// Does to the second database what was done to the first, as far as that is told now. Each batch and the place after it
/// become durable together.
fn follow(source: &Db, sink: &Db, batches: usize) -> Result<()> {
    let notes = sink.keyspace(NOTES, KeyspaceOptions::new())?;
    let slot = source.change_slot(SLOT, u64::MAX)?;
    let from = match notes.get("position")? {
        Some(bytes) => ChangePosition::from_bytes(&bytes)?,
        // It has nothing yet, and the slot was made before the first write.
        None => slot.position(),
    };
    let mut changes = source.changes(&from)?;
    for _ in 0..batches {
        let Some(told) = changes.try_next()? else { break };
        let mut batch = WriteBatch::new();
        batch.put_in(&notes, "position", told.position.to_bytes());
        for change in &told.changes {
            match &change.kind {
                ChangeKind::Put { key, value } => {
                    batch.put_in(&keyspace_of(sink, &change.keyspace)?, key, value);
                }
                ChangeKind::Delete { key } => {
                    batch.delete_in(&keyspace_of(sink, &change.keyspace)?, key);
                }
                ChangeKind::DeleteRange { start, end } => {
                    batch.delete_range_in(&keyspace_of(sink, &change.keyspace)?, start..end);
                }
                ChangeKind::Merge { key, operand } => {
                    batch.merge_in(&keyspace_of(sink, &change.keyspace)?, key, operand);
                }
                ChangeKind::Clear => keyspace_of(sink, &change.keyspace)?.clear()?,
                ChangeKind::KeyspaceCreated => drop(keyspace_of(sink, &change.keyspace)?),
                ChangeKind::KeyspaceDropped => {
                    if sink.existing_keyspace(&change.keyspace)?.is_some() {
                        sink.drop_keyspace(&change.keyspace)?;
                    }
                }
                kind => panic!("{kind:?}"),
            }
        }
        sink.write(batch)?;
    }
    // What the slot releases must be durable on the other side.
    sink.sync()?;
    slot.acknowledge(&changes.position())
}

/// An error is right only from a side that crashes.
fn check(result: Result<()>, crashing: bool, what: &str) {
    if let Err(error) = result {
        let allowed =
            matches!(error, Error::Storage(lsm_core::Error::Io { .. } | lsm_core::Error::Stopped { .. }))
                || matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Closed | ErrorKind::Io);
        assert!(crashing && allowed, "{what}: {error} ({:?})", error.kind());
    }
}

#[test]
fn both_sides_may_crash_at_any_time_and_end_equal() {
    each_seed(3, |seed| {
        let random = &mut Random(seed);
        let (mut source, mut sink) = (Side::new(seed), Side::new(!seed));
        source.open().unwrap().change_slot(SLOT, u64::MAX).unwrap();
        let (mut followed, mut crashes) = (0, 0);
        for round in 0..ROUNDS {
            let what = format!("seed {seed}, round {round}");
            let (source_dies, sink_dies) = (random.below(3) == 0, random.below(3) == 0);
            for (side, dies) in [(&source, source_dies), (&sink, sink_dies)] {
                if dies {
                    side.fs.crash_at(side.fs.operations() + random.below(300) as u64);
                }
            }
            for step in 0..8 + random.below(20) {
                if let Err(error) = source.open().and_then(|db| act(&db, random, round + step)) {
                    check(Err(error), source_dies, &what);
                    break;
                }
                if random.below(3) == 0 {
                    source.env.advance(random.below(2_000_000) as u64);
                    source.env.run_until_idle();
                }
            }
            if random.below(2) == 0 {
                let result = source.open().and_then(|source| {
                    let batches = random.below(60);
                    sink.open().and_then(|sink| follow(&source, &sink, batches))
                });
                followed += usize::from(result.is_ok());
                check(result, source_dies || sink_dies, &what);
            }
            if source_dies {
                source.crash(random);
                crashes += 1;
            }
            if sink_dies {
                sink.crash(random);
                crashes += 1;
            }
        }
        assert!(followed > 50 && crashes > 80, "{followed} {crashes}");
        source.open().unwrap().sync().unwrap();
        let (from, to) = (source.open().unwrap(), sink.open().unwrap());
        follow(&from, &to, usize::MAX).unwrap();
        drop((from, to));
        assert_eq!(source.content(), sink.content(), "seed {seed}");
        for side in [&mut source, &mut sink] {
            side.db.take().unwrap().close().unwrap();
            side.env.drop_jobs();
        }
    });
}

/// A small history that is read through a slot.
fn history(fs: &SimFs, env: &Arc<SimEnv>) -> Result<Vec<ChangeKind>> {
    let options = Options::new().memory(4 << 20).vfs(Arc::new(fs.clone()));
    let db = options.env(Arc::clone(env) as Arc<dyn Env>).keyspace(merging()).open("/db")?;
    let slot = db.change_slot(SLOT, u64::MAX)?;
    db.put("a", "1")?;
    let keyspace = db.keyspace("k0", merging())?;
    keyspace.put("b", "2")?;
    db.flush()?;
    keyspace.clear()?;
    db.put_with("c", vec![3; 100_000], Durability::Sync)?;
    db.drop_keyspace("k0")?;
    db.flush()?;
    env.advance(2_000_000);
    env.run_until_idle();
    let mut changes = slot.changes()?;
    let mut told = Vec::new();
    while let Some(batch) = changes.try_next()? {
        told.extend(batch.changes.into_iter().map(|change| change.kind));
    }
    drop((slot, keyspace, changes));
    db.close()?;
    Ok(told)
}

/// The creations and drops of keyspaces, and the writes.
fn apart(told: &[ChangeKind]) -> (Vec<&ChangeKind>, Vec<&ChangeKind>) {
    let is_event =
        |kind: &&ChangeKind| matches!(kind, ChangeKind::KeyspaceCreated | ChangeKind::KeyspaceDropped);
    told.iter().partition(is_event)
}

/// All changes of the slot, in a database that was left by a crash.
fn told_after(fs: &SimFs, what: &str) -> Option<Vec<ChangeKind>> {
    let env = Arc::new(SimEnv::new(9));
    let options = Options::new().memory(4 << 20).vfs(Arc::new(fs.clone()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).keyspace(merging()).open("/db").expect(what);
    let slot = db.change_slots().into_iter().next();
    let told: Option<Vec<ChangeKind>> = slot.map(|slot| {
        assert!(!slot.is_lost(), "{what}");
        let mut changes = slot.changes().expect(what);
        let batches = std::iter::from_fn(|| changes.try_next().expect(what));
        batches.flat_map(|batch| batch.changes).map(|change| change.kind).collect()
    });
    // What is told is what the database has.
    let keys: Vec<Vec<u8>> = db.iter().map(|entry| entry.expect(what).0.to_vec()).collect();
    for key in [&b"a"[..], b"c"] {
        let is_told =
            told.iter().flatten().any(|kind| matches!(kind, ChangeKind::Put { key: put, .. } if put == key));
        assert!(told.is_none() || is_told == keys.iter().any(|found| found == key), "{what}: {told:?}");
    }
    db.close().expect(what);
    env.drop_jobs();
    told
}

#[test]
fn a_crash_at_any_operation_leaves_a_slot_with_all_that_is_left() {
    let fs = SimFs::new();
    let env = Arc::new(SimEnv::new(1));
    let whole = history(&fs, &env).unwrap();
    assert_eq!(whole.len(), 6);
    env.drop_jobs();
    for operation in 0..fs.operations() {
        let fs = SimFs::new();
        fs.crash_at(operation);
        let env = Arc::new(SimEnv::new(1));
        // The last operations may be ones that may fail.
        let _ = history(&fs, &env);
        let images = fs.crash_images().at_most(12).with_seed(operation);
        let power_cuts = images.map(|image| (image.description.clone(), image.fs));
        for (description, left) in power_cuts.chain([("the process ended".to_owned(), fs.process_crash())]) {
            let what = format!("operation {operation} {:?}: {description}", fs.last_operation());
            if let Some(told) = told_after(&left, &what) {
                // Keyspaces are durable at once, writes later.
                let ((events, writes), (all_events, all_writes)) = (apart(&told), apart(&whole));
                let is_prefix = all_events.starts_with(&events) && all_writes.starts_with(&writes);
                assert!(is_prefix, "{what}: {told:?}");
                // A second crash while it was opened, and a second open.
                assert_eq!(told_after(&left, &what).as_ref(), Some(&told), "{what}");
            }
        }
        env.drop_jobs();
    }
}

#[test]
fn a_failing_call_costs_no_change() {
    let fs = SimFs::new();
    let env = Arc::new(SimEnv::new(1));
    let whole = history(&fs, &env).unwrap();
    env.drop_jobs();
    for operation in 0..fs.operations() {
        for kind in [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull] {
            let fs = SimFs::new();
            fs.inject(Fault::at_operation(operation, kind));
            let env = Arc::new(SimEnv::new(1));
            let what = format!("operation {operation}, {kind}");
            let result = history(&fs, &env);
            if let Ok(told) = result {
                assert_eq!(told, whole, "{what}");
            }
            env.drop_jobs();
            fs.clear_faults();
            if let Some(told) = told_after(&fs.process_crash(), &what) {
                // A write that failed is not told, or told as a whole.
                let is_subset = told.iter().all(|kind| whole.contains(kind));
                assert!(is_subset, "{what}: {told:?}");
            }
        }
    }
}
