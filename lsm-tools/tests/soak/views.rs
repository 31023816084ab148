//! Snapshots that live for a while, and read the same at their end as at their beginning.

use std::hash::{DefaultHasher, Hash, Hasher};

use lsm_dev::Random;
use lsm_engine::{Db, Snapshot};

use super::bank;
use super::load::{Load, keyspace};

pub(crate) struct Views {
    /// A snapshot, the keyspace that was read, and what the read gave.
    held: Vec<(Snapshot, &'static str, u64)>,
    made: u64,
}

impl Views {
    pub(crate) fn new() -> Self {
        Self { held: Vec::new(), made: 0 }
    }
}

fn digest(db: &Db, snapshot: &Snapshot, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for entry in snapshot.range_in::<&[u8]>(&keyspace(db, name), ..) {
        let (key, value) = entry.unwrap();
        (key.as_ref(), value.as_ref()).hash(&mut hasher);
    }
    hasher.finish()
}

impl Load for Views {
    fn step(&mut self, db: &Db, random: &mut Random) {
        if self.held.len() < 4 {
            let snapshot = db.snapshot().unwrap().labeled("soak");
            let name = ["map", "counters", "sessions"][random.below(3)];
            bank::check_total(snapshot.range_in::<&[u8]>(&keyspace(db, "accounts"), ..));
            let seen = digest(db, &snapshot, name);
            self.held.push((snapshot, name, seen));
            self.made += 1;
        }
        let (snapshot, name, seen) = &self.held[random.below(self.held.len())];
        assert_eq!(digest(db, snapshot, name), *seen, "a snapshot of {name} has changed");
        if random.one_in(4) {
            self.held.remove(0);
        }
    }

    fn stopped(&mut self) {
        self.held.clear();
    }

    fn check(&self, _: &Db) {}

    fn report(&self) -> String {
        format!("views: {} snapshots", self.made)
    }
}
