//! The keyspaces of a follower: tables as the manifest names them, and memtables of what the log has beyond.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use lsm_core::{SEQUENCE_MAX, SequenceNumber, ValueKind};
use lsm_wal::Record;

use crate::error::{Error, Result};
use crate::keyspaces::{Tree, Trees};
use crate::options::{KeyspaceOptions, Options, ResolvedOptions};
use crate::recovery::{malformed, open_blob, wanted_bytes};
use crate::resources::Resources;
use crate::version::edit::{AddedBlob, KeyspaceRecord, decode_ingested};
use crate::version::manifest::{KeyspaceState, ManifestState};
use crate::version::{Numbers, Placement, TableOpener, Version, open_blobs, open_tables};
use crate::write::{Committer, KeyspaceWriter, Operation, Operations};

/// The keyspaces of a follower.
///
/// A tree keeps its version for life, so that those who read it see what they saw before: the owner compacts without
/// knowing of them. A change of the manifest makes new trees of the keyspaces that it concerns. The log is inserted into
/// the memtables of trees that readers may have; they read at the number that was published to them.
pub(crate) struct Replica {
    resources: Arc<Resources>,
    options: Options,
    trees: Trees,
    committer: Committer,
    numbers: Arc<Numbers>,
    /// By keyspace: the sequence number up to which its writes are in tables.
    flushed: BTreeMap<u32, SequenceNumber>,
    /// By keyspace: the last sequence number in its memtables.
    inserted: BTreeMap<u32, SequenceNumber>,
    next_keyspace: u32,
    /// Versions that are replaced.
    replaced: Vec<Weak<Version>>,
    /// The last number of the record before.
    last_sequence: SequenceNumber,
    /// Keyspaces of the current record.
    touched: Vec<u32>,
}

/// What became of a record.
pub(crate) enum Taken {
    Inserted,
    /// The memtables have no room for it.
    NoRoom,
    /// It names a keyspace that the manifest did not have when it was read.
    UnknownKeyspace,
}

impl Replica {
    /// Opens the tables of a manifest. The memtables are empty.
    pub(crate) fn open(resources: &Arc<Resources>, options: &Options, state: &ManifestState) -> Result<Self> {
        let memory = &resources.memory;
        let mut resolved = BTreeMap::new();
        let mut records = BTreeMap::new();
        for (&id, keyspace) in &state.keyspaces {
            let (record, options) = resolve(resources, options, &keyspace.record)?;
            records.insert(id, record);
            resolved.insert(id, options);
        }
        let opener = opener_of_all(resources, resolved.clone());
        let mut blobs = open_blobs(&opener, state)?;
        let mut tables = open_tables(opener, &*resources.env, state)?;
        let (mut trees, mut writers) = (Trees::default(), BTreeMap::new());
        for (id, record) in &records {
            let options = resolved.get(id).ok_or_else(|| Error::invalid("no such keyspace"))?;
            let blobs = blobs.remove(id).unwrap_or_default();
            let version = Version::new(tables.remove(id).unwrap_or_default(), &blobs);
            let tree = Arc::new(Tree::new(record, Arc::clone(options), version, memory));
            memory.check_tables()?;
            if *id == 0 {
                tree.configure(Arc::clone(options));
            }
            writers.insert(*id, KeyspaceWriter::new(Arc::clone(&tree)));
            trees.insert(tree);
        }
        let default = writers.remove(&0).ok_or_else(|| Error::invalid("no default keyspace"))?;
        let numbers = Arc::new(Numbers::from(state.next_number));
        let committer = Committer::new(
            state.last_sequence,
            default,
            writers.into_values(),
            Arc::clone(memory),
            Arc::clone(&numbers),
        );
        Ok(Self {
            resources: Arc::clone(resources),
            options: options.clone(),
            trees,
            committer,
            numbers,
            flushed: state.keyspaces.iter().map(|(&id, keyspace)| (id, keyspace.flushed)).collect(),
            inserted: BTreeMap::new(),
            next_keyspace: state.next_keyspace,
            replaced: Vec::new(),
            last_sequence: 0,
            touched: Vec::new(),
        })
    }

    pub(crate) fn trees(&self) -> &Trees {
        &self.trees
    }

    /// The versions that were replaced since the last call.
    pub(crate) fn take_replaced(&mut self) -> Vec<Weak<Version>> {
        std::mem::take(&mut self.replaced)
    }

    /// Whether the memtables of one of these keyspaces hold what is in tables now, and more: then the log must be read
    /// again for them. All memtables are given up if `rebuild` is set.
    pub(crate) fn must_read_again(&self, state: &ManifestState, changed: &BTreeSet<u32>) -> bool {
        changed.iter().any(|id| {
            let flushed = state.keyspaces.get(id).map(|keyspace| keyspace.flushed);
            flushed.is_some_and(|flushed| self.must_read_again_of(*id, flushed))
        })
    }

