//! A follower reads a database while its owner writes, flushes and compacts: here both are in one process, on one
//! simulated file system, so that each history is the same every time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{
    BuiltInMerge, Db, Durability, ErrorKind, Follower, KeyspaceOptions, Options, Snapshot, WriteBatch,
};

const DIRECTORY: &str = "/db";
const SECOND: u64 = 1_000_000;

struct World {
    fs: SimFs,
    owner: Arc<SimEnv>,
    follower: Arc<SimEnv>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            fs: SimFs::new(),
            owner: Arc::new(SimEnv::new(seed)),
            follower: Arc::new(SimEnv::new(seed + 1_000_000)),
        }
    }

    fn options(&self, env: &Arc<SimEnv>) -> Options {
        Options::new()
            .memory(1 << 20)
            .memtable_bytes(70_000)
            .log_segment_bytes(16 << 10)
            .merge_operator(Arc::new(BuiltInMerge::append(",")))
            .vfs(Arc::new(self.fs.clone()))
            .env(Arc::clone(env) as Arc<dyn Env>)
    }

    fn open(&self) -> Db {
        self.options(&self.owner).open(DIRECTORY).unwrap()
    }

    fn follow(&self) -> Follower {
        self.try_to_follow().unwrap()
    }

    fn try_to_follow(&self) -> lsm_engine::Result<Follower> {
        Follower::open_with(DIRECTORY, self.options(&self.follower).memory(8 << 20))
    }

    /// The names of files that end or begin like this.
    fn files(&self, part: &str) -> Vec<String> {
        let names = self.fs.read_dir(Path::new(DIRECTORY)).unwrap();
        names.into_iter().filter(|name| name.starts_with(part) || name.ends_with(part)).collect()
    }

    /// Lets time pass for both, as on one machine.
    fn advance(&self, micros: u64) {
        for env in [&self.owner, &self.follower] {
            env.advance(micros);
            env.run_until_idle();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.owner.drop_jobs();
        self.follower.drop_jobs();
    }
}

type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn contents(db: &Db) -> Contents {
    let entries = |name: &String| {
        let keyspace = db.existing_keyspace(name).unwrap().unwrap();
        keyspace
            .iter()
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
            .collect()
    };
    db.keyspaces().iter().map(|name| (name.clone(), entries(name))).collect()
}

