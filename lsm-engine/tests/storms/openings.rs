use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::compaction_policies::CompactionPolicy;
use lsm_engine::env::Env;
use lsm_engine::{Error, FilterPolicy, KeyspaceOptions, Options};
use lsm_memtable::{BPlusMemtable, MemtableFactory, ReferenceMemtable, SkipListMemtable};
use lsm_sstable::BloomFilter;

use crate::fused::Fused;
use crate::random::{Draw, lists};
use crate::short::Short;

use super::faults::{AT_CLOSE, AT_OPENING};
use super::world::{DIRECTORY, Faults, World, wants_memory};

impl World {
    pub(super) fn keyspace_options(&mut self) -> KeyspaceOptions {
        let options = self.options_without_filter();
        let options = match self.random.below(6) {
            0..3 if self.purges => options.purge_within(Duration::from_secs(10)),
            3 => options.purge_within(None),
            _ => options,
        };
        match &self.gardener {
            Some(gardener) if !self.random.one_in(4) => options.compaction_filter(Arc::clone(gardener) as _),
            _ => options,
        }
    }

    /// A policy that all keyspaces of this world may have.
    pub(super) fn policy(&mut self) -> Arc<dyn CompactionPolicy> {
        loop {
            let policy = self.random.policy();
            if !self.purges || !policy.drops_data() {
                return policy;
            }
        }
    }

    fn options_without_filter(&mut self) -> KeyspaceOptions {
        if self.random.one_in(4) {
            return KeyspaceOptions::new().merge_operator(Arc::new(lists()));
        }
        let policy = self.policy();
        let options = self.random.keyspace_options().compaction(policy);
        let options = options.change_compaction(true).change_prefix_extractor(true);
        let memtable: Arc<dyn MemtableFactory> = match self.random.below(5) {
            0 => Arc::new(SkipListMemtable::default()),
            1 => Arc::new(BPlusMemtable::default()),
            2 => return options,
            // Only this memtable counts memory so finely that it is full after a few dozen entries.
            _ => Arc::new(ReferenceMemtable),
        };
        let memtable: Arc<dyn MemtableFactory> = Arc::new(Short(memtable, Arc::clone(&self.shortage)));
        if !self.random.one_in(2) {
            return options.memtable(memtable);
        }
        let (policy, fuse) = (self.policy(), || Arc::clone(&self.fuse));
        let filter: Arc<dyn FilterPolicy> = Arc::new(Fused(BloomFilter::new(10.0), fuse()));
        let options = options.memtable(Arc::new(Fused(memtable, fuse()))).filter(Some(filter));
        options.compaction(Arc::new(Fused(policy, fuse()))).merge_operator(Arc::new(Fused(lists(), fuse())))
    }

    /// A small memory may not fit the existing data; with `generous` it always does.
    pub(super) fn options(&mut self, generous: bool) -> Options {
        let keyspace = self.keyspace_options();
        let random = &mut self.random;
        self.memory = if generous { 16 << 20 } else { (1 << 20) << random.below(3) };
        let mut options = Options::new()
            .memory(self.memory)
            .vfs(Arc::new(self.fs.clone()))
            .env(Arc::clone(&self.env) as Arc<dyn Env>)
            .keyspace(keyspace);
        match random.below(4) {
            0 => options = options.memtable_bytes(70_000),
            1 => options = options.memtable_bytes(2000 + random.below(5000)),
            2 => options = options.memtable_bytes(2000 + random.below(50_000)),
            _ => {}
        }
        if random.one_in(2) {
            options = options.log_segment_bytes(4096 << random.below(6));
        }
        if !generous && random.one_in(2) {
            options = options.cache_bytes(2048 << random.below(7));
        }
        if self.snapshots_expire {
            options = options.snapshot_age_max(Duration::from_secs(1));
        }
        options.statistics(self.random.one_in(2))
    }

