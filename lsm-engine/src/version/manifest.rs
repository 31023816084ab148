//! The manifest: a log of version edits, and the state that results from them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_core::env::Env;
use lsm_core::vfs::Vfs;
use lsm_sstable::BlobRef;
use lsm_wal::{CleanClose, RecordFile};

use super::current::Current;
use super::edit::{AddedBlob, AddedTable, KeyspaceRecord, LogStart, VersionEdit};
use super::lease::EditPosition;
use crate::error::{Error, Result};
use crate::version::files;
use crate::version::history::{History, SharedHistory, SlotRecord};

/// A manifest is replaced when it has at least this length and a new one would be at most a quarter as long.
const ROLL_BYTES: u64 = 4 << 20;

/// The state that results from all edits of a manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ManifestState {
    pub(crate) next_number: u64,
    pub(crate) next_keyspace: u32,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) log: LogStart,
    /// The log has a segment with this number or a higher one; 0 before there was a log.
    pub(crate) log_begun: u64,
    /// The highest wall clock seen, and the time of the clock for table ages; 0 for none.
    pub(crate) clock_micros: u64,
    pub(crate) age_clock_micros: u64,
    /// What writes up to this number deleted is in no file any more; 0 before anything was purged.
    pub(crate) purged: SequenceNumber,
    /// Tells this database from all others; 0 in manifests of older builds.
    pub(crate) database_id: u128,
    pub(crate) keyspaces: BTreeMap<u32, KeyspaceState>,
    pub(crate) history: History,
    /// The change slots.
    pub(crate) slots: BTreeMap<Arc<str>, SlotRecord>,
}

/// One keyspace of a [`ManifestState`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyspaceState {
    pub(crate) record: KeyspaceRecord,
    pub(crate) flushed: SequenceNumber,
    /// By file number.
    pub(crate) tables: BTreeMap<u64, AddedTable>,
    pub(crate) blobs: BTreeMap<u64, BlobState>,
}

/// One blob of a keyspace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlobState {
    pub(crate) added: AddedBlob,
    /// Number of tables that point to it. Without any, it is gone.
    tables: u64,
}

impl KeyspaceState {
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &AddedBlob> {
        self.blobs.values().map(|blob| &blob.added)
    }

    pub(crate) fn new(record: KeyspaceRecord) -> Self {
        Self { record, flushed: 0, tables: BTreeMap::new(), blobs: BTreeMap::new() }
    }

    /// Removes a table. Returns what it held of blobs.
    fn remove(&mut self, number: u64) -> Result<Arc<[BlobRef]>, String> {
        let removed = self.tables.remove(&number);
        let removed = removed.ok_or_else(|| format!("table {number} is removed but does not exist"))?;
        for held in removed.meta.blobs.iter() {
            if let Some(blob) = self.blobs.get_mut(&held.blob) {
                blob.tables = blob.tables.saturating_sub(1);
            }
        }
        Ok(removed.meta.blobs)
    }

    fn add(&mut self, table: &AddedTable) -> Result<(), String> {
        for held in table.meta.blobs.iter() {
            let blob = self.blobs.get_mut(&held.blob);
            let missing =
                || format!("table {} points to blob {}, which does not exist", table.number, held.blob);
            blob.ok_or_else(missing)?.tables += 1;
        }
        match self.tables.insert(table.number, table.clone()) {
            Some(_) => Err(format!("table {} is added twice", table.number)),
            None => Ok(()),
        }
    }

    fn add_blob(&mut self, added: &AddedBlob) {
        let known = self.blobs.entry(added.blob);
        let state = known.or_insert_with(|| BlobState { added: added.clone(), tables: 0 });
        state.added = added.clone();
    }
}

impl ManifestState {
    /// An id for a new database.
    pub(crate) fn random_id(env: &dyn Env) -> u128 {
        ((u128::from(env.random()) << 64) | u128::from(env.random())).max(1)
    }