fn of_snapshot(snapshot: &Snapshot) -> BTreeMap<Vec<u8>, Vec<u8>> {
    snapshot.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

#[test]
fn a_follower_shows_what_the_owner_had_acknowledged_when_it_caught_up() {
    for seed in 0..8 {
        let world = World::new(seed);
        let mut db = world.open();
        db.put("early", "1").unwrap();
        let follower = world.follow();
        assert_eq!(contents(&follower.db()), contents(&db));
        let random = SimEnv::new(seed);
        let mut snapshots = Vec::new();
        let value = |step: u64| format!("{step} {}", ".".repeat((random.random() % 900) as usize));
        for step in 0..700_u64 {
            let key = || format!("key{:03}", random.random() % 300);
            let names = db.keyspaces();
            let name = &names[random.random() as usize % names.len()];
            let keyspace = db.existing_keyspace(name).unwrap().unwrap();
            match random.random() % 24 {
                0 => db.flush().unwrap(),
                1 => db.wait_for_compactions().unwrap(),
                2 if step % 5 == 0 => db.compact_range::<&str>(..).unwrap(),
                3 if names.len() < 4 => {
                    let options = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::append(",")));
                    db.keyspace(&format!("k{step}"), options).unwrap();
                }
                4 if name != "default" && step % 3 == 0 => db.drop_keyspace(name).unwrap(),
                5 if step % 4 == 0 => keyspace.clear().unwrap(),
                6 => {
                    let (from, to) = (key(), key());
                    keyspace.delete_range(from.clone().min(to.clone())..from.max(to)).unwrap();
                }
                7 | 8 => keyspace.delete(key()).unwrap(),
                9 | 10 => keyspace.merge(key(), format!("{step}")).unwrap(),
                11 => {
                    let mut batch = WriteBatch::new();
                    for name in &names {
                        let keyspace = db.existing_keyspace(name).unwrap().unwrap();
                        batch.put_in(&keyspace, "batch", value(step));
                    }
                    db.write(batch).unwrap();
                }
                12 => keyspace.put_with(key(), value(step), Durability::Sync).unwrap(),
                14 => {
                    let mut load = keyspace.bulk_load().unwrap();
                    let keys: BTreeSet<_> = (0..random.random() % 20).map(|_| key()).collect();
                    for key in &keys {
                        load.put(key, value(step)).unwrap();
                    }
                    load.finish().unwrap();
                }
                15 if step % 7 == 0 => {
                    drop(keyspace);
                    if step % 2 == 0 {
                        db.close().unwrap();
                    } else {
                        drop(db);
                    }
                    world.owner.drop_jobs();
                    db = world.open();
                }
                13 => keyspace.put_expiring(key(), value(step), Duration::from_secs(3600)).unwrap(),
                _ => keyspace.put(key(), value(step)).unwrap(),
            }
            if random.random().is_multiple_of(6) {
                world.owner.run_until_idle();
            }
            if random.random().is_multiple_of(5) {
                let progress = follower.catch_up().unwrap();
                assert_eq!(progress.lag, 0);
                assert_eq!(
                    progress.position.sequence(),
                    db.snapshot().unwrap().sequence(),
                    "seed {seed} step {step}"
                );
                assert!(contents(&follower.db()) == contents(&db), "seed {seed} step {step}");
                if random.random().is_multiple_of(4) {
                    let snapshot = follower.snapshot().unwrap();
                    let expected = of_snapshot(&snapshot);
                    snapshots.push((snapshot, expected));
                }
            }
            if snapshots.len() > 5 {
                let (snapshot, expected) = snapshots.remove(random.random() as usize % snapshots.len());
                assert!(
                    of_snapshot(&snapshot) == expected,
                    "seed {seed} step {step}: a snapshot has changed"
                );
            }
        }
        for (snapshot, expected) in snapshots {
            assert!(of_snapshot(&snapshot) == expected, "seed {seed}: a snapshot has changed");
        }
        drop(follower);
        assert_eq!(world.files("FOLLOWER-"), Vec::<String>::new(), "a follower that ends removes its lease");
    }
}

