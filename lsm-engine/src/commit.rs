//! The commit path: log, memtable, visibility, all under one short lock; the sync outside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::env::Event;
use lsm_core::range_tombstone::RangeTombstone;
use lsm_core::{SEQUENCE_MAX, SequenceNumber, Slice, ValueKind};
use lsm_memtable::MemtableWriter;
use lsm_wal::{CleanClose, Durability, Log, Position};

use crate::batch::{self, Operation, Operations, WriteBatch};
use crate::inner::{Inner, Numbers, WriteSide};
use crate::jobs::caught;
use crate::memory::{Charge, EMPTY_MEMTABLE_BYTES, Memory, Part, batch_bytes, room_for, too_large};
use crate::tree::{Memtable, State, Tree};
use crate::version::Version;
use crate::{Error, Result};

/// A buffer for records that grew past this is given back.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Everything that the commit lock protects.
pub(crate) struct Committer {
    /// Given at the end of recovery, taken by the close of the database.
    log: Option<Box<dyn Log>>,
    /// The end of the last record.
    log_end: u64,
    /// Number of the first segment that this process writes.
    first_segment: u64,
    next_sequence: SequenceNumber,
    /// The last number of a record whose append succeeded. Those of failed appends after it are used up, but the log
    /// may hold such a record: nothing may claim that a table has it.
    last_sequence: SequenceNumber,
    writers: BTreeMap<u32, Writer>,
    /// The writer of keyspace 0, which is never dropped, outside the map.
    default: Writer,
    /// Bytes of all memtables that are being filled.
    active_bytes: usize,
    memory: Arc<Memory>,
    numbers: Arc<Numbers>,
    flush_wanted: Event,
    scratch: Vec<u8>,
}

/// The memtable of a keyspace that is being filled.
pub(crate) struct Writer {
    tree: Arc<Tree>,
    memtable: Arc<Memtable>,
    inserter: Box<dyn MemtableWriter>,
    /// Memory of the memtable when last looked at, and what it was at first.
    bytes: usize,
    empty_bytes: usize,
    empty: bool,
}

impl Writer {
    pub(crate) fn new(tree: Arc<Tree>, memtable: Arc<Memtable>, inserter: Box<dyn MemtableWriter>) -> Self {
        let bytes = memtable.memory_bytes();
        Self { tree, memtable, inserter, bytes, empty_bytes: bytes, empty: true }
    }

    pub(crate) fn memtable(&self) -> Arc<Memtable> {
        Arc::clone(&self.memtable)
    }

    /// A writer on a fresh memtable of the same keyspace.
    pub(crate) fn replaced(&self, number: u64) -> Self {
        let (inserter, memtable) = self.tree.new_memtable(number);
        Self::new(Arc::clone(&self.tree), memtable, inserter)
    }

    /// Takes an operation in; `false` if the memtable is full.
    #[inline]
    pub(crate) fn insert(&mut self, operation: &Operation<'_>, log_start: u64) -> bool {
        if self.empty {
            self.memtable.set_log_start(log_start);
            self.empty = false;
        }
        let Operation { sequence, kind, key, value, .. } = *operation;
        if kind == ValueKind::RangeDelete {
            if key < value {
                let tombstone =
                    RangeTombstone { start: Slice::copy_from(key), end: Slice::copy_from(value), sequence };
                if self.memtable.range_tombstones.insert(tombstone).is_err() {
                    return false;
                }
                self.tree.empty_spans.deleted(key, value, sequence);
            }
            return true;
        }
        let taken = self.inserter.insert(key, sequence, kind, value).is_ok();
        if taken && self.tree.empty_spans.any() && !kind.is_tombstone() {
            self.tree.empty_spans.written(key);
        }
        taken
    }
}

impl Committer {
    /// Takes writes in after those up to `last_sequence`, without a log for now.
    pub(crate) fn new(
        last_sequence: SequenceNumber,
        default: Writer,
        others: impl IntoIterator<Item = Writer>,
        memory: Arc<Memory>,
        numbers: Arc<Numbers>,
    ) -> Self {
        let writers: BTreeMap<_, _> = others.into_iter().map(|writer| (writer.tree.id, writer)).collect();
        let active_bytes = default.bytes + writers.values().map(|writer| writer.bytes).sum::<usize>();
        memory.set_active_bytes(active_bytes);
        Self {
            log: None,
            log_end: 0,
            first_segment: 0,
            next_sequence: last_sequence + 1,
            last_sequence,
            writers,
            default,
            active_bytes,
            memory,
            numbers,
            flush_wanted: Event::new(),
            scratch: Vec::new(),
        }
    }

