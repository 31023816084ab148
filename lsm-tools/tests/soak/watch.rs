//! Looks at the database from outside while it runs: memory, errors, disk.

use std::fs;

use lsm_engine::{Db, Health, Metrics};

pub(crate) struct Watch {
    memory: usize,
    most_memory: u64,
    most_disk: u64,
    looks: u64,
}

fn bytes_on_disk(db: &Db) -> u64 {
    let entries = fs::read_dir(db.path()).unwrap();
    // A file may go while the directory is read.
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

impl Watch {
    pub(crate) fn new(memory: usize) -> Self {
        Self { memory, most_memory: 0, most_disk: 0, looks: 0 }
    }

    /// Panics if the database takes more memory than it may, or has failed.
    pub(crate) fn look(&mut self, db: &Db) {
        let metrics: Metrics = db.metrics();
        assert!(
            metrics.memory_bytes() <= self.memory as u64,
            "{} bytes: {metrics:?}",
            metrics.memory_bytes()
        );
        assert_eq!(metrics.background_error, None);
        assert!(!matches!(db.health(), Health::ReadOnly(_)));
        self.most_memory = self.most_memory.max(metrics.memory_bytes());
        self.most_disk = self.most_disk.max(bytes_on_disk(db));
        self.looks += 1;
    }

    pub(crate) fn print(&self, db: &Db) {
        let metrics = db.metrics();
        println!("memory: {} of {} bytes at most, in {} looks", self.most_memory, self.memory, self.looks);
        println!("disk: {} bytes at most, {} at the end", self.most_disk, bytes_on_disk(db));
        println!(
            "{} flushes, {} compactions, write amplification {:.1}, writes waited {} ms",
            metrics.flushes,
            metrics.compactions,
            metrics.write_amplification(),
            metrics.stall_micros / 1000
        );
    }
}
