use std::collections::BTreeSet;
use std::path::Path;

use lsm_engine::{Db, Error, ErrorKind, Result};
use lsm_sstable::{Table, TableOpen};

use crate::manifest::{edits, verify_log};
use crate::random::Draw;
use crate::reads::{Model, View, Walk, rows};

use super::model::{State, difference, entries, normalized, same};
use super::world::{DIRECTORY, Faults, World};

impl World {
    /// A read may fail only because of a fault, or because what it reads has expired. Returns `false` then.
    fn tolerate(&mut self, result: Result<()>) -> bool {
        let Err(error) = result else { return true };
        if error.kind() == ErrorKind::SnapshotExpired {
            self.note_expired(&error);
        } else {
            assert!(self.faults == Faults::Injected, "a read fails for no reason: {error}");
        }
        false
    }

    /// What a keyspace holds, compared with the model of it. `None` if it cannot be read.
    fn seen(&mut self, index: usize, snapshot: Option<usize>) -> Option<Model> {
        let space = &self.spaces[index];
        let (state, snapshot) = match snapshot {
            Some(index) => (&self.snapshots[index].1, Some(&self.snapshots[index].0)),
            None => (self.promises.now(), None),
        };
        let found = match snapshot {
            Some(snapshot) => rows(snapshot.range_in::<&[u8]>(space.keyspace(), ..)),
            None => rows(space.keyspace().iter()),
        };
        let found = found.map(|rows| -> Model { rows.into_iter().collect() }).inspect(|found| {
            let expected = entries(state, space.number);
            assert!(
                normalized(found) == normalized(expected),
                "{}: {found:?} is not {expected:?}",
                space.name
            );
        });
        let (found, result) = found.map_or_else(|error| (None, Err(error)), |found| (Some(found), Ok(())));
        self.tolerate(result);
        found
    }

    /// Takes a snapshot. What it sees does not change from now on, filters or not.
    pub(super) fn take_snapshot(&mut self) {
        self.snapshots.push((self.db().snapshot().unwrap(), self.promises.now().clone()));
        let snapshot = self.snapshots.len() - 1;
        let mut exact = State::new();
        for index in 0..self.spaces.len() {
            let Some(found) = self.seen(index, Some(snapshot)) else {
                self.snapshots.pop();
                return;
            };
            exact.insert(self.spaces[index].number, found);
        }
        self.snapshots[snapshot].1 = exact;
    }

    /// Starts an iterator over a keyspace, as it is now or as a snapshot sees it.
    pub(super) fn look(&mut self) {
        let snapshot = match self.snapshots.len() {
            count if count > 0 && self.random.one_in(2) => Some(self.random.below(count)),
            _ => None,
        };
        let index = self.random.below(self.spaces.len());
        let Some(model) = self.seen(index, snapshot) else { return };
        let snapshot = snapshot.map(|index| &self.snapshots[index].0);
        let view = View { keyspace: self.spaces[index].keyspace(), snapshot };
        self.walks.push(Walk::begin(&mut self.random, view, &model));
        if self.walks.len() > 5 {
            let index = self.random.below(self.walks.len());
            self.walks.swap_remove(index);
        }
    }

    pub(super) fn walk(&mut self) {
        for mut walk in std::mem::take(&mut self.walks) {
            let result = walk.go_on(&mut self.random);
            if self.tolerate(result) {
                self.walks.push(walk);
            }
        }
        let removed = |error: &Error| error.to_string().contains("entity not found");
        for mut walk in std::mem::take(&mut self.old_walks) {
            let result = walk.go_on(&mut self.random);
            if !result.as_ref().is_err_and(removed) && self.tolerate(result) {
                self.old_walks.push(walk);
            }
        }
    }

    pub(super) fn check_readers(&mut self) {
        // Every wait ends, also in an error.
        assert_eq!(self.db.as_ref().map(Db::waits), self.db.as_ref().map(|_| Vec::new()));
        let keys: Vec<_> = (0..40).map(|_| self.random.key()).collect();
        for index in 0..self.spaces.len() {
            if let Some(model) = self.seen(index, None) {
                let view = View { keyspace: self.spaces[index].keyspace(), snapshot: None };
                let result = view.compare(&model, &keys);
                self.tolerate(result);
            }
            for snapshot in 0..self.snapshots.len() {
                let (snapshot, then) = &self.snapshots[snapshot];
                let space = &self.spaces[index];
                let view = View { keyspace: space.keyspace(), snapshot: Some(snapshot) };
                let result = view.compare(entries(then, space.number), &keys);
                self.tolerate(result);
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
        assert!(same(expected, &found), "{what}: differ{}", difference(expected, &found));
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
            // Copies have files of their own.
            if Path::new("/").join(&path).parent() != Some(Path::new(DIRECTORY)) {
                continue;
            }
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
            && self.transactions.is_empty()
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
