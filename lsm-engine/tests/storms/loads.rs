//! Writes that pass neither the log nor the memtables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lsm_engine::{Ingest, Result};

use crate::random::Draw;
use crate::reads::Bytes;

use super::model::{Commit, Op};
use super::world::World;

impl World {
    /// Ingests a table, which may replace a range, or loads a sorted stream.
    pub(super) fn bring(&mut self) {
        let number = self.spaces[self.random.below(self.spaces.len())].number;
        let mut commit = Commit::new();
        let replaced = self.random.one_in(3).then(|| self.random.range());
        commit.extend(replaced.clone().map(|(start, end)| Op::DeleteRange(number, start, end)));
        let mut entries = BTreeMap::new();
        let (is_load, count) = (replaced.is_none() && self.random.one_in(2), 1 + self.random.below(60));
        for _ in 0..count {
            let (key, value) = (self.random.key(), self.random.value(300));
            let op = match self.random.below(6) {
                0 if !is_load => Op::Delete(number, key.clone()),
                1 if !is_load => Op::Merge(number, key.clone(), value),
                _ => Op::Put(number, key.clone(), value),
            };
            entries.insert(key, op);
        }
        let path = PathBuf::from(format!("/data/given {:016x}", self.random.next()));
        let links = self.random.one_in(2);
        let result = if is_load {
            self.note("load a sorted stream");
            self.risking(|| self.load(number, &entries))
        } else {
            self.note("ingest a table");
            self.risking(|| {
                self.build(number, &path, &entries)?;
                let mut request = Ingest::new().table(&path);
                if links {
                    request = request.link();
                }
                if let Some((start, end)) = &replaced {
                    request = request.replace(start..end);
                }
                self.keyspace(number).ingest(request).map(drop)
            })
        };
        commit.extend(entries.into_values());
        if self.fs.crashed() {
            return self.recover(Some(commit), false);
        }
        match result {
            Ok(()) => {
                self.promises.commit(commit);
                self.promises.all_durable();
            }
            Err(error) => self.write_failed(commit, &error),
        }
    }

    fn load(&self, number: usize, entries: &BTreeMap<Bytes, Op>) -> Result<()> {
        let mut load = self.keyspace(number).bulk_load()?;
        for op in entries.values() {
            let Op::Put(_, key, value) = op else { unreachable!("{op:?}") };
            load.put(key, value)?;
        }
        load.finish().map(drop)
    }

    fn build(&self, number: usize, path: &PathBuf, entries: &BTreeMap<Bytes, Op>) -> Result<()> {
        let mut table = self.keyspace(number).table_builder(path)?;
        for op in entries.values() {
            match op {
                Op::Put(_, key, value) => table.put(key, value)?,
                Op::Merge(_, key, operand) => table.merge(key, operand)?,
                Op::Delete(_, key) => table.delete(key)?,
                op => unreachable!("{op:?}"),
            }
        }
        table.finish().map(drop)
    }
}