    /// Says where the log will go on.
    pub(crate) fn set_log_end(&mut self, log_end: u64, first_segment: u64) {
        (self.log_end, self.first_segment) = (log_end, first_segment);
    }

    pub(crate) fn start_log(&mut self, log: Box<dyn Log>) {
        self.log = Some(log);
    }

    pub(crate) fn log_end(&self) -> u64 {
        self.log_end
    }

    pub(crate) fn first_segment(&self) -> u64 {
        self.first_segment
    }

    /// The last write that is in the log and in a memtable.
    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence
    }

    /// Says which write was the last: those that follow have higher numbers.
    pub(crate) fn set_last_sequence(&mut self, last_sequence: SequenceNumber) {
        self.next_sequence = last_sequence + 1;
        self.last_sequence = last_sequence;
    }

    pub(crate) fn flush_wanted(&self) -> &Event {
        &self.flush_wanted
    }

    pub(crate) fn add_writer(&mut self, writer: Writer) {
        self.set_active_bytes(self.active_bytes + writer.bytes);
        self.writers.insert(writer.tree.id, writer);
    }

    pub(crate) fn remove_writer(&mut self, id: u32) {
        if let Some(writer) = self.writers.remove(&id) {
            self.set_active_bytes(self.active_bytes.saturating_sub(writer.bytes));
        }
    }

    fn set_active_bytes(&mut self, bytes: usize) {
        self.active_bytes = bytes;
        self.memory.set_active_bytes(bytes);
    }

    /// Syncs and closes the log.
    pub(crate) fn close_log(&mut self) -> Result<Option<CleanClose>> {
        Ok(self.log.take().map(Log::close).transpose()?)
    }

    /// Appends a record. Its sequence numbers are used up, whether it succeeds or not.
    fn append(&mut self, payload: &[u8], count: u64) -> Result<(SequenceNumber, Position)> {
        let sequence = self.next_sequence;
        let log = self.log.as_mut().ok_or(Error::Closed)?;
        if count > (SEQUENCE_MAX + 1).saturating_sub(sequence) {
            return Err(Error::invalid(
                "all sequence numbers are used up; load the data into a new database",
            ));
        }
        self.next_sequence += count;
        let position = log
            .append(sequence, payload)
            .inspect_err(|error| self.memory.open_files.give_way_after(error))?;
        self.last_sequence = sequence + count - 1;
        Ok((sequence, position))
    }

    /// A number for a change that is in no record. The next process may give it to a write.
    pub(crate) fn use_up_number(&mut self) -> SequenceNumber {
        let sequence = self.next_sequence.min(SEQUENCE_MAX);
        self.next_sequence = sequence + 1;
        sequence
    }

    pub(crate) fn tree(&self, keyspace: u32) -> Option<&Arc<Tree>> {
        self.peek(keyspace).map(|writer| &writer.tree)
    }

    fn peek(&self, keyspace: u32) -> Option<&Writer> {
        if keyspace == 0 { Some(&self.default) } else { self.writers.get(&keyspace) }
    }

    fn writer(&mut self, keyspace: u32) -> Option<&mut Writer> {
        if keyspace == 0 { Some(&mut self.default) } else { self.writers.get_mut(&keyspace) }
    }

    /// Puts an operation of the record that starts at `log_start` into its memtable, sealing one that is full. `before`
    /// is the last write before that record.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        operation: &Operation<'_>,
        log_start: u64,
        before: SequenceNumber,
    ) -> Result<()> {
        let writer = self.writer(operation.keyspace).ok_or_else(|| Error::KeyspaceDropped("".into()))?;
        if writer.insert(operation, log_start) {
            return Ok(());
        }
        if operation.sequence - 1 > before {
            writer.memtable.cut(before);
        }
        self.seal(operation.keyspace, operation.sequence - 1);
        let writer = self.writer(operation.keyspace).ok_or(Error::Closed)?;
        if let Some(error) = writer.tree.failure() {
            return Err(error);
        }
        if writer.insert(operation, log_start) {
            return Ok(());
        }
        Err(Error::Callback(
            format!("memtable {:?} refuses an entry while empty", writer.tree.options().memtable).into(),
        ))
    }

    /// After a write: counts the memory and seals what is too large.
    #[inline]
    pub(crate) fn settle(&mut self, keyspace: u32) {
        let budget = self.memory.budget;
        let Some(writer) = self.writer(keyspace) else { return };
        let bytes = writer.memtable.memory_bytes();
        let grown = bytes.saturating_sub(std::mem::replace(&mut writer.bytes, bytes));
        if grown > 0 {
            self.set_active_bytes(self.active_bytes + grown);
            self.memory.bound_pool(0);
        }
        if bytes >= budget.memtable_bytes {
            self.seal(keyspace, self.last_sequence());
        } else if self.active_bytes > budget.memtables_bytes_max / 2 {
            self.seal_largest();
        }
    }

    /// By how much memtables of keyspaces may grow beside what is written to them.
    pub(crate) fn growth_bytes(&self, keyspaces: &[u32]) -> usize {
        let growth = |id: &u32| {
            // One that is sealed on the way leaves an empty one. Range deletes grow by as much as they take.
            EMPTY_MEMTABLE_BYTES
                + self.peek(*id).map_or(0, |writer| {
                    self.memory.growth_bytes(writer.bytes) + writer.memtable.range_tombstones.memory_bytes()
                })
        };
        keyspaces.iter().map(growth).sum()
    }

    /// Fails if a write of `bytes` to keyspaces found no room with all memtables flushed and no merge under way: it
    /// would wait for nothing, and others behind it.
    #[cold]
    pub(crate) fn check_ever_fits(&self, keyspaces: &[u32], bytes: usize) -> Result<()> {
        let growth = |id: &u32| {
            EMPTY_MEMTABLE_BYTES
                + self.peek(*id).map_or(0, |writer| self.memory.growth_bytes(writer.empty_bytes))
        };
        let wanted = room_for(bytes) + keyspaces.iter().map(growth).sum::<usize>();
        let all = std::iter::once(&self.default).chain(self.writers.values());
        let empty_bytes: usize = all.map(|writer| writer.empty_bytes).sum();
        let bytes_max = self.memory.budget.memtables_bytes_max.saturating_sub(empty_bytes);
        if wanted <= bytes_max { Ok(()) } else { Err(too_large(wanted, bytes_max)) }
    }

    /// The most that [`growth_bytes`](Self::growth_bytes) says of any keyspaces.
    pub(crate) fn growth_bytes_max(&self) -> usize {
        let each = EMPTY_MEMTABLE_BYTES + self.memory.growth_bytes(usize::MAX);
        let growth = |writer: &Writer| each + writer.memtable.range_tombstones.memory_bytes();
        std::iter::once(&self.default).chain(self.writers.values()).map(growth).sum()
    }

    /// Seals the largest memtable that can be flushed; `false` if there is none.
    pub(crate) fn seal_largest(&mut self) -> bool {
        let all = std::iter::once(&self.default).chain(self.writers.values());
        let flushable = all.filter(|writer| !writer.empty && writer.tree.failure().is_none());
        let largest = flushable.max_by_key(|writer| writer.bytes);
        let Some(id) = largest.map(|writer| writer.tree.id) else { return false };
        self.seal(id, self.last_sequence());
        true
    }

    /// Seals the memtable of a keyspace, unless it is empty, and puts a fresh one in its place.
    pub(crate) fn seal(&mut self, keyspace: u32, last_sequence: SequenceNumber) {
        let number = self.numbers.next();
        let Some(writer) = self.writer(keyspace).filter(|writer| !writer.empty) else { return };
        let tree = Arc::clone(&writer.tree);
        // Nothing that may come from outside is called once the memtable has left its place.
        let begun = caught("the start of a memtable", || {
            let sealed_bytes = writer.memtable.memory_bytes();
            Ok((sealed_bytes, writer.replaced(number)))
        });
        let (sealed_bytes, fresh) = match begun {
            Ok(begun) => begun,
            Err(error) => return tree.fail(error),
        };
        let memtable = fresh.memtable();
        let (fresh_bytes, old) = (fresh.bytes, std::mem::replace(writer, fresh));
        old.memtable.seal(last_sequence);
        self.memory.add_sealed_bytes(sealed_bytes);
        self.set_active_bytes((self.active_bytes + fresh_bytes).saturating_sub(old.bytes));
        tree.update(|state| State {
            memtable,
            sealed: std::iter::once(&state.memtable).chain(&state.sealed).cloned().collect(),
            version: Arc::clone(&state.version),
            cleared: state.cleared,
            before_clear: state.before_clear.clone(),
            empty_spans: Arc::clone(&state.empty_spans),
        });
        self.flush_wanted.notify();
    }

    /// Seals all memtables that are not empty.
    pub(crate) fn seal_all(&mut self) {
        let ids: Vec<u32> = std::iter::once(0).chain(self.writers.keys().copied()).collect();
        for id in ids {
            self.seal(id, self.last_sequence());
        }
    }

    /// Replaces everything that a keyspace holds by nothing, as of `sequence`.
    pub(crate) fn clear(&mut self, keyspace: u32, sequence: SequenceNumber) -> Result<()> {
        let number = self.numbers.next();
        let writer = self.writer(keyspace).ok_or(Error::Closed)?;
        let fresh = writer.replaced(number);
        let (tree, memtable) = (Arc::clone(&writer.tree), fresh.memtable());
        let (fresh_bytes, old) = (fresh.bytes, std::mem::replace(writer, fresh));
        self.set_active_bytes((self.active_bytes + fresh_bytes).saturating_sub(old.bytes));
        tree.update(|state| {
            let sealed: usize = state.sealed.iter().map(|memtable| memtable.memory_bytes()).sum();
            self.memory.remove_sealed_bytes(sealed);
            self.memory.let_go(state.memtables().map(|memtable| Arc::clone(&memtable.reader)));
            State {
                memtable,
                sealed: Vec::new(),
                version: Arc::new(Version::default()),
                cleared: sequence,
                before_clear: Some(Arc::clone(state)),
                empty_spans: Arc::clone(&state.empty_spans),
            }
        });
        Ok(())
    }

    /// The keyspace whose memtables keep the oldest log segment.
    fn pins_oldest(&self) -> Option<u32> {
        std::iter::once(&self.default)
            .chain(self.writers.values())
            .filter_map(|writer| Some((writer.memtable.log_start()?, writer.tree.id)))
            .min()
            .map(|(_, id)| id)
    }
}

