//! The commit of an ingest: a log record that names the tables, and their place in the order of writes.
//!
//! The tables become visible under the commit lock, as the newest run of level 0. The memtable from before is rotated, so
//! later writes go to a newer one. Immutable memtables that are still to be flushed become runs below: their numbers are
//! lower. Until they are flushed, gets go by the sequence numbers (`ReadState::ingested`), and compactions leave the tables
//! alone. A memtable without entries stands for the tables: its flush puts them into the manifest.

use std::sync::Arc;

use lsm_core::{SequenceNumber, ValueKind};

use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::keyspaces::{Memtable, Tree};
use crate::memory::Charge;
use crate::read::KeyRange;
use crate::version::edit::{AddedTable, encode_ingested};
use crate::version::{ObsoleteFiles, Placement, TableFile};
use crate::write::committer::Committer;
use crate::write::path::WritePath;
use crate::write::payload::{self, COUNT_BYTES, Operation, encode_operation};
use crate::write::reservation;
use crate::write::written::Written;

/// A table that is durable in the directory of the database, and open, but has no sequence number yet.
pub(crate) struct PreparedTable {
    pub(crate) number: u64,
    pub(crate) table: Arc<lsm_sstable::Table>,
    pub(crate) charge: Charge,
    pub(crate) created_micros: u64,
    pub(crate) obsolete_files: Arc<ObsoleteFiles>,
}

impl PreparedTable {
    fn tombstones_since_micros(&self) -> Option<u64> {
        let meta = self.table.meta();
        (meta.tombstones + meta.range_tombstones > 0).then_some(self.created_micros)
    }

    /// What the log record says about it.
    fn recorded(&self) -> AddedTable {
        AddedTable {
            keyspace: 0,
            level: 0,
            run: 0,
            number: self.number,
            created_micros: self.created_micros,
            tombstones_since_micros: self.tombstones_since_micros(),
            meta: self.table.meta().clone(),
        }
    }

    fn with_sequence(mut self, sequence: SequenceNumber) -> Result<Arc<TableFile>> {
        let since_micros = self.tombstones_since_micros();
        let table = Arc::get_mut(&mut self.table).ok_or(Error::Closed)?;
        table.set_global_sequence(sequence);
        let opened = (self.table, self.charge);
        let file =
            TableFile::new(self.number, opened, self.created_micros, since_micros, self.obsolete_files);
        Ok(Arc::new(file))
    }
}

/// The tables of an ingest. They may overlap nothing among each other.
pub(crate) struct PreparedIngest {
    pub(crate) tables: Vec<PreparedTable>,
    /// A range whose keys from before are deleted in the same step.
    pub(crate) replaced: Option<KeyRange>,
}

/// Why an ingest did not happen.
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// The log may have the record all the same, so the next open may need the files.
    pub(crate) may_be_logged: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, may_be_logged: false }
    }
}

fn range_delete<'k>(
    keyspace: u32,
    sequence: SequenceNumber,
    start: &'k [u8],
    end: &'k [u8],
) -> Operation<'k> {
    Operation { sequence, keyspace, kind: ValueKind::RangeDelete, key: start, value: end }
}