    /// Opens the files on the disk. Returns `false` if a crash happened meanwhile.
    pub(super) fn open(&mut self) -> bool {
        if self.random.one_in(8) {
            self.open_read_only();
        }
        let mut generous = false;
        let db = loop {
            let fired = self.fired();
            let options = self.options(generous);
            let result = self.risking(|| options.open(DIRECTORY));
            if self.fs.crashed() {
                return false;
            }
            match result {
                Ok(db) => break db,
                Err(error) if !generous && wants_memory(&error) => generous = true,
                Err(error) => {
                    assert!(self.fired() > fired, "open: {error}");
                    self.note(&format!("failed opening: {error}"));
                    self.clear_faults();
                    self.restart();
                }
            }
        };
        self.fs.crash_at(u64::MAX);
        self.db = Some(db);
        self.heal();
        if self.faults == Faults::None {
            self.check_files();
        }
        for index in 0..self.spaces.len() {
            let (name, number) = (self.spaces[index].name.clone(), self.spaces[index].number);
            if number != 0 && self.random.one_in(2) {
                self.configure(index);
            }
            let space = &mut self.spaces[index];
            if space.handle.is_none() {
                space.handle = self.db.as_ref().unwrap().existing_keyspace(&name).unwrap();
            }
            assert!(space.handle.is_some(), "keyspace {name} is lost");
        }
        true
    }

    /// Opens the database read-only. That must leave the disk as it is.
    fn open_read_only(&mut self) {
        if self.fs.read_all(&Path::new(DIRECTORY).join("CURRENT")).is_err() {
            return;
        }
        let disk = self.fs.fingerprint();
        let result = self.options(false).read_only(true).open(DIRECTORY);
        if let Err(error) = result {
            assert!(wants_memory(&error) || self.may_fail(), "open read-only: {error}");
        }
        assert_eq!(self.fs.fingerprint(), disk, "changed by a reader");
    }

    /// Opens a keyspace with other options.
    pub(super) fn configure(&mut self, index: usize) {
        let options = self.keyspace_options();
        match self.risking(|| self.db().keyspace(&self.spaces[index].name, options)) {
            Ok(handle) => self.spaces[index].handle = Some(handle),
            Err(error) => {
                assert!(
                    matches!(error, Error::OptionsMismatch(_)) || self.may_fail(),
                    "open keyspace {}: {error}",
                    self.spaces[index].name
                );
            }
        }
    }

    pub(super) fn configure_any(&mut self) {
        let index = self.random.below(self.spaces.len());
        if self.spaces[index].number != 0 {
            self.configure(index);
        }
    }

    /// Reopens with or without a crash.
    pub(super) fn reopen_somehow(&mut self) {
        match self.random.below(4) {
            0 => self.reopen(true),
            1 => self.reopen(false),
            2 => self.recover(None, false),
            _ => self.recover(None, true),
        }
    }

    /// Closes or only drops the database, and opens it with other options.
    pub(super) fn reopen(&mut self, close: bool) {
        match self.random.below(4) {
            0 => {}
            1 => self.inject_faults(&AT_CLOSE),
            _ => self.heal(),
        }
        self.note(if close { "close" } else { "drop" });
        self.snapshots.clear();
        self.let_go();
        let db = self.db.take().unwrap();
        if !close || self.random.one_in(2) {
            self.transactions.clear();
        }
        let ended_well = if close {
            let result = self.risking(|| db.close());
            self.check_closed_transactions();
            if let Err(error) = &result {
                assert!(self.may_fail() || wants_memory(error), "close: {error}");
            }
            result.is_ok()
        } else {
            self.risking(|| drop(db));
            !self.may_fail()
        };
        if self.fs.crashed() {
            return self.recover(None, false);
        }
        self.hear(true);
        self.tickets.clear();
        if ended_well {
            self.promises.all_durable();
        }
        // Iterators may outlive the database.
        self.walk();
        self.old_walks = std::mem::take(&mut self.walks);
        self.clear_faults();
        self.restart();
        self.check_log();
        if self.random.one_in(3) {
            self.crash_within(80);
        }
        if self.random.one_in(3) {
            self.inject_faults(&AT_OPENING);
        }
        if self.open() {
            if self.promises.doubtful_count() == 0 {
                self.check_state("reopened");
            } else {
                let found = self.state();
                self.promises.recover(found, false, None);
            }
        } else {
            self.recover(None, false);
        }
    }
}