    /// Applies an edit. `Err` tells how it contradicts earlier edits.
    pub(crate) fn apply(&mut self, edit: &VersionEdit) -> Result<(), String> {
        for record in &edit.keyspaces {
            let state = KeyspaceState::new(record.clone());
            match self.keyspaces.entry(record.id) {
                Entry::Vacant(free) => {
                    free.insert(state);
                }
                // Only the options of a keyspace can change.
                Entry::Occupied(mut taken) if taken.get().record.name == record.name => {
                    taken.get_mut().record = record.clone();
                }
                Entry::Occupied(_) => return Err(format!("keyspace {} is created twice", record.id)),
            }
        }
        let mut touched: Vec<(u32, u64)> = edit.added_blobs.iter().map(|it| (it.keyspace, it.blob)).collect();
        for &(id, number) in &edit.removed {
            let held = self.keyspaces.get_mut(&id).ok_or_else(|| unknown(id))?.remove(number)?;
            touched.extend(held.iter().map(|held| (id, held.blob)));
        }
        for blob in &edit.added_blobs {
            self.keyspaces.get_mut(&blob.keyspace).ok_or_else(|| unknown(blob.keyspace))?.add_blob(blob);
        }
        for table in &edit.added {
            self.keyspaces.get_mut(&table.keyspace).ok_or_else(|| unknown(table.keyspace))?.add(table)?;
        }
        for (id, blob) in touched {
            if let Some(keyspace) = self.keyspaces.get_mut(&id)
                && keyspace.blobs.get(&blob).is_some_and(|blob| blob.tables == 0)
            {
                keyspace.blobs.remove(&blob);
            }
        }
        for &(id, sequence) in &edit.flushed {
            let keyspace = self.keyspaces.get_mut(&id).ok_or_else(|| unknown(id))?;
            keyspace.flushed = keyspace.flushed.max(sequence);
        }
        for id in &edit.dropped {
            self.keyspaces.remove(id).ok_or_else(|| unknown(*id))?;
        }
        for name in &edit.dropped_slots {
            self.slots.remove(name).ok_or_else(|| format!("there is no change slot {name:?}"))?;
        }
        self.slots.extend(edit.slots.iter().map(|slot| (Arc::clone(&slot.name), slot.clone())));
        self.history.add(&edit.epochs, &edit.keyspace_events, &self.slots)?;
        self.history.event_count = self.history.event_count.max(edit.keyspace_event_count.unwrap_or(0));
        self.next_number = self.next_number.max(edit.next_number.unwrap_or(0));
        self.next_keyspace = self.next_keyspace.max(edit.next_keyspace.unwrap_or(0));
        self.last_sequence = self.last_sequence.max(edit.last_sequence.unwrap_or(0));
        self.purged = self.purged.max(edit.purged.unwrap_or(0));
        self.take_marks(edit);
        self.log_begun = self.log_begun.max(edit.log_begun.unwrap_or(0));
        self.database_id = edit.database_id.unwrap_or(self.database_id);
        if let Some(log) = edit.log {
            self.log = log;
        }
        match edit.keyspaces.iter().find(|record| record.id >= self.next_keyspace) {
            // A new keyspace would get the same id.
            Some(record) => Err(format!("keyspace {} has an id that was not given out yet", record.id)),
            None => Ok(()),
        }
    }

    /// Takes the marks of the clocks from an edit.
    pub(crate) fn take_marks(&mut self, edit: &VersionEdit) {
        self.clock_micros = self.clock_micros.max(edit.clock_micros.unwrap_or(0));
        self.age_clock_micros = self.age_clock_micros.max(edit.age_clock_micros.unwrap_or(0));
    }

