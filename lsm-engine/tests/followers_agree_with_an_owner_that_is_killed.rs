//! Two processes: the owner of a database, which is killed again and again while it writes, flushes and compacts, and a
//! follower. What a step of the history writes depends on its number alone, and each step is one batch that also writes
//! its number. So every state that the follower shows can be compared with the model.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lsm_engine::{BuiltInMerge, Db, Durability, Follower, KeyspaceOptions, Options, Snapshot, WriteBatch};

const CHILD_DIRECTORY: &str = "LSM_FOLLOWED_DIRECTORY";
const CHILD_SEED: &str = "LSM_FOLLOWED_SEED";
const OTHER: &str = "other";
const STEP: &[u8] = b"step";

/// A number that depends on these alone.
fn mix(seed: u64, step: u64, what: u64) -> u64 {
    let mut z = seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone)]
enum Operation {
    Put(String, Vec<u8>),
    Delete(String),
    DeleteRange(String, String),
    Merge(String, String),
}

/// What a step writes: for the default keyspace or the other one.
fn operations(seed: u64, step: u64) -> Vec<(bool, Operation)> {
    let key = |what| format!("key{:04}", mix(seed, step, what) % 400);
    let count = 1 + mix(seed, step, 0) % 6;
    let operation = |index: u64| {
        let at = 10 * (index + 1);
        let operation = match mix(seed, step, at) % 20 {
            0 => {
                let (one, other) = (key(at + 1), key(at + 2));
                Operation::DeleteRange(one.clone().min(other.clone()), one.max(other))
            }
            1..4 => Operation::Delete(key(at + 1)),
            4..8 => Operation::Merge(key(at + 1), format!("{step}")),
            _ => {
                let bytes = mix(seed, step, at + 3) as usize % 1500;
                let mut value = format!("step {step} ").into_bytes();
                value.resize(value.len() + bytes, b'.');
                Operation::Put(key(at + 1), value)
            }
        };
        (mix(seed, step, at + 4).is_multiple_of(3), operation)
    };
    (0..count).map(operation).collect()
}

fn append() -> Arc<BuiltInMerge> {
    Arc::new(BuiltInMerge::append(","))
}

fn options() -> Options {
    Options::new().memory(2 << 20).memtable_bytes(100_000).merge_operator(append())
}

/// The state after each step, by keyspace.
#[derive(Clone, Default)]
struct Model {
    step: u64,
    entries: [BTreeMap<Vec<u8>, Vec<u8>>; 2],
}

impl Model {
    fn go_to(&mut self, seed: u64, step: u64) {
        while self.step < step {
            self.step += 1;
            for (is_other, operation) in operations(seed, self.step) {
                let entries = &mut self.entries[usize::from(is_other)];
                match operation {
                    Operation::Put(key, value) => drop(entries.insert(key.into_bytes(), value)),
                    Operation::Delete(key) => drop(entries.remove(key.as_bytes())),
                    Operation::DeleteRange(from, to) => {
                        entries.retain(|key, _| **key < *from.as_bytes() || **key >= *to.as_bytes());
                    }
                    Operation::Merge(key, operand) => {
                        let value = entries.entry(key.into_bytes()).or_default();
                        if !value.is_empty() {
                            value.push(b',');
                        }
                        value.extend_from_slice(operand.as_bytes());
                    }
                }
            }
        }
    }
}

fn step_of(value: Option<lsm_engine::Slice>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
}

/// Not a test of its own: the test below runs it in another process.
#[test]
fn child_that_owns_the_database_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let seed: u64 = std::env::var(CHILD_SEED).unwrap().parse().unwrap();
    let db = options().open(Path::new(&directory)).unwrap();
    let other = db.keyspace(OTHER, KeyspaceOptions::new().merge_operator(append())).unwrap();
    let mut step = step_of(db.get(STEP).unwrap());
    loop {
        step += 1;
        let mut batch = WriteBatch::new();
        for (is_other, operation) in operations(seed, step) {
            match (is_other, operation) {
                (false, Operation::Put(key, value)) => batch.put(key, value),
                (false, Operation::Delete(key)) => batch.delete(key),
                (false, Operation::DeleteRange(from, to)) => batch.delete_range(from..to),
                (false, Operation::Merge(key, operand)) => batch.merge(key, operand),
                (true, Operation::Put(key, value)) => batch.put_in(&other, key, value),
                (true, Operation::Delete(key)) => batch.delete_in(&other, key),
                (true, Operation::DeleteRange(from, to)) => batch.delete_range_in(&other, from..to),
                (true, Operation::Merge(key, operand)) => batch.merge_in(&other, key, operand),
            };
        }
        batch.put(STEP, step.to_string());
        let durability =
            if mix(seed, step, 3).is_multiple_of(50) { Durability::Sync } else { Durability::Buffered };
        db.write_with(batch, durability).unwrap();
        eprintln!("acknowledged {step}");
        match mix(seed, step, 5) % 400 {
            0 => db.flush().unwrap(),
            1 => db.compact_range::<&str>(..).unwrap(),
            2 => other.compact_range("key0100".."key0200").unwrap(),
            _ => {}
        }
    }
}

