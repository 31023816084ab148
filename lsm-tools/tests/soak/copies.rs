//! Checkpoints while everything writes. Each is opened, read, and written to: it is a database of its own.

use std::fs;
use std::path::PathBuf;

use lsm_dev::Random;
use lsm_engine::{Db, Options};

use super::bank;
use super::load::{Load, pause};

/// Memory of a checkpoint that is opened.
const MEMORY: usize = 8 << 20;

pub(crate) struct Copies {
    directory: PathBuf,
    made: u64,
    linked_bytes: u64,
    copied_bytes: u64,
}

impl Copies {
    pub(crate) fn new(db: &Db) -> Self {
        let directory = db.path().with_file_name("checkpoint");
        Self { directory, made: 0, linked_bytes: 0, copied_bytes: 0 }
    }
}

impl Load for Copies {
    fn step(&mut self, db: &Db, _: &mut Random) {
        let checkpoint = db.checkpoint(&self.directory).unwrap();
        let branch = Options::new().memory(MEMORY).create_if_missing(false).open(&self.directory).unwrap();
        bank::check_database(&branch);
        branch.put("branch", "written").unwrap();
        branch.close().unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
        self.made += 1;
        self.linked_bytes += checkpoint.linked_bytes;
        self.copied_bytes += checkpoint.copied_bytes + checkpoint.log_bytes;
        pause();
    }

    fn check(&self, db: &Db) {
        assert_eq!(db.get("branch").unwrap(), None, "a write to a checkpoint is seen");
    }

    fn report(&self) -> String {
        format!(
            "checkpoints: {}, {} bytes linked, {} copied",
            self.made, self.linked_bytes, self.copied_bytes
        )
    }
}