    /// One edit that contains the whole state.
    pub(crate) fn to_edit(&self) -> VersionEdit {
        VersionEdit {
            next_number: Some(self.next_number),
            last_sequence: Some(self.last_sequence),
            log: Some(self.log),
            keyspaces: self.keyspaces.values().map(|keyspace| keyspace.record.clone()).collect(),
            flushed: self.keyspaces.iter().map(|(&id, keyspace)| (id, keyspace.flushed)).collect(),
            added: self.keyspaces.values().flat_map(|keyspace| keyspace.tables.values().cloned()).collect(),
            added_blobs: self
                .keyspaces
                .values()
                .flat_map(|keyspace| keyspace.blobs.values().map(|blob| blob.added.clone()))
                .collect(),
            next_keyspace: Some(self.next_keyspace),
            clock_micros: Some(self.clock_micros),
            age_clock_micros: Some(self.age_clock_micros),
            log_begun: Some(self.log_begun),
            purged: Some(self.purged).filter(|&sequence| sequence > 0),
            database_id: Some(self.database_id).filter(|&id| id != 0),
            epochs: self.history.epochs.clone(),
            slots: self.slots.values().cloned().collect(),
            keyspace_events: self.history.events.iter().cloned().collect(),
            keyspace_event_count: Some(self.history.event_count).filter(|&count| count != 0),
            ..VersionEdit::default()
        }
    }

    /// The history, for readers of changes.
    pub(crate) fn shared_history(&self) -> SharedHistory {
        SharedHistory::new(self.history.clone(), self.database_id, self.log.position)
    }

    /// The keyspaces in which it differs from another state.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<u32> {
        let ids = self.keyspaces.keys().chain(other.keyspaces.keys()).copied();
        ids.filter(|id| self.keyspaces.get(id) != other.keyspaces.get(id)).collect()
    }

    /// Bytes of an edit that contains the whole state.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        self.to_edit().encode().len() as u64
    }

    /// Numbers of all tables.
    pub(crate) fn table_numbers(&self) -> BTreeSet<u64> {
        self.keyspaces.values().flat_map(|keyspace| keyspace.tables.keys().copied()).collect()
    }

    /// All blob files.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &AddedBlob> {
        self.keyspaces.values().flat_map(KeyspaceState::blobs)
    }

    /// Numbers of all blob files.
    pub(crate) fn blob_file_numbers(&self) -> BTreeSet<u64> {
        self.blobs().map(|added| added.number).collect()
    }
}

fn unknown(id: u32) -> String {
    format!("there is no keyspace {id}")
}

/// The current manifest.
pub(crate) struct Manifest {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    number: u64,
    file: RecordFile,
    snapshot_bytes: u64,
    /// The record seed of this and later manifests; see [`RecordFile::create`].
    record_seed: u32,
    /// An append failed. The file is never appended to again; the next edit goes to a new manifest.
    must_roll: bool,
    state: ManifestState,
}

impl Manifest {
    /// Writes a manifest with `state`, and makes `CURRENT` name it. Both are durable afterwards. `record_seed` is a
    /// random number.
    pub(crate) fn create(
        vfs: &Arc<dyn Vfs>,
        directory: &Path,
        number: u64,
        record_seed: u32,
        state: ManifestState,
    ) -> Result<Self> {
        let manifest = Self::prepare(vfs, directory, number, record_seed, state)?;
        Current::publish(&*manifest.vfs, directory)?;
        Ok(manifest)
    }

    /// Writes the manifest of a copy of a database whose log ends as `log` says, and `CURRENT`, durably.
    pub(crate) fn create_closed(
        vfs: &Arc<dyn Vfs>,
        directory: &Path,
        record_seed: u32,
        state: ManifestState,
        log: CleanClose,
    ) -> Result<()> {
        let number = state.next_number;
        Self::write(Arc::clone(vfs), directory, number, record_seed, state)?.close(log)
    }

    /// Writes a manifest and `CURRENT.next`, durably. After a failure it removes both, since on a full disk each
    /// attempt would leave another file.
    fn prepare(
        vfs: &Arc<dyn Vfs>,
        directory: &Path,
        number: u64,
        record_seed: u32,
        state: ManifestState,
    ) -> Result<Self> {
        let prepared =
            Self::write(Arc::clone(vfs), directory, number, record_seed, state).and_then(|manifest| {
                manifest.current().prepare(&**vfs, directory)?;
                Ok(manifest)
            });
        prepared.inspect_err(|_| {
            let _ = vfs.remove_file(&files::manifest(directory, number));
            let _ = vfs.remove_file(&directory.join(files::CURRENT_NEXT));
        })
    }

