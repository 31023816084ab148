//! Large values in blob files: written, overwritten, read whole and in parts.

use lsm_dev::Random;
use lsm_engine::{Db, Keyspace, KeyspaceOptions};

use super::load::{Load, bytes, keyspace, pause};

const NAME: &str = "large";
const KEYS: usize = 40;
const BYTES_MAX: usize = 300_000;

pub(crate) struct Large {
    keyspace: Keyspace,
    /// The seed and the length of each value.
    model: Vec<Option<(u64, usize)>>,
    writes: u64,
    bytes: u64,
}

fn value(seed: u64, length: usize) -> Vec<u8> {
    bytes(&mut Random(seed), length)
}

fn key(number: usize) -> String {
    format!("large/{number:03}")
}

impl Large {
    pub(crate) fn new(db: &Db) -> Self {
        let options = KeyspaceOptions::new().blobs_from(4096);
        Self { keyspace: db.keyspace(NAME, options).unwrap(), model: vec![None; KEYS], writes: 0, bytes: 0 }
    }
}

impl Load for Large {
    fn step(&mut self, _: &Db, random: &mut Random) {
        let number = random.below(KEYS);
        match (random.below(10), self.model[number]) {
            (0..4, _) => {
                let (seed, length) = (random.next(), random.below(BYTES_MAX));
                self.keyspace.put(key(number), value(seed, length)).unwrap();
                self.model[number] = Some((seed, length));
                self.writes += 1;
                self.bytes += length as u64;
                pause();
            }
            (4, _) => {
                self.keyspace.delete(key(number)).unwrap();
                self.model[number] = None;
            }
            (5..8, Some((seed, length))) => {
                let start = random.below(length);
                let part = start..length.min(start + 1 + random.below(50_000));
                let found = self.keyspace.get_part(key(number), part.start as u64..part.end as u64).unwrap();
                assert!(found.unwrap() == value(seed, length)[part.clone()], "{part:?} of {number}");
            }
            (_, expected) => {
                let found = self.keyspace.get(key(number)).unwrap();
                let expected = expected.map(|(seed, length)| value(seed, length));
                assert!(found.as_deref() == expected.as_deref(), "large value {number}");
            }
        }
    }

    fn check(&self, db: &Db) {
        let keyspace = keyspace(db, NAME);
        for (number, expected) in self.model.iter().enumerate() {
            let expected = expected.map(|(seed, length)| value(seed, length));
            assert!(
                keyspace.get(key(number)).unwrap().as_deref() == expected.as_deref(),
                "large value {number}"
            );
        }
    }

    fn report(&self) -> String {
        format!("large: {} values of {} bytes", self.writes, self.bytes)
    }
}
