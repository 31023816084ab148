use std::collections::BTreeSet;
use std::path::Path;

use lsm_engine::{Db, Error, Result};
use lsm_sstable::{Table, TableOpen};

use crate::manifest::{edits, verify_log};
use crate::random::Draw;
use crate::reads::{View, Walk, rows};

use super::model::{State, difference, entries};
use super::world::{DIRECTORY, Faults, World};

/// A read may fail only because of a fault.
fn tolerate(result: Result<()>, faults: Faults) -> bool {
    result.map_err(|error| assert!(faults == Faults::Injected, "a read fails for no reason: {error}")).is_ok()
}

impl World {
    /// Starts an iterator over a keyspace, as it is now or as a snapshot sees it.
    pub(super) fn look(&mut self) {
        let snapshot = match self.snapshots.len() {
            count if count > 0 && self.random.one_in(2) => Some(&self.snapshots[self.random.below(count)]),
            _ => None,
        };
        let space = &self.spaces[self.random.below(self.spaces.len())];
        let state = snapshot.map_or(self.promises.now(), |(_, then)| then);
        let view = View { keyspace: space.keyspace(), snapshot: snapshot.map(|(snapshot, _)| snapshot) };
        self.walks.push(Walk::begin(&mut self.random, view, entries(state, space.number)));
        if self.walks.len() > 5 {
            let index = self.random.below(self.walks.len());
            self.walks.swap_remove(index);
        }
    }

    pub(super) fn walk(&mut self) {
        self.walks.retain_mut(|walk| tolerate(walk.go_on(&mut self.random), self.faults));
        let removed = |error: &Error| error.to_string().contains("entity not found");
        self.old_walks.retain_mut(|walk| {
            let result = walk.go_on(&mut self.random);
            if result.as_ref().is_err_and(removed) { false } else { tolerate(result, self.faults) }
        });
    }

    pub(super) fn check_readers(&mut self) {
        // Every wait ends, also in an error.
        assert_eq!(self.db.as_ref().map(Db::waits), self.db.as_ref().map(|_| Vec::new()));
        let keys: Vec<_> = (0..40).map(|_| self.random.key()).collect();
        for space in &self.spaces {
            let check = |snapshot, state| {
                let view = View { keyspace: space.keyspace(), snapshot };
                tolerate(view.compare(entries(state, space.number), &keys), self.faults);
            };
            check(None, self.promises.now());
            for (snapshot, then) in &self.snapshots {
                check(Some(snapshot), then);
            }
        }
    }

    /// Checks everything that readers see.
    pub(super) fn state(&self) -> State {
        let mut state = State::new();
        for space in &self.spaces {
            let rows = rows(space.keyspace().iter());
            let rows = rows.unwrap_or_else(|error| panic!("{}: {error}", space.name));
            state.insert(space.number, rows.into_iter().collect());
        }
        state.retain(|_, model| !model.is_empty());
        state
    }

    pub(super) fn check_state(&self, what: &str) {
        let (expected, found) = (self.promises.now(), self.state());
        assert!(*expected == found, "{what}: differ{}", difference(expected, &found));
    }

    pub(super) fn check_memory(&self) {
        let metrics = self.db().metrics();
        let held = metrics.memory_bytes();
        assert!(held <= self.memory as u64, "{held} bytes of {}: {metrics:?}", self.memory);
    }

    pub(super) fn check_log(&self) {
        verify_log(&self.fs, Path::new(DIRECTORY), &|| "the log that is left".to_owned());
    }

    /// The current manifest and the tables that it names.
    fn named(&self) -> (u64, BTreeSet<u64>) {
        let (current, edits) = edits(&self.fs, Path::new(DIRECTORY)).unwrap();
        let mut tables = BTreeSet::new();
        for edit in edits {
            tables.retain(|(keyspace, _)| !edit.dropped.contains(keyspace));
            tables.retain(|table| !edit.removed.contains(table));
            tables.extend(edit.added.iter().map(|table| (table.keyspace, table.number)));
        }
        (current.manifest, tables.into_iter().map(|(_, number)| number).collect())
    }

    /// Checks that no table is missing and no unneeded file is left.
    pub(super) fn check_files(&self) {
        let (manifest, tables) = self.named();
        let mut found = BTreeSet::new();
        for path in self.fs.paths() {
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(number) = name.strip_suffix(".sst") {
                found.insert(number.parse::<u64>().unwrap());
            } else if let Some(number) = name.strip_prefix("MANIFEST-") {
                assert_eq!(number.parse::<u64>().unwrap(), manifest, "an old manifest is left");
            }
            assert_ne!(name, "CURRENT.next");
        }
        assert_eq!(found, tables, "files of tables, and tables in the manifest");
    }

    /// Readers and failures may delay the removal of files until the next open.
    pub(super) fn check_files_when_idle(&mut self) {
        if self.faults == Faults::None
            && self.walks.is_empty()
            && self.old_walks.is_empty()
            && self.snapshots.is_empty()
        {
            self.env.0.run_until_idle();
            if !self.fs.crashed() {
                self.check_files();
            }
        }
    }

    pub(super) fn check_tables(&self) {
        for number in self.named().1 {
            let path = Path::new(DIRECTORY).join(format!("{number:06}.sst"));
            let table = Table::open(&self.fs, &path, None, &TableOpen::default()).unwrap();
            table.verify().unwrap();
        }
    }
}