    /// Writes a manifest, durably. `CURRENT` does not name it yet.
    fn write(
        vfs: Arc<dyn Vfs>,
        directory: &Path,
        number: u64,
        record_seed: u32,
        mut state: ManifestState,
    ) -> Result<Self> {
        state.next_number = state.next_number.max(number + 1);
        let path = files::manifest(directory, number);
        let mut file = RecordFile::create(&*vfs, &path, number, record_seed)?;
        file.append(0, &state.to_edit().encode())?;
        file.sync()?;
        vfs.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))?;
        let snapshot_bytes = file.end().0;
        let directory = directory.to_owned();
        Ok(Self { vfs, directory, number, file, snapshot_bytes, record_seed, must_roll: false, state })
    }

    /// The content of `CURRENT` while this manifest is in use.
    pub(crate) fn current(&self) -> Current {
        Current { manifest: self.number, manifest_synced: self.snapshot_bytes, clean: None }
    }

    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The place of the last edit. After a failed append it is where the next manifest will begin: a follower may have
    /// read the edit that does not count.
    pub(crate) fn end(&self) -> EditPosition {
        if self.must_roll {
            return EditPosition { manifest: self.number.saturating_add(1), position: 0 };
        }
        EditPosition { manifest: self.number, position: self.file.end().0 }
    }

    /// The name of its file.
    pub(crate) fn file_name(&self) -> Arc<str> {
        files::manifest(Path::new(""), self.number).to_string_lossy().into()
    }

    /// Estimated bytes of a new manifest with the same state.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.snapshot_bytes.max(self.file.end().0 / 4)
    }

    /// Has the next edit begin a new manifest: this one holds keys of tables that are gone.
    pub(crate) fn roll_next(&mut self) {
        self.must_roll = true;
    }

    /// Logs an edit, durably. `new_number` returns the number of a new manifest if one is due.
    ///
    /// After a failure the edit does not count. After [`AppendError::InDoubt`] the caller must stop writing until the
    /// database is reopened.
    pub(crate) fn append(
        &mut self,
        edit: &VersionEdit,
        new_number: impl FnOnce() -> u64,
    ) -> Result<(), AppendError> {
        if self.must_roll || self.file.end().0 >= ROLL_BYTES.max(4 * self.snapshot_bytes) {
            let mut next = self.state.clone();
            next.apply(edit).map_err(|detail| self.contradiction(detail))?;
            let number = new_number();
            let rolled = Self::prepare(&self.vfs, &self.directory, number, self.record_seed, next)
                .map_err(AppendError::Refused)?;
            Current::publish(&*self.vfs, &self.directory).map_err(AppendError::InDoubt)?;
            let old = self.path();
            *self = rolled;
            if let Err(error) = self.vfs.remove_file(&old) {
                tracing::warn!(path = %old.display(), %error, "failed to remove an old manifest");
            }
            return Ok(());
        }
        if let Err(error) = self.file.append(0, &edit.encode()) {
            self.must_roll = true;
            // The whole record may be in the file although the append failed. Cut it off, or the next open would apply
            // it.
            return Err(match self.file.take_back() {
                Ok(()) => AppendError::Refused(error.into()),
                Err(_) => AppendError::InDoubt(error.into()),
            });
        }
        self.file.sync().map_err(|error| AppendError::InDoubt(error.into()))?;
        self.state.apply(edit).map_err(|detail| self.contradiction(detail))
    }

    /// Marks the database as cleanly closed. Nothing may be appended afterwards.
    pub(crate) fn close(&mut self, log: CleanClose) -> Result<()> {
        let manifest_synced = self.file.end().0;
        Current { manifest: self.number, manifest_synced, clean: Some(log) }
            .store(&*self.vfs, &self.directory)
    }

    fn contradiction(&self, detail: String) -> AppendError {
        AppendError::InDoubt(Error::corruption(&self.path(), self.file.end().0, detail))
    }

    fn path(&self) -> PathBuf {
        files::manifest(&self.directory, self.number)
    }
}

/// The ways in which an append may fail.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing was changed. The next append may succeed.
    Refused(Error),
    /// It is unknown whether the manifest has the edit.
    InDoubt(Error),
}