impl Inner {
    /// Writes one key.
    pub(crate) fn write_one(
        self: &Arc<Self>,
        tree: &Tree,
        kind: ValueKind,
        key: &[u8],
        value: Option<&[u8]>,
        durability: Durability,
    ) -> Result<()> {
        batch::check_key(key)?;
        batch::check_value(value.unwrap_or_default())?;
        tree.check_usable()?;
        let range_deletes = u64::from(kind == ValueKind::RangeDelete);
        let bytes = batch_bytes(key.len() + value.map_or(0, <[u8]>::len), 1, range_deletes);
        self.check_batch_bytes(bytes)?;
        let side = self.admit(tree, bytes)?;
        let position = {
            let mut committer = self.lock_committer(side, bytes, |_| Ok([tree.id]))?.0;
            let committer = &mut *committer;
            // Somebody may have dropped the keyspace since; under the lock nobody does.
            tree.check_usable()?;
            let mut scratch = std::mem::take(&mut committer.scratch);
            let _charge =
                (bytes > SCRATCH_BYTES_MAX).then(|| Charge::new(&self.memory, Part::Buffers, bytes));
            batch::encode_single(&mut scratch, tree.id, kind, key, value);
            let log_start = committer.log_end;
            let appended = committer.append(&scratch, 1);
            if scratch.capacity() <= SCRATCH_BYTES_MAX {
                committer.scratch = scratch;
            }
            let (sequence, position) = appended?;
            committer.log_end = position.0;
            let operation =
                Operation { sequence, keyspace: tree.id, kind, key, value: value.unwrap_or_default() };
            // It is in the log: a memtable that does not take it leaves memory and log apart.
            caught("a write", || {
                committer.insert(&operation, log_start, sequence - 1)?;
                self.visible.store(sequence, Ordering::Release);
                committer.settle(tree.id);
                self.bound_log(committer, side);
                Ok(())
            })
            .inspect_err(|error| side.stop(error.clone()))?;
            position
        };
        make_durable(side, position, durability)
    }

