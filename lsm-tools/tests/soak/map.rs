//! A sorted map with a prefix of its own: puts, batches, deletes, range deletes, updates, reads and scans, beside a model.

use std::collections::BTreeMap;

use lsm_dev::Random;
use lsm_engine::{Db, Keyspace, KeyspaceOptions, WriteBatch};

use super::load::{Load, bytes, equal, keyspace};

const NAME: &str = "map";
const KEYS: usize = 50_000;

pub(crate) struct Map {
    keyspace: Keyspace,
    number: u64,
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    writes: u64,
    reads: u64,
}

impl Map {
    pub(crate) fn new(db: &Db, number: u64) -> Self {
        let keyspace = db.keyspace(NAME, KeyspaceOptions::new()).unwrap();
        Self { keyspace, number, model: BTreeMap::new(), writes: 0, reads: 0 }
    }

    fn key(&self, index: usize) -> Vec<u8> {
        format!("{}/{index:08}", self.number).into_bytes()
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.keyspace.put(&key, &value).unwrap();
        self.model.insert(key, value);
    }

    fn write_batch(&mut self, db: &Db, first: usize, random: &mut Random) {
        let mut batch = WriteBatch::new();
        for index in first..first + 1 + random.below(20) {
            let (key, value) = (self.key(index), bytes(random, 100));
            batch.put_in(&self.keyspace, &key, &value);
            self.model.insert(key, value);
        }
        db.write(batch).unwrap();
    }

    fn delete_range(&mut self, first: usize, random: &mut Random) {
        let (start, end) = (self.key(first), self.key(first + 1 + random.below(200)));
        self.keyspace.delete_range(&start[..]..&end).unwrap();
        let gone: Vec<_> = self.model.range(start..end).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.model.remove(&key);
        }
    }

    fn scan(&self, first: usize, random: &mut Random) {
        let (start, end) = (self.key(first), self.key(first + 100));
        let expected = self.model.range(start.clone()..end.clone());
        let found = self.keyspace.range(&start[..]..&end).map(Result::unwrap);
        if random.one_in(2) {
            assert!(equal(found, expected));
        } else {
            assert!(equal(found.rev(), expected.rev()));
        }
    }
}

impl Load for Map {
    fn step(&mut self, db: &Db, random: &mut Random) {
        let index = random.below(KEYS);
        let key = self.key(index);
        match random.below(20) {
            0..8 => self.put(key, bytes(random, 100)),
            8..10 => self.write_batch(db, index, random),
            10 | 11 => {
                self.keyspace.delete(&key).unwrap();
                self.model.remove(&key);
            }
            12 if random.one_in(8) => self.delete_range(index, random),
            13 => {
                let taken = self.keyspace.take(&key).unwrap();
                assert_eq!(taken.as_deref(), self.model.remove(&key).as_deref());
            }
            14 => self.scan(index, random),
            _ => {
                self.reads += 1;
                assert_eq!(
                    self.keyspace.get(&key).unwrap().as_deref(),
                    self.model.get(&key).map(Vec::as_slice)
                );
                return;
            }
        }
        self.writes += 1;
    }

    fn check(&self, db: &Db) {
        let found = keyspace(db, NAME).prefix(format!("{}/", self.number)).map(Result::unwrap);
        assert!(equal(found, self.model.iter()), "map {} is not as written", self.number);
    }

    fn report(&self) -> String {
        format!(
            "map {}: {} writes and scans, {} gets, {} keys",
            self.number,
            self.writes,
            self.reads,
            self.model.len()
        )
    }
}