impl WritePath {
    /// Makes tables visible in a keyspace, durably. The caller holds the manifest lock, so that nothing clears or drops
    /// the keyspace meanwhile; the tables are durable.
    pub(crate) fn ingest(&self, tree: &Arc<Tree>, ingest: PreparedIngest) -> Result<Written, Failed> {
        let PreparedIngest { tables, replaced } = ingest;
        let recorded: Vec<AddedTable> = tables.iter().map(PreparedTable::recorded).collect();
        let value = encode_ingested(&recorded);
        payload::check_value(&value)?;
        let deleted =
            replaced.as_ref().map(|range| (&*range.start, range.end.as_deref().unwrap_or_default()));
        let count = 1 + u32::from(deleted.is_some());
        let mut encoded = vec![0; COUNT_BYTES];
        encoded.copy_from_slice(&count.to_le_bytes());
        if let Some((start, end)) = deleted {
            encode_operation(&mut encoded, tree.id, ValueKind::RangeDelete, start, Some(end));
        }
        encode_operation(&mut encoded, tree.id, ValueKind::Ingest, &[], Some(&value));
        self.check_batch_bytes(encoded.len())?;
        self.check()?;

        let mut committer = self.committer.lock();
        let committer = &mut *committer;
        tree.check_usable()?;
        tree.check_writable()?;
        if !committer.watches.is_empty() {
            for table in &recorded {
                // The watches know ranges without their ends.
                let end = [&*table.meta.largest, b"\0"].concat();
                committer.note_one(&range_delete(tree.id, 0, &table.meta.smallest, &end));
            }
            if let Some((start, end)) = deleted {
                committer.note_one(&range_delete(tree.id, 0, start, end));
            }
        }
        if let Some((start, _)) = deleted {
            self.prepare(committer, tree.id, &reservation::of_one(ValueKind::RangeDelete, start, &[0]))?;
        }
        let log_start = committer.log_end();
        let appended = self.append(committer, &encoded, u64::from(count), |_| false);
        let (sequence, position) = appended.map_err(|error| Failed {
            error,
            may_be_logged: !self.supersede_failed_record(committer, tree.id),
        })?;
        let last = sequence + u64::from(count) - 1;
        let installed = caught("an ingest", || {
            if let Some((start, end)) = deleted {
                committer.insert(&range_delete(tree.id, sequence, start, end), log_start, sequence - 1)?;
                committer.cut_active(tree.id, sequence - 1);
            }
            let tables = tables.into_iter().map(|table| table.with_sequence(last)).collect::<Result<_>>()?;
            committer.install_ingested(tree.id, tables, last, log_start)
        });
        // The log has the record. If memory cannot have the tables, the two differ.
        installed.map_err(|error| {
            self.status.stop_writing(error.clone());
            Failed { error, may_be_logged: true }
        })?;
        self.visibility.publish(last);
        self.bound_log(committer);
        Ok(Written { sequence: last, position })
    }

    /// Appends a record that changes nothing after the append of another one has failed. Once it is durable, recovery does
    /// not find the failed one. Returns whether it is.
    #[cold]
    fn supersede_failed_record(&self, committer: &mut Committer, keyspace: u32) -> bool {
        let mut nothing = Vec::new();
        payload::encode_single(&mut nothing, keyspace, ValueKind::RangeDelete, &[], Some(&[]));
        let appended = self.append(committer, &nothing, 1, |_| true);
        appended.is_ok_and(|(_, position)| self.sync_up_to(position.0).is_ok())
    }
}

impl Committer {
    /// Marks that the active memtable of a keyspace ends in the middle of a log record.
    fn cut_active(&mut self, keyspace: u32, whole_up_to: SequenceNumber) {
        if let Some(active) = self.writer(keyspace).and_then(|writer| writer.active.as_ref()) {
            active.memtable.cut(whole_up_to);
        }
    }

    /// Adds tables with the number `sequence` to a keyspace as its newest run. Their log record starts at `log_start`.
    /// They are not visible before the number is.
    pub(crate) fn install_ingested(
        &mut self,
        keyspace: u32,
        tables: Vec<Arc<TableFile>>,
        sequence: SequenceNumber,
        log_start: u64,
    ) -> Result<()> {
        let tree = self.tree(keyspace).cloned().ok_or(Error::Closed)?;
        self.rotate(keyspace, sequence - 1);
        // In this order: memtables from before, the one that stands for the tables, their run, later memtables.
        let (number, run) = (self.numbers().next(), self.numbers().next());
        let place = |table| Placement { level: 0, run, table };
        let placed = tables.into_iter().map(place).collect();
        let standing_for = Arc::new(Memtable::of_ingested(number, log_start, sequence, placed));
        tree.empty_spans.outdate_older_states();
        tree.empty_spans.forget();
        tree.update(|state| state.with_ingested(run, sequence, &standing_for));
        self.unflushed().add(&tree);
        self.flush_wanted().notify();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use crate::{Db, Ingest, Options};

    /// A reader loads the state, then the visible number.
    #[test]
    fn a_reader_of_an_older_state_sees_no_replaced_range_without_what_replaces_it() {
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()));
        let db: Db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        let mut table = db.default_keyspace().table_builder("/one.sst").unwrap();
        table.put("b", "ingested").unwrap();
        table.finish().unwrap();
        db.put("a", "1").unwrap();
        let (tree, visibility) = (db.default.tree(), Arc::clone(&db.database.visibility));
        let (older, before) = (tree.load_full(), visibility.sequence());
        db.ingest(Ingest::new().table("/one.sst").replace("a".."z")).unwrap();
        assert_eq!(visibility.sequence_in(&older), before);
        assert_eq!(older.get(b"a", &visibility.point_in(&older)).unwrap().unwrap(), "1");
        let newer = tree.load_full();
        assert_eq!(newer.get(b"a", &visibility.point_in(&newer)).unwrap(), None);
        drop((older, newer, tree, db));
        env.drop_jobs();
    }
}
