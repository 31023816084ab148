//! Counters that are added to by merges, without a read.

use std::sync::Arc;

use lsm_dev::Random;
use lsm_engine::{BuiltInMerge, Db, Keyspace, KeyspaceOptions};

use super::load::{Load, keyspace};

const NAME: &str = "counters";
const COUNTERS: usize = 1000;

pub(crate) struct Counters {
    keyspace: Keyspace,
    model: Vec<u64>,
    adds: u64,
}

fn key(number: usize) -> String {
    format!("counter/{number:04}")
}

fn value(keyspace: &Keyspace, number: usize) -> u64 {
    let value = keyspace.get(key(number)).unwrap();
    value.map_or(0, |value| u64::from_le_bytes(value.as_ref().try_into().unwrap()))
}

impl Counters {
    pub(crate) fn new(db: &Db) -> Self {
        let options = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::add_u64()));
        Self { keyspace: db.keyspace(NAME, options).unwrap(), model: vec![0; COUNTERS], adds: 0 }
    }
}

impl Load for Counters {
    fn step(&mut self, _: &Db, random: &mut Random) {
        // A few are hot, and get long lists of operands.
        let number = if random.one_in(2) { random.below(5) } else { random.below(COUNTERS) };
        if random.one_in(20) {
            assert_eq!(value(&self.keyspace, number), self.model[number]);
            return;
        }
        let amount = random.below(1000) as u64;
        self.keyspace.merge(key(number), amount.to_le_bytes()).unwrap();
        self.model[number] += amount;
        self.adds += 1;
    }

    fn check(&self, db: &Db) {
        // The operator has a built-in name: it is known without being given.
        let keyspace = keyspace(db, NAME);
        for (number, expected) in self.model.iter().enumerate() {
            assert_eq!(value(&keyspace, number), *expected, "counter {number}");
        }
    }

    fn report(&self) -> String {
        format!("counters: {} merges", self.adds)
    }
}
