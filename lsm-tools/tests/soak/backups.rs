//! Backups while everything writes: made, verified, restored, pruned.

use std::fs;
use std::path::PathBuf;

use lsm_dev::Random;
use lsm_engine::{Backup, Db, DirectoryStore, Options};

use super::bank;
use super::load::{Load, pause};

/// Memory of a backup that is restored and opened.
const MEMORY: usize = 8 << 20;
const GENERATIONS: usize = 4;

pub(crate) struct Backups {
    backup: Backup,
    restored: PathBuf,
    made: u64,
    bytes: u64,
    new_bytes: u64,
}

impl Backups {
    pub(crate) fn new(db: &Db) -> Self {
        let store = DirectoryStore::create(db.path().with_file_name("backups")).unwrap();
        let restored = db.path().with_file_name("restored");
        Self { backup: Backup::open(store).unwrap(), restored, made: 0, bytes: 0, new_bytes: 0 }
    }
}

impl Load for Backups {
    fn step(&mut self, db: &Db, random: &mut Random) {
        let generation = self.backup.create(db).unwrap();
        self.made += 1;
        self.bytes += generation.bytes;
        self.new_bytes += generation.new_bytes;
        self.backup.prune(GENERATIONS).unwrap();
        if random.one_in(3) {
            let report = self.backup.verify().unwrap();
            assert!(report.damage.is_empty(), "{report:?}");
        }
        let generations = self.backup.list().unwrap().generations;
        let any = &generations[random.below(generations.len())];
        self.backup.restore(any.number, &self.restored).unwrap();
        let restored = Options::new().memory(MEMORY).create_if_missing(false).open(&self.restored).unwrap();
        bank::check_database(&restored);
        restored.close().unwrap();
        fs::remove_dir_all(&self.restored).unwrap();
        pause();
    }

    fn check(&self, _: &Db) {}

    fn report(&self) -> String {
        format!("backups: {} of {} bytes, {} of them new", self.made, self.bytes, self.new_bytes)
    }
}
