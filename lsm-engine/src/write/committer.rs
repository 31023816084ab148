//! The state under the commit lock: the log and the active memtables of all keyspaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use lsm_core::env::Event;
use lsm_core::{BlobPointer, SEQUENCE_MAX, SequenceNumber, ValueKind};
use lsm_memtable::BPlusMemtable;
use lsm_wal::{Log, Position};

use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::keyspaces::{ReadState, Tree, TreeSet};
use crate::memory::{EMPTY_MEMTABLE_BYTES, Memory, room_for, too_large};
use crate::version::{BlobFile, Numbers, Version};
use crate::write::keyspace_writer::{ActiveMemtable, KeyspaceWriter};
use crate::write::payload::{Operation, Operations};
use crate::write::reservation::Shares;
use crate::write::watch::RangeWatch;

/// A memtable that points to blob files of so many times its size is flushed: what was overwritten among them is garbage
/// that nothing else finds.
const MEMTABLE_BLOBS: u64 = 8;

/// The state that the commit lock protects.
pub(crate) struct Committer {
    /// Set at the end of recovery, taken when the database closes.
    log: Option<Box<dyn Log>>,
    /// The position after the last record.
    log_end: u64,
    /// Number of the first log segment that this process writes.
    first_segment: u64,
    next_sequence: SequenceNumber,
    /// The last number of a record whose append succeeded. Failed appends after it have used up their numbers, but the
    /// log may still hold their records, so no version edit may claim that a table has them.
    last_sequence: SequenceNumber,
    writers: BTreeMap<u32, KeyspaceWriter>,
    /// The writer of keyspace 0. It is outside the map because it is never dropped.
    default: KeyspaceWriter,
    /// The active memtables: their bytes and the ids of their keyspaces.
    active: BTreeSet<(usize, u32)>,
    /// Total bytes of the active memtables.
    active_bytes: usize,
    /// Keyspaces that have memtables.
    unflushed: Arc<TreeSet>,
    memory: Arc<Memory>,
    numbers: Arc<Numbers>,
    flush_wanted: Event,
    /// Reused buffer for the current record.
    pub(super) scratch: Vec<u8>,
    /// The keyspace whose memtable was asked for its size last.
    measured: u32,
    /// The ranges that transactions watch while they commit.
    pub(super) watches: Vec<Weak<RangeWatch>>,
    /// The blob files that the record being inserted points to.
    blobs: Vec<Arc<BlobFile>>,
}

impl Committer {
    /// Makes a committer without a log. The first write gets the number after `last_sequence`.
    pub(crate) fn new(
        last_sequence: SequenceNumber,
        default: KeyspaceWriter,
        others: impl IntoIterator<Item = KeyspaceWriter>,
        memory: Arc<Memory>,
        numbers: Arc<Numbers>,
    ) -> Self {
        Self {
            log: None,
            log_end: 0,
            first_segment: 0,
            next_sequence: last_sequence + 1,
            last_sequence,
            writers: others.into_iter().map(|writer| (writer.tree.id, writer)).collect(),
            default,
            active: BTreeSet::new(),
            active_bytes: 0,
            unflushed: Arc::new(TreeSet::new(|state| state.memtables().next().is_some())),
            memory,
            numbers,
            flush_wanted: Event::new(),
            scratch: Vec::new(),
            measured: 0,
            watches: Vec::new(),
            blobs: Vec::new(),
        }
    }

    /// Sets the position at which the log continues.
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