/// The owner's tables change, and readers of the follower keep what they had.
#[test]
fn no_table_vanishes_while_a_reader_of_a_follower_reads_it() {
    let world = World::new(1);
    let db = world.open();
    for number in 0..50 {
        db.put(format!("key{number:02}"), [b'x'; 3000]).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    let tables = world.files(".sst");
    let follower = world.follow();
    let mut iter = follower.iter();
    assert_eq!(iter.next().unwrap().unwrap().0, "key00");
    db.delete_range("key00".."key90").unwrap();
    db.flush().unwrap();
    db.compact_range::<&str>(..).unwrap();
    world.advance(5 * SECOND);
    assert!(tables.iter().all(|table| world.files(".sst").contains(table)), "the follower has not caught up");
    follower.catch_up().unwrap();
    assert_eq!(follower.count::<&str>(..).unwrap(), 0);
    world.advance(5 * SECOND);
    assert!(tables.iter().all(|table| world.files(".sst").contains(table)), "an iterator reads them");
    assert_eq!(iter.by_ref().filter(|entry| entry.as_ref().unwrap().1 == [b'x'; 3000]).count(), 49);
    drop(iter);
    // The next renewal says so.
    world.advance(12 * SECOND);
    world.advance(2 * SECOND);
    assert!(!tables.iter().any(|table| world.files(".sst").contains(table)), "{:?}", world.files(".sst"));
}

#[test]
fn a_follower_that_is_gone_costs_nothing_once_its_lease_has_ended() {
    let world = World::new(1);
    let db = world.open();
    db.put("a", "1").unwrap();
    db.flush().unwrap();
    let tables = world.files(".sst");
    let follower = world.follow();
    // Its process is killed: nobody renews the lease or removes it.
    std::mem::forget(follower);
    world.follower.drop_jobs();
    db.put("a", "2").unwrap();
    db.flush().unwrap();
    db.compact_range::<&str>(..).unwrap();
    world.owner.advance(29 * SECOND);
    world.owner.run_until_idle();
    assert!(world.files(".sst").contains(&tables[0]));
    // The calendar jumps by years, and nothing depends on it.
    world.owner.set_unix_micros(1);
    world.owner.advance(2 * SECOND);
    world.owner.run_until_idle();
    world.owner.advance(2 * SECOND);
    world.owner.run_until_idle();
    assert!(!world.files(".sst").contains(&tables[0]));
    assert_eq!(world.files("FOLLOWER-"), Vec::<String>::new());
}

#[test]
fn a_follower_that_was_away_for_too_long_falls_behind_and_reopens() {
    for stopped in [false, true] {
        let world = World::new(1);
        let db = world.open();
        let put = |value: &str| {
            for number in 0..20 {
                db.put(format!("key{number:02}"), value.repeat(1000)).unwrap();
            }
            db.flush().unwrap();
            db.compact_range::<&str>(..).unwrap();
        };
        put("old");
        let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
        other.put("key", "kept").unwrap();
        db.flush().unwrap();
        // It can have one file open at a time, so it opens tables again and again.
        let options = world.options(&world.follower).open_files_max(1);
        let follower = Follower::open_with(DIRECTORY, options).unwrap();
        let snapshot = follower.snapshot().unwrap();
        let other = follower.keyspace("other").unwrap().unwrap();
        assert_eq!(snapshot.get_in(&other, "key").unwrap().unwrap(), "kept");
        for _ in 0..3 {
            put("new");
        }
        if stopped {
            // The process was stopped, and its clock went on.
            world.follower.advance(40 * SECOND);
        }
        // Or its clock stands still, and only the owner sees that time passes.
        for _ in 0..3 {
            world.owner.advance(20 * SECOND);
            world.owner.run_until_idle();
        }
        assert_eq!(world.files("FOLLOWER-"), Vec::<String>::new());
        let failed = follower.catch_up().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::FellBehind, "{failed}");
        assert!(failed.to_string().contains("reopen"), "{failed}");
        assert_eq!(follower.catch_up().unwrap_err().kind(), ErrorKind::FellBehind);
        let failed = snapshot.get("key07").unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::FellBehind, "{failed}");
        let failed = snapshot.iter().find_map(Result::err).unwrap();
        assert_eq!(failed.kind(), ErrorKind::FellBehind, "{failed}");
        follower.reopen().unwrap();
        assert_eq!(follower.get("key07").unwrap().unwrap(), "new".repeat(1000));
        follower.catch_up().unwrap();
        assert_eq!(world.files("FOLLOWER-").len(), 1);
    }
}

#[test]
fn a_database_has_a_bounded_number_of_followers() {
    let world = World::new(1);
    let db = world.open();
    db.put("a", "1").unwrap();
    let mut followers: Vec<_> = (0..32).map(|_| world.follow()).collect();
    assert!(followers.iter().all(|follower| follower.get("a").unwrap().unwrap() == "1"));
    let refused = world.try_to_follow().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoLease);
    followers.swap_remove(7);
    followers.push(world.follow());
    drop(followers);
    assert_eq!(world.files("FOLLOWER-"), Vec::<String>::new());
}