    /// Writes a batch.
    pub(crate) fn write_batch(
        self: &Arc<Self>,
        batch: &mut WriteBatch,
        durability: Durability,
    ) -> Result<()> {
        if batch.database().is_some_and(|id| id != self.id) {
            return Err(Error::invalid("the batch names keyspaces of another database"));
        }
        let (count, bytes) = (batch.len() as u64, batch.memory_bytes());
        let payload = batch.finish()?;
        self.check_batch_bytes(bytes)?;
        let side = self.admit_batch(payload)?;
        if count == 0 {
            return Ok(());
        }
        let position = {
            let (mut committer, keyspaces) =
                self.lock_committer(side, bytes, |committer| committer.check_keyspaces(payload))?;
            let committer = &mut *committer;
            let log_start = committer.log_end;
            let (sequence, position) = committer.append(payload, count)?;
            committer.log_end = position.0;
            // As above; and a batch that is partly inserted must never become visible.
            caught("a write", || {
                for operation in Operations::new(payload, sequence) {
                    committer.insert(&operation.map_err(Error::invalid)?, log_start, sequence - 1)?;
                }
                self.visible.store(sequence + count - 1, Ordering::Release);
                for keyspace in keyspaces {
                    committer.settle(keyspace);
                }
                self.bound_log(committer, side);
                Ok(())
            })
            .inspect_err(|error| side.stop(error.clone()))?;
            position
        };
        make_durable(side, position, durability)
    }