    fn must_read_again_of(&self, id: u32, flushed: SequenceNumber) -> bool {
        let is_same = self.flushed.get(&id) == Some(&flushed);
        !is_same && self.inserted.get(&id).is_some_and(|&inserted| inserted > flushed)
    }

    /// Makes new trees of the keyspaces that changed. Returns those whose memtables are incomplete until the log was read
    /// again for them. With `rebuild` all memtables are given up.
    pub(crate) fn adopt(
        &mut self,
        state: &ManifestState,
        changed: &BTreeSet<u32>,
        rebuild: bool,
    ) -> Result<BTreeSet<u32>> {
        let mut incomplete = BTreeSet::new();
        let all: BTreeSet<u32>;
        let ids = if rebuild {
            all = self.flushed.keys().chain(state.keyspaces.keys()).copied().collect();
            &all
        } else {
            changed
        };
        self.next_keyspace = self.next_keyspace.max(state.next_keyspace);
        // Memtables that begin from now on are newer than the runs of the manifest.
        self.numbers.skip_to(state.next_number);
        for &id in ids {
            let Some(keyspace) = state.keyspaces.get(&id) else {
                self.remove(id);
                continue;
            };
            let KeyspaceState { record, flushed, .. } = keyspace;
            let before = self.trees.get(id).cloned();
            let (record, resolved) = match &before {
                // Whoever opened the keyspace by name gave it options.
                Some(tree) => (KeyspaceRecord { options: tree.stored(), ..record.clone() }, tree.options()),
                None => resolve(&self.resources, &self.options, record)?,
            };
            let keeps_memtables = !rebuild && self.flushed.get(&id) == Some(flushed);
            let version = self.version(before.as_ref(), keeps_memtables, keyspace, &resolved)?;
            let tree = Arc::new(Tree::new(&record, Arc::clone(&resolved), version, &self.resources.memory));
            self.resources.memory.check_tables()?;
            if before.as_ref().is_none_or(|before| before.is_configured()) {
                tree.configure(resolved);
            }
            if let Some(before) = &before {
                let (old, new) = (&before.load().version, &tree.load().version);
                new.retire(old);
                self.replaced.push(Arc::downgrade(old));
            }
            if !keeps_memtables {
                if rebuild || self.must_read_again_of(id, *flushed) {
                    incomplete.insert(id);
                }
                self.inserted.remove(&id);
            }
            if before.is_some() {
                self.committer.exchange_tree(&tree, keeps_memtables);
            } else {
                self.committer.add_writer(KeyspaceWriter::new(Arc::clone(&tree)));
            }
            self.flushed.insert(id, *flushed);
            self.trees.insert(tree);
        }
        Ok(incomplete)
    }

    fn remove(&mut self, id: u32) {
        let Some(tree) = self.trees.get(id).cloned() else { return };
        self.committer.give_up_writer(id);
        self.replaced.push(Arc::downgrade(&tree.load().version));
        self.trees.remove(&tree);
        self.flushed.remove(&id);
        self.inserted.remove(&id);
    }

    /// The version of a keyspace, with the tables that are open already.
    fn version(
        &self,
        before: Option<&Arc<Tree>>,
        keeps_memtables: bool,
        keyspace: &KeyspaceState,
        options: &Arc<ResolvedOptions>,
    ) -> Result<Version> {
        let old = before.map(|tree| Arc::clone(&tree.load().version)).unwrap_or_default();
        let mut there: HashMap<u64, Placement> =
            old.placements().map(|placement| (placement.table.number(), placement)).collect();
        if let Some(tree) = before.filter(|_| keeps_memtables) {
            // The manifest does not name these yet.
            let state = tree.load();
            for placement in state.immutable.iter().flat_map(|memtable| &memtable.ingested) {
                there.remove(&placement.table.number());
            }
        }
        let opener = opener(&self.resources, keyspace.record.id, options);
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (number, table) in &keyspace.tables {
            match there.remove(number) {
                Some(known) if known.level == table.level as usize && known.run == table.run => {}
                Some(known) => {
                    let (level, run) = (table.level as usize, table.run);
                    added.push(Placement { level, run, table: Arc::clone(&known.table) });
                    removed.push(known);
                }
                None => added.push(opener.open(table, "the manifest")?),
            }
        }
        removed.extend(there.into_values());
        let is_new = |blobs: &&AddedBlob| {
            old.blobs().find(blobs.blob).is_none_or(|known| known.file.number() != blobs.number)
        };
        let blobs = keyspace.blobs().filter(is_new).map(|blobs| opener.open_blobs(blobs));
        let blobs = blobs.collect::<Result<Vec<_>>>()?;
        Ok(old.with_blobs(&blobs).changed(&removed, added))
    }