/// The states that an owner goes through that dies at one of its operations, and what the follower showed last.
fn follow_until_the_owner_dies(world: &World, follower: &Follower) -> (Vec<Contents>, Contents) {
    let mut shown = contents(&follower.db());
    let mut states = vec![Contents::from([("default".to_owned(), BTreeMap::new())])];
    let opened = world.options(&world.owner).open(DIRECTORY);
    let Ok(db) = opened else { return (states, shown) };
    let mut owned = || -> lsm_engine::Result<()> {
        let other = db.keyspace("other", KeyspaceOptions::new())?;
        let mut created = states[0].clone();
        created.insert("other".to_owned(), BTreeMap::new());
        states.push(created);
        for step in 0..9_u32 {
            let mut batch = WriteBatch::new();
            batch.put(format!("key{}", step % 4), [b'a' + step as u8; 9000]);
            batch.put_in(&other, "step", step.to_string());
            let mut next = states.last().cloned().unwrap();
            next.get_mut("default")
                .unwrap()
                .insert(format!("key{}", step % 4).into(), vec![b'a' + step as u8; 9000]);
            next.get_mut("other").unwrap().insert(b"step".to_vec(), step.to_string().into());
            let before = states.last().cloned().unwrap();
            let written = db.write(batch);
            if written.is_ok() {
                states.push(next);
            } else {
                // Perhaps the log has it.
                states.extend([before, next]);
            }
            written?;
            if step % 3 == 1 {
                db.flush()?;
            }
            if step == 6 {
                db.compact_range::<&str>(..)?;
            }
            // The follower's operations are not counted: it only reads, apart from its lease.
            if step % 2 == 0
                && let Ok(progress) = follower.catch_up()
            {
                assert_eq!(progress.lag, 0);
                shown = contents(&follower.db());
                assert!(Some(&shown) == states.last(), "step {step}");
            }
        }
        Ok(())
    };
    let _ = owned();
    drop(db);
    (states, shown)
}

/// The disk goes on after the owner has died, and so does the follower. Then the owner comes back, and the follower goes on
/// with it.
#[test]
fn a_follower_outlives_an_owner_that_dies_at_any_operation() {
    let total = {
        let world = World::new(3);
        world.open().close().unwrap();
        let follower = world.follow();
        follow_until_the_owner_dies(&world, &follower);
        drop(follower);
        world.fs.operations()
    };
    for operation in (0..total).step_by(3) {
        let mut world = World::new(3);
        world.open().close().unwrap();
        world.owner.drop_jobs();
        if operation < world.fs.operations() {
            continue;
        }
        let follower = world.follow();
        world.fs.crash_at(operation);
        let (states, shown) = follow_until_the_owner_dies(&world, &follower);
        if !world.fs.crashed() {
            continue;
        }
        let at = |state: &Contents| states.iter().rposition(|known| known == state);
        let before = at(&shown);
        // Both have died with the simulated machine's process; the files are what the page cache has.
        std::mem::forget(follower);
        world.owner.drop_jobs();
        world.follower.drop_jobs();
        world.fs = world.fs.process_crash();
        world.owner = Arc::new(SimEnv::new(77));
        world.follower = Arc::new(SimEnv::new(78));
        // With nobody writing.
        let follower = world.follow();
        let alone = contents(&follower.db());
        assert!(before.is_some(), "operation {operation}: the follower showed a state that never was");
        let is_created = alone.contains_key("other");
        assert!(!is_created || at(&alone) >= before, "operation {operation}: the follower went back");
        // Beside the owner that comes back.
        let db = world.open();
        assert!(
            contents(&db) == alone,
            "operation {operation}: the owner recovers what the follower had shown"
        );
        follower.catch_up().unwrap();
        assert!(contents(&follower.db()) == contents(&db), "operation {operation}");
        db.put("key0", "again").unwrap();
        db.flush().unwrap();
        follower.catch_up().unwrap();
        assert!(contents(&follower.db()) == contents(&db), "operation {operation}");
        drop(db);
    }
}

#[test]
fn a_follower_reads_large_values_from_blob_files() {
    let world = World::new(1);
    let db = world.open();
    let large = db.keyspace("large", KeyspaceOptions::new().blobs_from(Some(1024))).unwrap();
    let follower = world.follow();
    for round in 0..3_u8 {
        for number in 0..8_u8 {
            large.put([number], vec![16 * round + number; 3000]).unwrap();
        }
        db.flush().unwrap();
        db.sync().unwrap();
        world.advance(SECOND);
        follower.catch_up().unwrap();
        assert!(!world.files(".blob").is_empty());
        assert!(contents(&follower.db()) == contents(&db));
    }
}