    /// Logs the clearing of a keyspace and makes it empty. The caller then tells the manifest.
    pub(crate) fn clear_tree(&self, side: &WriteSide, tree: &Tree) -> Result<SequenceNumber> {
        let mut committer = side.committer.lock();
        tree.check_usable()?;
        let mut payload = Vec::new();
        batch::encode_single(&mut payload, tree.id, ValueKind::KeyspaceClear, &[], None);
        let (sequence, position) = committer.append(&payload, 1)?;
        committer.log_end = position.0;
        committer.clear(tree.id, sequence).inspect_err(|error| side.stop(error.clone()))?;
        self.visible.store(sequence, Ordering::Release);
        Ok(sequence)
    }

    /// Seals whoever keeps the log from being truncated, once it is too long.
    #[inline]
    fn bound_log(&self, committer: &mut Committer, side: &WriteSide) {
        let oldest = side.pace.log_start();
        let log_bytes_max = self.memory.budget.log_bytes_max;
        if committer.log_end - oldest > log_bytes_max {
            if let Some(id) = committer.pins_oldest() {
                let last_sequence = committer.last_sequence();
                committer.seal(id, last_sequence);
            }
            // Look again after as much has been written; the flush sets the true start.
            side.pace.set_log_start(committer.log_end - log_bytes_max / 2);
        }
    }
}

#[inline]
fn make_durable(side: &WriteSide, position: Position, durability: Durability) -> Result<()> {
    match durability {
        Durability::Sync => side.wait_durable(position.0),
        // The log syncs it within a second.
        Durability::Buffered => Ok(()),
    }
}

