//! Keeps a second database equal to a first one, by the change feed: first what a snapshot has, then every change.
//!
//! Run it with `cargo run --release -p lsm-engine --example replica`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lsm_engine::{
    Change, ChangeKind, ChangePosition, Db, ErrorKind, Keyspace, KeyspaceOptions, Result, WriteBatch,
};

/// The keyspace of the replica in which it notes how far it is.
const NOTES: &str = "replica/notes";
const POSITION: &[u8] = b"position";
const SLOT: &str = "replica";
/// How much history the first database keeps for the replica.
const HISTORY_BYTES_MAX: u64 = 1 << 30;

/// A second database that follows a first one.
#[expect(clippy::disallowed_methods, reason = "an application has the clock of its system")]
fn time_until(unix_micros: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_micros(unix_micros).saturating_sub(now)
}

struct Replica {
    db: Db,
    notes: Keyspace,
}

impl Replica {
    fn new(db: Db) -> Result<Self> {
        let notes = db.keyspace(NOTES, KeyspaceOptions::new())?;
        Ok(Self { db, notes })
    }

    /// Catches up with the first database, from wherever the replica is. Returns the number of batches.
    fn catch_up(&self, first: &Db) -> Result<usize> {
        // The slot comes before the snapshot, so that no change between the two is missed.
        let slot = first.change_slot(SLOT, HISTORY_BYTES_MAX)?;
        let from = match self.notes.get(POSITION)? {
            Some(position) => ChangePosition::from_bytes(&position)?,
            None => self.copy(first)?,
        };
        let mut changes = match first.changes(&from) {
            // It was away too long, or the first database has lost writes that the replica has.
            Err(error) if matches!(error.kind(), ErrorKind::HistoryGone | ErrorKind::HistoryDiverged) => {
                first.changes(&self.copy(first)?)?
            }
            changes => changes?,
        };
        let mut batches = 0;
        while let Some(batch) = changes.next_within(Duration::from_millis(1500))? {
            let mut write = WriteBatch::new();
            for change in &batch.changes {
                self.apply(change, &mut write)?;
            }
            // The position is written with the batch: after a crash the replica goes on behind it.
            write.put_in(&self.notes, POSITION, batch.position.to_bytes());
            self.db.write(write)?;
            batches += 1;
        }
        // What the slot lets go must be durable here.
        self.db.sync()?;
        slot.acknowledge(&changes.position())?;
        Ok(batches)
    }

    /// Copies all that the first database has now. Returns the position of the copy.
    fn copy(&self, first: &Db) -> Result<ChangePosition> {
        let snapshot = first.snapshot()?;
        let position = snapshot.change_position()?;
        for name in self.db.keyspaces().into_iter().filter(|name| name != NOTES) {
            self.keyspace(&name)?.clear()?;
        }
        for name in first.keyspaces() {
            let (from, to) = (first.existing_keyspace(&name)?, self.keyspace(&name)?);
            let Some(from) = from else { continue };
            for entry in snapshot.range_in::<&[u8]>(&from, ..) {
                let (key, value) = entry?;
                to.put(key, value)?;
            }
        }
        self.notes.put(POSITION, position.to_bytes())?;
        Ok(position)
    }

    fn keyspace(&self, name: &str) -> Result<Keyspace> {
        if name == "default" {
            Ok(self.db.default_keyspace())
        } else {
            self.db.keyspace(name, KeyspaceOptions::new())
        }
    }

    fn apply(&self, change: &Change, write: &mut WriteBatch) -> Result<()> {
        let keyspace = || self.keyspace(&change.keyspace);
        match &change.kind {
            ChangeKind::Put { key, value } => {
                write.put_in(&keyspace()?, key, value);
            }
            ChangeKind::PutExpiring { key, value, expires_at_micros } => {
                write.put_expiring_in(&keyspace()?, key, value, time_until(*expires_at_micros));
            }
            ChangeKind::Delete { key } | ChangeKind::SingleDelete { key } => {
                write.delete_in(&keyspace()?, key);
            }
            ChangeKind::DeleteRange { start, end } => {
                write.delete_range_in(&keyspace()?, start..end);
            }
            ChangeKind::Merge { key, operand } => {
                write.merge_in(&keyspace()?, key, operand);
            }
            // These have no place in a batch, but may be done twice: a crash now has them told again.
            ChangeKind::Clear => keyspace()?.clear()?,
            ChangeKind::KeyspaceCreated => drop(keyspace()?),
            ChangeKind::KeyspaceDropped => {
                if self.db.existing_keyspace(&change.keyspace)?.is_some() {
                    self.db.drop_keyspace(&change.keyspace)?;
                }
            }
            // After an ingest a replica reads the range of its tables from the first database.
            kind => panic!("the first database does not do this: {kind:?}"),
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let first = Db::open(path("first"))?;
    let users = first.keyspace("users", KeyspaceOptions::new())?;
    for number in 0..10_000 {
        users.put(format!("user/{number:05}"), format!("name {number}"))?;
    }
    let replica = Replica::new(Db::open(path("replica"))?)?;
    println!("copied, and {} batches since", replica.catch_up(&first)?);

    first.put("greeting", "hello")?;
    users.delete_range("user/00000".."user/05000")?;
    let mut batch = WriteBatch::new();
    batch.put_in(&users, "user/new", "Ada").delete_in(&users, "user/09999");
    first.write(batch)?;
    first.keyspace("orders", KeyspaceOptions::new())?.put("order/1", "tea")?;
    first.sync()?;
    println!("{} batches", replica.catch_up(&first)?);

    // Both are away for a while; the slot keeps the history meanwhile.
    drop((replica, users));
    first.put("greeting", "good evening")?;
    first.close()?;
    let first = Db::open(path("first"))?;
    let replica = Replica::new(Db::open(path("replica"))?)?;
    println!("{} batches after a reopen", replica.catch_up(&first)?);

    for name in first.keyspaces() {
        let (one, other) = (first.existing_keyspace(&name)?, replica.db.existing_keyspace(&name)?);
        let (Some(one), Some(other)) = (one, other) else { panic!("{name} is missing") };
        let equal = one.iter().zip(other.iter()).all(|(one, other)| one.ok() == other.ok());
        assert!(equal && one.count::<&[u8]>(..)? == other.count::<&[u8]>(..)?);
        println!("keyspace {name}: {} entries, equal", one.count::<&[u8]>(..)?);
    }
    Ok(())
}