    /// The number of the last write that was appended to the log.
    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence
    }

    /// Sets the number of the last write. Later writes get higher numbers.
    pub(crate) fn set_last_sequence(&mut self, last_sequence: SequenceNumber) {
        self.next_sequence = last_sequence + 1;
        self.last_sequence = last_sequence;
    }

    pub(crate) fn flush_wanted(&self) -> &Event {
        &self.flush_wanted
    }

    pub(crate) fn numbers(&self) -> &Arc<Numbers> {
        &self.numbers
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Sets the blob files that the next record points to. The memtables that get its operations take them.
    pub(crate) fn set_blobs(&mut self, files: Vec<Arc<BlobFile>>) {
        self.blobs = files;
    }

    /// Gives the file of a pointer that was inserted to the memtable. The write is not visible yet.
    #[cold]
    fn hold_blob(&mut self, operation: &Operation<'_>) {
        let Some(pointer) = BlobPointer::decode(operation.value) else { return };
        let Some(index) = self.blobs.iter().position(|file| file.blob() == pointer.blob) else { return };
        let file = self.blobs.swap_remove(index);
        let bytes_max = (self.memory.budget.memtable_bytes as u64).saturating_mul(MEMTABLE_BLOBS);
        let active = self.writer(operation.keyspace).and_then(|writer| writer.active.as_mut());
        let Some(active) = active else { return };
        active.is_full_of_blobs = active.memtable.hold_blob(file) >= bytes_max;
        if pointer.expires() {
            active.memtable.note_expiry();
        }
    }

    pub(crate) fn unflushed(&self) -> &Arc<TreeSet> {
        &self.unflushed
    }

    pub(crate) fn add_writer(&mut self, writer: KeyspaceWriter) {
        self.writers.insert(writer.tree.id, writer);
    }

    pub(crate) fn remove_writer(&mut self, id: u32) {
        if let Some(KeyspaceWriter { tree, active }) = self.writers.remove(&id) {
            self.account(id, active.as_ref().map(|active| active.bytes), None);
            self.memory.holding.trim();
            drop_writer(&tree, active);
        }
    }

    /// Updates the accounted size of a keyspace's active memtable from `before` to `now`; `None` for no memtable.
    fn account(&mut self, keyspace: u32, before: Option<usize>, now: Option<usize>) {
        if let Some(before) = before {
            self.active.remove(&(before, keyspace));
        }
        self.active.extend(now.map(|bytes| (bytes, keyspace)));
        self.active_bytes = (self.active_bytes + now.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
        self.memory.holding.set_active_bytes(self.active_bytes);
    }

    /// Takes the log, to close it. Later writes fail.
    pub(crate) fn take_log(&mut self) -> Option<Box<dyn Log>> {
        self.log.take()
    }

    /// Appends a record. Its sequence numbers are used up, whether it succeeds or not.
    #[inline]
    pub(super) fn append(&mut self, payload: &[u8], count: u64) -> Result<(SequenceNumber, Position)> {
        let sequence = self.next_sequence;
        let Some(log) = &mut self.log else { return Err(Error::Closed) };
        if count > (SEQUENCE_MAX + 1).saturating_sub(sequence) {
            return Err(numbers_used_up());
        }
        self.next_sequence += count;
        let position = match log.append(sequence, payload) {
            Ok(position) => position,
            Err(error) => return Err(self.append_failed(error)),
        };
        self.last_sequence = sequence + count - 1;
        self.log_end = position.0;
        Ok((sequence, position))
    }

    /// The error of a failed append. If descriptors ran out, the file cache closes some files.
    #[cold]
    fn append_failed(&self, error: lsm_core::Error) -> Error {
        self.memory.file_cache.close_some_after(&error);
        error.into()
    }

    /// Takes a number for a change that has no log record. The next process may give this number to a write.
    pub(crate) fn use_up_number(&mut self) -> SequenceNumber {
        let sequence = self.next_sequence.min(SEQUENCE_MAX);
        self.next_sequence = sequence + 1;
        sequence
    }

    pub(crate) fn tree(&self, keyspace: u32) -> Option<&Arc<Tree>> {
        self.peek(keyspace).map(|writer| &writer.tree)
    }

    /// Fails if one of these keyspaces takes no merge operands.
    #[cold]
    pub(super) fn check_merges(&self, keyspaces: &[u32]) -> Result<()> {
        let mut trees = keyspaces.iter().filter_map(|&id| self.tree(id));
        trees.try_for_each(|tree| tree.load().merging.check_writable())
    }

    fn peek(&self, keyspace: u32) -> Option<&KeyspaceWriter> {
        if keyspace == 0 { Some(&self.default) } else { self.writers.get(&keyspace) }
    }

    pub(crate) fn writer(&mut self, keyspace: u32) -> Option<&mut KeyspaceWriter> {
        if keyspace == 0 { Some(&mut self.default) } else { self.writers.get_mut(&keyspace) }
    }

    /// Inserts an operation into its memtable, and rotates the memtable if it is full. The record of the operation
    /// starts at `log_start`, and `before` is the last number before that record.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        operation: &Operation<'_>,
        log_start: u64,
        before: SequenceNumber,
    ) -> Result<()> {
        let writer = self.writer(operation.keyspace).ok_or_else(|| Error::KeyspaceDropped("".into()))?;
        if writer.active.as_mut().is_some_and(|active| active.insert(operation)) {
            if operation.kind == ValueKind::BlobPointer {
                self.hold_blob(operation);
            }
            return Ok(());
        }
        self.insert_into_next(operation, log_start, before)
    }

    /// Inserts the rest of a record after a memtable panicked with `error` at its first operation. The log has the
    /// record, so it must become visible as a whole. An operation at which a memtable panics goes into a memtable of
    /// the engine's own, and its keyspace takes no more writes.
    pub(super) fn insert_rest<'o>(
        &mut self,
        rest: impl Iterator<Item = Result<Operation<'o>, &'static str>>,
        log_start: u64,
        before: SequenceNumber,
        error: &Error,
    ) -> Result<()> {
        let mut panic = Some(error.clone());
        for operation in rest {
            let operation = operation.map_err(Error::invalid)?;
            let taken = match panic.take() {
                Some(error) => Err(error),
                None => caught("a write", || self.insert(&operation, log_start, before)),
            };
            if let Err(error) = taken {
                self.insert_into_spare(&operation, log_start, before, &error)?;
            }
        }
        Ok(())
    }

    /// Inserts an operation at which a memtable panicked into a memtable of the engine's own, as if the other were
    /// full.
    #[cold]
    fn insert_into_spare(
        &mut self,
        operation: &Operation<'_>,
        log_start: u64,
        before: SequenceNumber,
        error: &Error,
    ) -> Result<()> {
        let number = self.numbers.next();
        let writer = self.writer(operation.keyspace).ok_or(Error::Closed)?;
        let tree = Arc::clone(&writer.tree);
        // Fail the keyspace first, so that no flush starts and calls the broken memtable.
        tree.fail(error.clone());
        if let Some(broken) = &writer.active {
            // It may hold a part of the record, which readers must not see.
            broken.memtable.cut(before);
        }
        let bytes = writer.active_bytes_of().unwrap_or(0);
        let spare = ActiveMemtable::new(&tree, &BPlusMemtable::default(), number, log_start);
        self.replace_without_calls(operation.keyspace, operation.sequence - 1, Some(spare), bytes);
        let active = self.writer(operation.keyspace).and_then(|writer| writer.active.as_mut());
        if !active.is_some_and(|active| active.insert(operation)) {
            return Err(error.clone());
        }
        self.hold_blob(operation);
        Ok(())
    }

    #[cold]
    fn insert_into_next(
        &mut self,
        operation: &Operation<'_>,
        log_start: u64,
        before: SequenceNumber,
    ) -> Result<()> {
        let writer = self.writer(operation.keyspace).ok_or(Error::Closed)?;
        if let Some(full) = &writer.active
            && operation.sequence - 1 > before
        {
            full.memtable.cut(before);
        }
        self.begin(operation.keyspace, operation.sequence - 1, log_start)?;
        let writer = self.writer(operation.keyspace).ok_or(Error::Closed)?;
        if writer.active.as_mut().is_some_and(|active| active.insert(operation)) {
            if operation.kind == ValueKind::BlobPointer {
                self.hold_blob(operation);
            }
            return Ok(());
        }
        Err(Error::Callback(
            format!("memtable {:?} is full although it is empty", writer.tree.options().memtable).into(),
        ))
    }

    /// After a write: accounts for the memory, and rotates memtables that are too large.
    #[inline]
    pub(crate) fn after_write(&mut self, keyspace: u32) {
        let budget = self.memory.budget;
        self.measured = keyspace;
        let Some(active) = self.writer(keyspace).and_then(|writer| writer.active.as_mut()) else { return };
        let bytes = active.memtable.memory_bytes();
        // Chunks grow with the memtable, so its last chunk may be half of it. Use that chunk up before the rotation.
        let is_full = bytes >= budget.memtable_bytes
            && bytes.saturating_sub(active.unused_bytes()) >= budget.memtable_bytes
            || active.is_full_of_blobs;
        let before = std::mem::replace(&mut active.bytes, bytes);
        if bytes != before {
            self.account(keyspace, Some(before), Some(bytes));
        }
        if is_full {
            self.rotate(keyspace, self.last_sequence());
        } else if self.active_bytes > budget.shares.memtables_bytes / 2 {
            self.rotate_largest();
        }
    }

    /// Bytes by which the memtables of keyspaces may grow for a write, besides the written data.
    #[inline]
    pub(crate) fn growth_bytes(&self, keyspaces: &[u32]) -> usize {
        let growth = |id: &u32| {
            // A memtable that becomes full adds an empty one. The set of range tombstones doubles when it grows.
            EMPTY_MEMTABLE_BYTES
                + match self.peek(*id).and_then(|writer| writer.active.as_ref()) {
                    Some(ActiveMemtable { bytes, memtable, .. }) => {
                        self.memory.growth_bytes(*bytes) + memtable.range_tombstones.memory_bytes()
                    }
                    None => EMPTY_MEMTABLE_BYTES + self.memory.growth_bytes(0),
                }
        };
        keyspaces.iter().map(growth).sum()
    }

    /// Fails if a write of `bytes` would not fit even with all memtables flushed and no compaction running. Such a
    /// write would wait forever and block the writers behind it.
    #[cold]
    pub(crate) fn check_ever_fits(&self, keyspaces: &[u32], bytes: usize) -> Result<()> {
        let each = 2 * EMPTY_MEMTABLE_BYTES + self.memory.growth_bytes(0);
        let wanted = room_for(bytes) + each * keyspaces.len();
        let bytes_max = self.memory.memtables_bytes_max();
        if wanted <= bytes_max { Ok(()) } else { Err(too_large(wanted, bytes_max)) }
    }

    /// Upper bound of [`growth_bytes`](Self::growth_bytes) for any set of at most `keyspaces_max` keyspaces.
    pub(crate) fn growth_bytes_max(&self, keyspaces_max: usize) -> usize {
        let each = 2 * EMPTY_MEMTABLE_BYTES + self.memory.growth_bytes(usize::MAX);
        // The active bytes include the range tombstones.
        (each * keyspaces_max.min(self.writers.len() + 1)).saturating_add(self.active_bytes)
    }

    /// Rotates the largest memtable that can be flushed. Returns `false` if there is none.
    pub(crate) fn rotate_largest(&mut self) -> bool {
        let is_flushable = |tree: &Arc<Tree>| tree.failure().is_none() && tree.flush_retry_micros().is_none();
        let can_be_flushed = |id: &u32| self.tree(*id).is_some_and(is_flushable);
        let Some(largest) = self.active.iter().rev().map(|&(_, id)| id).find(can_be_flushed) else {
            return false;
        };
        self.rotate(largest, self.last_sequence());
        true
    }

    /// Makes the active memtable of a keyspace immutable, if there is one. The next write starts a new memtable.
    pub(crate) fn rotate(&mut self, keyspace: u32, last_sequence: SequenceNumber) {
        if let Err(error) = self.replace(keyspace, last_sequence, None) {
            self.fail(keyspace, error);
        }
    }

    /// Fails the keyspace whose memtable panicked when it was asked for its size.
    #[cold]
    pub(super) fn fail_measured(&self, error: Error) {
        self.fail(self.measured, error);
    }

    #[cold]
    fn fail(&self, keyspace: u32, error: Error) {
        if let Some(tree) = self.tree(keyspace) {
            tree.fail(error);
        }
    }

    /// Gives a keyspace a new memtable, and rotates the old one, if any.
    #[cold]
    pub(crate) fn begin(
        &mut self,
        keyspace: u32,
        last_sequence: SequenceNumber,
        log_start: u64,
    ) -> Result<()> {
        let number = self.numbers.next();
        let Some(writer) = self.writer(keyspace) else { return Ok(()) };
        let tree = Arc::clone(&writer.tree);
        let fresh = || Ok(ActiveMemtable::new(&tree, &*tree.options().memtable, number, log_start));
        caught("the start of a memtable", fresh)
            .and_then(|fresh| self.replace(keyspace, last_sequence, Some(fresh)))
            .inspect_err(|error| tree.fail(error.clone()))
    }

    /// Makes `next` the active memtable of a keyspace, and rotates the old one.
    fn replace(
        &mut self,
        keyspace: u32,
        last_sequence: SequenceNumber,
        next: Option<ActiveMemtable>,
    ) -> Result<()> {
        let Some(writer) = self.writer(keyspace) else { return Ok(()) };
        if writer.active.is_some() || next.is_some() {
            let immutable_bytes = caught("the rotation of a memtable", || {
                Ok(writer.active.as_ref().map_or(0, |active| active.memtable.memory_bytes()))
            })?;
            self.replace_without_calls(keyspace, last_sequence, next, immutable_bytes);
        }
        Ok(())
    }

    /// Like [`replace`](Self::replace), but calls no user code.
    fn replace_without_calls(
        &mut self,
        keyspace: u32,
        last_sequence: SequenceNumber,
        next: Option<ActiveMemtable>,
        immutable_bytes: usize,
    ) {
        let Some(writer) = self.writer(keyspace) else { return };
        let (tree, memtable) =
            (Arc::clone(&writer.tree), next.as_ref().map(|next| Arc::clone(&next.memtable)));
        let (now, before) = (next.as_ref().map(|next| next.bytes), writer.active_bytes_of());
        let filled = std::mem::replace(&mut writer.active, next);
        let old = filled.as_ref().map(|filled| Arc::clone(&filled.memtable));
        if let Some(old) = &old {
            old.rotate(last_sequence, immutable_bytes);
            self.memory.holding.add_immutable_bytes(immutable_bytes);
        }
        self.account(keyspace, before, now);
        if memtable.is_some() {
            tree.empty_spans.outdate_older_states();
        }
        tree.update(|state| ReadState {
            begun_count: state.begun_count + u64::from(memtable.is_some()),
            memtable,
            immutable: old.iter().chain(&state.immutable).cloned().collect(),
            ..(**state).clone()
        });
        self.unflushed.add(&tree);
        if old.is_some() {
            self.flush_wanted.notify();
        }
        drop_writer(&tree, filled);
    }

    /// Rotates all memtables.
    pub(crate) fn rotate_all(&mut self) {
        let ids: Vec<u32> = self.active.iter().map(|&(_, id)| id).collect();
        for id in ids {
            self.rotate(id, self.last_sequence());
        }
    }

    /// Installs an empty read state for a keyspace that was cleared at `sequence`.
    pub(crate) fn clear(&mut self, keyspace: u32, sequence: SequenceNumber) -> Result<()> {
        let writer = self.writer(keyspace).ok_or(Error::Closed)?;
        let (tree, before) = (Arc::clone(&writer.tree), writer.active_bytes_of());
        let filled = writer.active.take();
        self.account(keyspace, before, None);
        tree.update(|state| {
            let immutable: usize = state.immutable.iter().map(|memtable| memtable.immutable_bytes()).sum();
            self.memory.holding.remove_immutable_bytes(immutable);
            self.memory.release_memtables(state.memtables().map(|memtable| Arc::clone(&memtable.reader)));
            ReadState {
                memtable: None,
                immutable: Vec::new(),
                version: Arc::new(Version::default()),
                cleared: sequence,
                before_clear: Some(Arc::clone(state)),
                untraced: sequence,
                ingested: 0,
                ..(**state).clone()
            }
        });
        self.memory.holding.trim();
        self.unflushed.recheck(&tree);
        drop_writer(&tree, filled);
        Ok(())
    }

    /// Removes the writer of a keyspace, for a follower. The read state keeps its memtables for its readers.
    pub(crate) fn give_up_writer(&mut self, keyspace: u32) {
        self.give_up_memtables(keyspace);
        self.writers.remove(&keyspace);
    }

    fn give_up_memtables(&mut self, keyspace: u32) {
        let Some(writer) = self.writer(keyspace) else { return };
        let (tree, before) = (Arc::clone(&writer.tree), writer.active_bytes_of());
        let filled = writer.active.take();
        self.account(keyspace, before, None);
        let state = tree.load();
        let immutable: usize = state.immutable.iter().map(|memtable| memtable.immutable_bytes()).sum();
        self.memory.holding.remove_immutable_bytes(immutable);
        self.memory.release_memtables(state.memtables().map(|memtable| Arc::clone(&memtable.reader)));
        self.unflushed.remove(keyspace);
        drop_writer(&tree, filled);
    }

    /// Goes on with another tree of a keyspace, for a follower whose readers keep the one before. The new tree gets the
    /// memtables, or they are given up, because tables have their data.
    pub(crate) fn exchange_tree(&mut self, tree: &Arc<Tree>, keeps_memtables: bool) {
        if !keeps_memtables {
            self.give_up_memtables(tree.id);
        }
        let Some(writer) = self.writer(tree.id) else { return };
        let before = std::mem::replace(&mut writer.tree, Arc::clone(tree));
        let active = writer.active.as_ref().map(|active| Arc::clone(&active.memtable));
        self.unflushed.remove(tree.id);
        if !keeps_memtables {
            return;
        }
        let state = before.load();
        if active.is_some() || !state.immutable.is_empty() {
            tree.update(|next| ReadState {
                memtable: active,
                immutable: state.immutable.clone(),
                begun_count: state.begun_count,
                ingested: state.ingested,
                ingested_run: state.ingested_run,
                ..(**next).clone()
            });
            self.unflushed.add(tree);
        }
    }

    /// The active memtable that pins the oldest part of the log: its log start, and the id of its keyspace.
    pub(crate) fn pins_oldest(&self) -> Option<(u64, u32)> {
        let log_start = |id| {
            let writer = if id == 0 { Some(&self.default) } else { self.writers.get(&id) };
            Some((writer?.active.as_ref()?.memtable.log_start, id))
        };
        self.active.iter().filter_map(|&(_, id)| log_start(id)).min()
    }
}

impl Committer {
    /// What a batch adds to the memtable of each keyspace. Fails if a keyspace was dropped or its background work
    /// failed.
    pub(super) fn shares(&mut self, payload: &[u8]) -> Result<Shares> {
        let mut shares = Shares::default();
        for operation in Operations::new(payload, 0) {
            let operation = operation.map_err(Error::invalid)?;
            if shares.add(&operation) {
                let keyspace = operation.keyspace;
                let name = || format!("number {keyspace}").into();
                let tree = self.tree(keyspace).ok_or_else(|| Error::KeyspaceDropped(name()))?;
                tree.check_usable()?;
                if let Some(error) = tree.failure() {
                    return Err(Error::WritingStopped(Arc::new(error)));
                }
            }
        }
        Ok(shares)
    }
}

#[cold]
fn numbers_used_up() -> Error {
    Error::invalid("all sequence numbers are used up; load the data into a new database")
}

/// Drops the writer of a memtable. Its `drop` may be user code.
fn drop_writer(tree: &Tree, filled: Option<ActiveMemtable>) {
    let dropped = caught("the end of a memtable's writer", || {
        drop(filled);
        Ok(())
    });
    if let Err(error) = dropped {
        tree.fail(error);
    }
}
