//! Slabs of entries that come as whole tables: bulk loads, and tables that are built beside the database and replace a slab.

use std::fs;
use std::path::PathBuf;

use lsm_dev::Random;
use lsm_engine::{Db, Ingest, Keyspace, KeyspaceOptions, TableBuilder};

use super::load::{Load, keyspace, pause};

const NAME: &str = "loaded";
const SLABS: usize = 40;
const ENTRIES: usize = 500;

pub(crate) struct Loaded {
    keyspace: Keyspace,
    table: PathBuf,
    /// The round in which each slab was loaded last, 0 for never.
    model: Vec<u64>,
    loads: u64,
}

fn key(slab: usize, entry: usize) -> String {
    format!("slab/{slab:03}/{entry:05}")
}

fn value(slab: usize, round: u64, entry: usize) -> String {
    format!("entry {entry} of slab {slab}, loaded in round {round}")
}

impl Loaded {
    pub(crate) fn new(db: &Db) -> Self {
        let keyspace = db.keyspace(NAME, KeyspaceOptions::new()).unwrap();
        Self { keyspace, table: db.path().with_file_name("loaded.sst"), model: vec![0; SLABS], loads: 0 }
    }

    fn entries(slab: usize, round: u64) -> impl Iterator<Item = (String, String)> {
        (0..ENTRIES).map(move |entry| (key(slab, entry), value(slab, round, entry)))
    }
}

impl Load for Loaded {
    fn step(&mut self, _: &Db, random: &mut Random) {
        let slab = random.below(SLABS);
        let round = self.model[slab] + 1;
        if random.one_in(2) {
            let mut load = self.keyspace.bulk_load().unwrap();
            for (key, value) in Self::entries(slab, round) {
                load.put(key, value).unwrap();
            }
            load.finish().unwrap();
        } else {
            let mut table = TableBuilder::create(&self.table).unwrap();
            for (key, value) in Self::entries(slab, round) {
                table.put(key, value).unwrap();
            }
            table.finish().unwrap();
            let ingest = Ingest::new().table(&self.table).replace(key(slab, 0)..key(slab + 1, 0));
            self.keyspace.ingest(ingest).unwrap();
            fs::remove_file(&self.table).unwrap();
        }
        self.model[slab] = round;
        self.loads += 1;
        let entry = random.below(ENTRIES);
        assert_eq!(self.keyspace.get(key(slab, entry)).unwrap().unwrap(), value(slab, round, entry));
        pause();
    }

    fn check(&self, db: &Db) {
        let mut found = keyspace(db, NAME).iter();
        for (slab, &round) in self.model.iter().enumerate().filter(|(_, round)| **round > 0) {
            for expected in Self::entries(slab, round) {
                let (key, value) = found.next().unwrap().unwrap();
                assert!(key == expected.0 && value == expected.1, "{key:?} is not as loaded");
            }
        }
        assert!(found.next().is_none());
    }

    fn report(&self) -> String {
        format!("loaded: {} bulk loads and ingested tables", self.loads)
    }
}
