//! A second database that the change feed keeps equal.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lsm_dev::Random;
use lsm_engine::{
    BuiltInMerge, Change, ChangeBatch, ChangeKind, ChangePosition, ChangeSlot, Db, IngestedTable, Keyspace,
    KeyspaceOptions, Options, Slice, WriteBatch,
};

use super::load::Load;

const MEMORY: usize = 16 << 20;
const SLOT: &str = "mirror";
const SLOT_BYTES: u64 = 1 << 30;
/// Where the mirror keeps how far it is.
const POSITION: &str = "position";

pub(crate) struct Mirror {
    slot: ChangeSlot,
    db: Db,
    batches: u64,
}

impl Mirror {
    /// The database must have no data yet.
    pub(crate) fn new(db: &Db) -> Self {
        let slot = db.change_slot(SLOT, SLOT_BYTES).unwrap();
        let mirror = Options::new().memory(MEMORY).open(db.path().with_file_name("mirror")).unwrap();
        Self { slot, db: mirror, batches: 0 }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) fn close(self) {
        self.db.close().unwrap();
    }

    /// Follows until nothing is left. Nobody writes to the database meanwhile.
    pub(crate) fn catch_up(&mut self, source: &Db) {
        while self.follow(source, u64::MAX) > 0 {}
    }

    /// Applies some batches, as after a restart: from the position that was stored with the last of them.
    fn follow(&mut self, source: &Db, batches_max: u64) -> u64 {
        let mut changes = self.slot.changes().unwrap();
        let mut followed = 0;
        while followed < batches_max
            && let Some(batch) = changes.next_within(Duration::from_millis(20)).unwrap()
        {
            self.apply(source, &batch);
            followed += 1;
        }
        if let Some(position) = self.db.get(POSITION).unwrap() {
            self.slot.acknowledge(&ChangePosition::from_bytes(&position).unwrap()).unwrap();
        }
        self.batches += followed;
        followed
    }

    fn keyspace(&self, name: &str) -> Keyspace {
        self.db.existing_keyspace(name).unwrap().unwrap_or_else(|| {
            let options = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::add_u64()));
            self.db.keyspace(name, options).unwrap()
        })
    }

    fn apply(&self, source: &Db, batch: &ChangeBatch) {
        let mut writes = WriteBatch::new();
        for change in &batch.changes {
            add(&mut writes, &self.keyspace(&change.keyspace), source, change);
        }
        writes.put(POSITION, batch.position.to_bytes());
        self.db.write(writes).unwrap();
    }
}

/// Copies what the source holds now where a table was ingested. What came after it is told again by later changes.
fn copy(writes: &mut WriteBatch, keyspace: &Keyspace, source: &Db, name: &str, table: &IngestedTable) {
    for entry in super::load::keyspace(source, name).range::<&Slice>(&table.smallest..=&table.largest) {
        let (key, value) = entry.unwrap();
        writes.put_in(keyspace, key, value);
    }
}

fn add<'b>(
    writes: &'b mut WriteBatch,
    keyspace: &Keyspace,
    source: &Db,
    change: &Change,
) -> &'b mut WriteBatch {
    match &change.kind {
        ChangeKind::Put { key, value } => writes.put_in(keyspace, key, value),
        ChangeKind::PutExpiring { key, value, expires_at_micros } => {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            let left = Duration::from_micros(*expires_at_micros).saturating_sub(now);
            writes.put_expiring_in(keyspace, key, value, left)
        }
        ChangeKind::Delete { key } | ChangeKind::SingleDelete { key } => writes.delete_in(keyspace, key),
        ChangeKind::DeleteRange { start, end } => writes.delete_range_in(keyspace, start..end),
        ChangeKind::Merge { key, operand } => writes.merge_in(keyspace, key, operand),
        ChangeKind::Ingest { tables } => {
            for table in tables {
                copy(writes, keyspace, source, &change.keyspace, table);
            }
            writes
        }
        ChangeKind::KeyspaceCreated => writes,
        other => panic!("no load does this: {other:?}"),
    }
}

impl Load for Mirror {
    fn step(&mut self, db: &Db, random: &mut Random) {
        self.follow(db, 1 + random.below(5000) as u64);
    }

    fn check(&self, _: &Db) {}

    fn report(&self) -> String {
        format!("mirror: {} batches", self.batches)
    }
}