struct Owner {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Owner {
    fn spawn(directory: &Path, seed: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_owns_the_database_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory)
            .env(CHILD_SEED, seed.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next step that it says is acknowledged.
    fn next(&mut self) -> u64 {
        let line = self.lines.next().expect("the owner has ended").unwrap();
        let step = line.strip_prefix("acknowledged ").unwrap_or_else(|| panic!("the owner says: {line}"));
        step.parse().unwrap()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SIGKILL: it cannot handle it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn entries(iter: lsm_engine::Iter) -> Entries {
    iter.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
        .filter(|(key, _)| key != STEP)
        .collect()
}

/// Compares everything that a snapshot shows with the model. Returns its step.
fn check(db: &Db, snapshot: &Snapshot, model: &mut Model, seed: u64) -> u64 {
    let step = step_of(snapshot.get(STEP).unwrap());
    model.go_to(seed, step);
    assert_eq!(model.step, step, "seed {seed}: the follower went back");
    assert!(entries(snapshot.iter()) == model.entries[0], "seed {seed} step {step}: the default keyspace");
    let other = db.existing_keyspace(OTHER).unwrap();
    let other = other.map(|other| entries(snapshot.range_in::<&[u8]>(&other, ..))).unwrap_or_default();
    assert!(other == model.entries[1], "seed {seed} step {step}: the other keyspace");
    for key in ["key0007", "key0123", "key0399"] {
        let found = snapshot.get(key).unwrap().map(|value| value.to_vec());
        assert_eq!(found.as_ref(), model.entries[0].get(key.as_bytes()), "seed {seed} step {step} {key}");
    }
    step
}

#[test]
fn a_follower_shows_prefixes_of_what_an_owner_wrote_that_is_killed_again_and_again() {
    let rounds: u64 = std::env::var("LSM_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    let seed = 20_261_201;
    let directory = tempfile::tempdir().unwrap();
    let mut owner = Owner::spawn(directory.path(), seed);
    owner.next();
    let follow = || Follower::open_with(directory.path(), options().memory(32 << 20)).unwrap();
    let mut follower = follow();
    let mut model = Model::default();
    let mut kept: Vec<(Snapshot, Entries)> = Vec::new();
    let (mut acknowledged, mut checks) = (0, 0);
    for round in 0..rounds {
        let lines = 1 + mix(seed, round, 1) % 600;
        for line in 0..lines {
            acknowledged = owner.next();
            if mix(seed, round, 100 + line).is_multiple_of(40) {
                let progress = follower.catch_up().unwrap();
                assert_eq!(progress.lag, 0);
                let (db, snapshot) = (follower.db(), follower.snapshot().unwrap());
                assert_eq!(snapshot.sequence(), progress.position.sequence());
                let step = check(&db, &snapshot, &mut model, seed);
                assert!(
                    step >= acknowledged,
                    "seed {seed}: step {acknowledged} was acknowledged, not {step}"
                );
                checks += 1;
                if kept.len() < 4 {
                    let shown = entries(snapshot.iter());
                    kept.push((snapshot, shown));
                } else {
                    let (snapshot, shown) = kept.swap_remove(line as usize % kept.len());
                    assert!(entries(snapshot.iter()) == shown, "seed {seed}: a snapshot has changed");
                }
            }
        }
        drop(owner);
        // With nobody there, and beside the next owner from its first moment on.
        follower.catch_up().unwrap();
        let step = check(&follower.db(), &follower.snapshot().unwrap(), &mut model, seed);
        assert!(step >= acknowledged);
        owner = Owner::spawn(directory.path(), seed);
        for _ in 0..20 {
            follower.catch_up().unwrap();
            check(&follower.db(), &follower.snapshot().unwrap(), &mut model, seed);
        }
        if round % 4 == 3 {
            follower = follow();
        }
    }
    drop((kept, follower, owner));
    let db = options().open(directory.path()).unwrap();
    let snapshot = db.snapshot().unwrap();
    assert!(check(&db, &snapshot, &mut model, seed) >= acknowledged);
    writeln!(std::io::stdout(), "{checks} checks up to step {}", model.step).unwrap();
}