impl Committer {
    /// The keyspaces that a batch writes to; fails if one is gone or its background work failed.
    fn check_keyspaces(&mut self, payload: &[u8]) -> Result<Vec<u32>> {
        let mut keyspaces = Vec::new();
        for operation in Operations::new(payload, 0) {
            let keyspace = operation.map_err(Error::invalid)?.keyspace;
            if keyspaces.last() != Some(&keyspace) && !keyspaces.contains(&keyspace) {
                keyspaces.push(keyspace);
                let name = || format!("number {keyspace}").into();
                let writer = self.writer(keyspace).ok_or_else(|| Error::KeyspaceDropped(name()))?;
                writer.tree.check_usable()?;
                if let Some(error) = writer.tree.failure() {
                    return Err(Error::WritingStopped(Arc::new(error)));
                }
            }
        }
        Ok(keyspaces)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::SimEnv;
    use lsm_core::vfs::{AllLost, SimFs};
    use lsm_core::{SequenceNumber, ValueKind};
    use lsm_memtable::{BPlusMemtable, Full, MemtableFactory, MemtableReader, MemtableWriter};

    use crate::bounds::Bounds;
    use crate::{Db, DbCursor, Options, WriteBatch};

    /// Memtables that are full after four entries.
    #[derive(Debug, Default)]
    struct Tiny(BPlusMemtable);

    struct TinyWriter(Box<dyn MemtableWriter>, usize);

    impl MemtableFactory for Tiny {
        fn name(&self) -> &'static str {
            "tiny"
        }

        fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
            let (writer, reader) = self.0.create();
            (Box::new(TinyWriter(writer, 4)), reader)
        }
    }

    impl MemtableWriter for TinyWriter {
        fn insert(
            &mut self,
            key: &[u8],
            sequence: SequenceNumber,
            kind: ValueKind,
            value: &[u8],
        ) -> Result<(), Full> {
            self.1 = self.1.checked_sub(1).ok_or(Full)?;
            self.0.insert(key, sequence, kind, value)
        }
    }

    fn open() -> (Arc<SimEnv>, Db) {
        open_in(&SimFs::new())
    }

    fn open_in(fs: &SimFs) -> (Arc<SimEnv>, Db) {
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(&env) as _);
        let db = options.memory(8 << 20).memtable(Arc::new(Tiny::default())).open("/db").unwrap();
        (env, db)
    }

    const KEYS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

    /// A batch that puts `value` everywhere, wherever in a memtable it begins.
    fn batch(value: &str) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for key in KEYS {
            batch.put(key, value);
        }
        batch
    }

    /// A read loads the state, then the visible number. Here a batch that fills its memtable comes between the two.
    #[test]
    fn a_read_that_a_cut_batch_overtakes_sees_none_of_it() {
        for filled in 0..=4 {
            let (env, db) = open();
            db.write(batch("old")).unwrap();
            db.flush().unwrap();
            for number in 0..filled {
                db.put(format!("other{number}"), "value").unwrap();
            }
            let (inner, tree) = (&db.inner, db.default.tree());
            let states: Vec<_> = ["new", "newer"]
                .map(|value| {
                    let state = tree.load_full();
                    db.write(batch(value)).unwrap();
                    state
                })
                .into();
            for (state, expected) in states.into_iter().zip(["old", "new"]) {
                let visible = inner.visible_in(&state);
                let got = KEYS.map(|key| state.get(key.as_bytes(), visible).unwrap().unwrap());
                assert!(got.iter().all(|value| value == expected.as_bytes()), "{filled}: {got:?}");
                let mut cursor = DbCursor::new(state, visible, Bounds::ALL, None);
                cursor.first().unwrap();
                for key in KEYS {
                    assert_eq!(cursor.key(), Some(key.as_bytes()), "{filled}");
                    assert_eq!(cursor.value(), Some(expected.as_bytes()), "{filled}");
                    cursor.next().unwrap();
                }
            }
            // Whoever comes later sees all of it, and so does recovery.
            let seen = |db: &Db| KEYS.map(|key| db.get(key).unwrap().unwrap());
            assert!(seen(&db).iter().all(|value| value == b"newer"));
            db.flush().unwrap();
            assert!(seen(&db).iter().all(|value| value == b"newer"));
            drop((tree, db));
            env.drop_jobs();
        }
    }

    #[test]
    fn a_crash_keeps_all_or_nothing_of_a_batch_whose_memtables_were_flushed() {
        let fs = SimFs::new();
        let (env, db) = open_in(&fs);
        db.write(batch("value")).unwrap();
        env.run_until_idle();
        assert_eq!(db.metrics().flushes, 2, "and the rest of it is in a memtable");
        let (cut, crashed) = (fs.power_cut(&mut AllLost), fs.process_crash());
        drop(db);
        env.drop_jobs();
        let found = |fs: &SimFs| {
            let (env, db) = open_in(fs);
            let found = KEYS.iter().filter(|key| db.get(key).unwrap().is_some()).count();
            drop(db);
            env.drop_jobs();
            found
        };
        assert_eq!(found(&crashed), KEYS.len());
        assert!([0, KEYS.len()].contains(&found(&cut)), "{}", found(&cut));
    }
}