    /// Before the log is read from the start: its sequence numbers begin anew.
    pub(crate) fn restart_log(&mut self) {
        self.last_sequence = 0;
    }

    /// The last number of the record that was inserted last.
    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence
    }

    /// Inserts the operations of a record that are not in tables, `only` those of some keyspaces if it was inserted
    /// before. After an error the memtables must be given up.
    pub(crate) fn insert(&mut self, record: &Record<'_>, only: Option<&BTreeSet<u32>>) -> Result<Taken> {
        let (start, tag) = (record.start.0, record.tag);
        if tag == 0 || tag > SEQUENCE_MAX || tag <= self.last_sequence {
            let detail = format!("sequence number {tag} does not follow {}", self.last_sequence);
            return Err(malformed(record, &detail));
        }
        let mut last = tag;
        for operation in Operations::new(record.payload, tag) {
            let operation = operation.map_err(|detail| malformed(record, detail))?;
            if operation.keyspace >= self.next_keyspace {
                return Ok(Taken::UnknownKeyspace);
            }
            last = operation.sequence;
        }
        let holding = &self.resources.memory.holding;
        let wanted = wanted_bytes(&self.flushed, &self.committer, record, holding.possible_room_bytes());
        if !holding.has_room(wanted, 0, None) {
            return Ok(Taken::NoRoom);
        }
        self.touched.clear();
        for operation in Operations::new(record.payload, tag) {
            let operation = operation.map_err(|detail| malformed(record, detail))?;
            let id = operation.keyspace;
            let is_new = self.flushed.get(&id).is_some_and(|&flushed| operation.sequence > flushed);
            if !is_new || only.is_some_and(|only| !only.contains(&id)) {
                continue;
            }
            if operation.kind == ValueKind::KeyspaceClear {
                if let Some(tree) = self.trees.get(id) {
                    self.replaced.push(Arc::downgrade(&tree.load().version));
                }
                self.committer.clear(id, operation.sequence)?;
            } else if operation.kind == ValueKind::Ingest {
                self.ingest(record, &operation)?;
            } else {
                if operation.kind == ValueKind::BlobPointer {
                    let Resources { memory, directory, .. } = &*self.resources;
                    let file = open_blob(memory, directory, &Arc::default(), &operation, record)?;
                    self.committer.set_blobs(vec![file]);
                }
                self.committer.insert(&operation, start, tag - 1)?;
            }
            self.inserted.insert(id, operation.sequence);
            if !self.touched.contains(&id) {
                self.touched.push(id);
            }
        }
        self.last_sequence = last;
        self.committer.set_last_sequence(last);
        for &id in &self.touched {
            self.committer.after_write(id);
        }
        Ok(Taken::Inserted)
    }

    /// Takes in tables that only the log names.
    fn ingest(&mut self, record: &Record<'_>, operation: &Operation<'_>) -> Result<()> {
        let Operation { keyspace, sequence, value, .. } = *operation;
        let Some(tree) = self.trees.get(keyspace) else { return Ok(()) };
        let tables = decode_ingested(value, keyspace, sequence)
            .map_err(|error| error.at(record.path, record.offset))?;
        let opener = opener(&self.resources, keyspace, &tree.options());
        let files = tables.iter().map(|table| Ok(opener.open(table, "the log")?.table));
        let files = files.collect::<Result<Vec<_>>>()?;
        self.replaced.push(Arc::downgrade(&tree.load().version));
        self.committer.install_ingested(keyspace, files, sequence, record.start.0)
    }

    /// Fails if a memtable panicked: then it may lack something.
    pub(crate) fn check(&self) -> Result<()> {
        self.trees.all().find_map(|tree| tree.failure()).map_or(Ok(()), Err)
    }
}

/// The options of a keyspace that nobody has opened by name.
fn resolve(
    resources: &Resources,
    options: &Options,
    record: &KeyspaceRecord,
) -> Result<(KeyspaceRecord, Arc<ResolvedOptions>)> {
    let none = KeyspaceOptions::default();
    let mut record = record.clone();
    let given = if record.id == 0 { &options.keyspace } else { &none };
    if record.id == 0 {
        record.options = Arc::new(given.added_to(&record.options, &record.name, true)?);
    }
    let resolved = Arc::new(resources.memory.resolve(given, &record.options));
    Ok((record, resolved))
}

/// Opens tables of one keyspace.
fn opener(resources: &Resources, id: u32, options: &Arc<ResolvedOptions>) -> TableOpener {
    opener_of_all(resources, BTreeMap::from([(id, Arc::clone(options))]))
}

fn opener_of_all(resources: &Resources, options: BTreeMap<u32, Arc<ResolvedOptions>>) -> TableOpener {
    TableOpener {
        directory: resources.directory.clone(),
        options,
        memory: Arc::clone(&resources.memory),
        // A follower removes no files.
        obsolete_files: Arc::default(),
    }
}
