//! Creates, opens, clears and drops keyspaces.

use std::sync::Arc;

use super::{Database, WriteSide, join};
use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::keyspaces::{ReadState, Tree};
use crate::options::{KeyspaceOptions, ResolvedOptions, StoredOptions};
use crate::reentry::Inside;
use crate::version::Version;
use crate::version::edit::{KeyspaceRecord, VersionEdit};
use crate::version::manifest::Manifest;
use crate::write::KeyspaceWriter;

/// Name of keyspace 0, which every database has.
pub(crate) const DEFAULT_NAME: &str = "default";
/// Longest name of a keyspace in bytes.
const NAME_BYTES_MAX: usize = 255;

impl Database {
    pub(crate) fn tree_named(&self, name: &str) -> Option<Arc<Tree>> {
        self.trees.read().named(name).cloned()
    }

    /// Opens the keyspace with this name. Creates it if it does not exist.
    pub(crate) fn open_keyspace(&self, name: &str, given: &KeyspaceOptions) -> Result<Arc<Tree>> {
        self.check_open()?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a keyspace name must have 1 to {NAME_BYTES_MAX} bytes; this one has {}",
                name.len()
            )));
        }
        given.check()?;
        if let Some(tree) = self.tree_named(name) {
            self.configure(&tree, given)?;
            return Ok(tree);
        }
        let side = self.write_side()?;
        self.resources.check_may_change_keyspaces()?;
        let (mut manifest, inside) = (side.lock_manifest(), self.resources.enter(Inside::Manifest));
        if let Some(tree) = self.tree_named(name) {
            // Another thread created it meanwhile, perhaps with other options.
            drop((inside, manifest));
            self.configure(&tree, given)?;
            return Ok(tree);
        }
        let stored = given.added_to(&StoredOptions::default(), name, true)?;
        let options = Arc::new(self.resources.memory.resolve(given, &stored));
        options.check_purge(name)?;
        let id = manifest.state().next_keyspace;
        let next_keyspace =
            id.checked_add(1).ok_or_else(|| Error::invalid("all keyspace ids are used up"))?;
        let record = KeyspaceRecord { id, name: name.into(), options: Arc::new(stored) };
        let tree = Arc::new(Tree::new(&record, options, Version::default(), &self.resources.memory));
        let last_sequence = side.write.committer.lock().last_sequence();
        let edit = VersionEdit {
            keyspace_events: vec![manifest.state().history.next_event(
                id,
                &record.name,
                false,
                last_sequence,
            )],
            keyspaces: vec![record],
            next_keyspace: Some(next_keyspace),
            ..VersionEdit::default()
        };
        self.resources.memory.check_tables()?;
        // The keyspace must be durable in the manifest before the first log record that names it.
        side.versions.log_edit(&mut manifest, edit)?;
        join(&tree, &side.write);
        tree.keep_statistics(&self.resources.statistics);
        let mut committer = side.write.committer.lock();
        tree.configure(tree.options());
        committer.add_writer(KeyspaceWriter::new(Arc::clone(&tree)));
        self.trees.write().insert(Arc::clone(&tree));
        self.status.wake_changes();
        Ok(tree)
    }

    /// Sets and stores the user's options of a keyspace that was found on disk.
    fn configure(&self, tree: &Arc<Tree>, given: &KeyspaceOptions) -> Result<()> {
        let is_first = !tree.is_configured();
        let stored = given.added_to(&tree.stored(), &tree.name, is_first)?;
        if !is_first {
            return Ok(());
        }
        let options = Arc::new(self.resources.memory.resolve(given, &stored));
        let Some(side) = &self.writer else { return self.reopen_with(tree, given, options) };
        options.check_policy(&tree.name, &stored)?;
        self.resources.check_may_change_keyspaces()?;
        let (mut manifest, inside) = (side.lock_manifest(), self.resources.enter(Inside::Manifest));
        // Another thread may have dropped it. An edit that names it again would bring it back.
        tree.check_usable()?;
        if tree.is_configured() {
            // Another thread opened it meanwhile, perhaps with other options.
            drop((inside, manifest));
            return self.configure(tree, given);
        }
        store(side, &mut manifest, tree, stored)?;
        self.reopen_with(tree, given, options)?;
        side.write.times_to_live.note(tree);
        side.background.compaction_queue.add(tree);
        Ok(())
    }

    /// Changes and stores options of an open keyspace. New tables have them.
    pub(crate) fn set_options(&self, tree: &Arc<Tree>, given: &KeyspaceOptions) -> Result<()> {
        given.check()?;
        given.check_live(&tree.name)?;
        let side = self.write_side()?;
        self.resources.check_may_change_keyspaces()?;
        let (mut manifest, _inside) = (side.lock_manifest(), self.resources.enter(Inside::Manifest));
        tree.check_usable()?;
        let stored = given.added_to(&tree.stored(), &tree.name, true)?;
        let options = Arc::new(tree.options().changed(given));
        options.check_purge(&tree.name)?;
        let reopened = if given.gives_table_readers() {
            Some(Arc::new(tree.load().version.reopened(&self.resources.memory, &options)?))
        } else {
            None
        };
        store(side, &mut manifest, tree, stored)?;
        tree.set_options(options);
        if let Some(version) = reopened {
            tree.update(|state| ReadState { version, ..(**state).clone() });
        }
        side.write.times_to_live.note(tree);
        side.background.compaction_queue.add(tree);
        // This job asks the policy.
        self.resources.obsolete_files.event().notify();
        Ok(())
    }

    /// Sets the options of a keyspace. Reopens its tables if the user gave a filter or prefix extractor to read them with.
    fn reopen_with(&self, tree: &Tree, given: &KeyspaceOptions, options: Arc<ResolvedOptions>) -> Result<()> {
        if !given.gives_table_readers() {
            tree.configure(options);
            return Ok(());
        }
        let reopened = caught("the opening of tables", || {
            tree.load().version.reopened(&self.resources.memory, &options)
        })?;
        if tree.configure(options) {
            tree.update(|state| ReadState { version: Arc::new(reopened), ..(**state).clone() });
        }
        Ok(())
    }

    pub(crate) fn drop_keyspace(&self, name: &str) -> Result<()> {
        let side = self.write_side()?;
        if name == DEFAULT_NAME {
            return Err(Error::invalid("the default keyspace cannot be dropped; clear it instead"));
        }
        let tree =
            self.tree_named(name).ok_or_else(|| Error::invalid(format!("there is no keyspace {name:?}")))?;
        self.resources.check_may_change_keyspaces()?;
        let mut manifest = side.lock_manifest();
        // No write to the keyspace follows this mark.
        let (end, last_sequence) = {
            let committer = side.write.committer.lock();
            if tree.is_dropped() {
                return Err(Error::KeyspaceDropped(Arc::clone(&tree.name)));
            }
            tree.mark_dropped(true);
            (committer.log_end(), committer.last_sequence())
        };
        let edit = VersionEdit {
            dropped: vec![tree.id],
            keyspace_events: vec![manifest.state().history.next_event(
                tree.id,
                &tree.name,
                true,
                last_sequence,
            )],
            ..VersionEdit::default()
        };
        // Sync the log first. Otherwise a crash could keep the drop but lose a batch that also wrote to other
        // keyspaces.
        side.write
            .wait_durable(end)
            .and_then(|()| side.versions.log_edit(&mut manifest, edit))
            .inspect_err(|_| tree.mark_dropped(side.write.status.check_writing().is_err()))?;
        side.write.committer.lock().remove_writer(tree.id);
        self.trees.write().remove(&tree);
        // Handles may live on, so release the memtables and tables now.
        tree.update(|state| {
            let immutable: usize = state.immutable.iter().map(|memtable| memtable.immutable_bytes()).sum();
            self.resources.memory.holding.remove_immutable_bytes(immutable);
            self.resources
                .memory
                .release_memtables(state.memtables().map(|memtable| Arc::clone(&memtable.reader)));
            state.version.mark_obsolete();
            mark_blobs_obsolete(state);
            ReadState {
                memtable: None,
                immutable: Vec::new(),
                version: Arc::new(Version::default()),
                before_clear: None,
                ..(**state).clone()
            }
        });
        side.write.unflushed.recheck(&tree);
        side.write.status.control.wake_jobs();
        side.background.compaction_queue.add(&tree);
        self.visibility.recheck_cleared(&tree);
        drop(manifest);
        side.write.status.progress.notify();
        self.status.wake_changes();
        Ok(())
    }

    pub(crate) fn clear_keyspace(&self, tree: &Arc<Tree>) -> Result<()> {
        let side = self.write_side()?;
        self.resources.check_may_change_keyspaces()?;
        // Flushes look for their memtable and move the start of the log under this lock.
        let mut manifest = side.lock_manifest();
        let (sequence, cleared) = side.write.clear_tree(tree)?;
        self.visibility.keep_cleared(tree);
        side.background.compaction_queue.add(tree);
        let tables = manifest.state().keyspaces.get(&tree.id).map(|keyspace| keyspace.tables.keys().copied());
        let edit = VersionEdit {
            last_sequence: Some(sequence),
            flushed: vec![(tree.id, sequence)],
            removed: tables.into_iter().flatten().map(|number| (tree.id, number)).collect(),
            ..VersionEdit::default()
        };
        log_after_sync(side, &mut manifest, edit)?;
        drop(manifest);
        // The files become obsolete when the last reader releases the tables.
        cleared.version.mark_obsolete();
        mark_blobs_obsolete(&cleared);
        drop(cleared);
        self.visibility.release_cleared();
        // The memtables were released without a flush, so callers waiting for one must check again.
        side.write.status.progress.notify();
        Ok(())
    }
}

/// Marks as obsolete the blob files of memtables that will not be flushed: no record that may be replayed points to them.
fn mark_blobs_obsolete(state: &ReadState) {
    state.memtables().flat_map(|memtable| memtable.blobs()).for_each(|file| file.mark_obsolete());
}

/// Stores other options of a keyspace in the manifest.
fn store(side: &WriteSide, manifest: &mut Manifest, tree: &Tree, stored: StoredOptions) -> Result<()> {
    if stored == *tree.stored() {
        return Ok(());
    }
    let record = KeyspaceRecord { options: Arc::new(stored), ..tree.record() };
    let options = Arc::clone(&record.options);
    side.versions.log_edit(manifest, VersionEdit { keyspaces: vec![record], ..VersionEdit::default() })?;
    tree.set_stored(options);
    Ok(())
}

/// Logs an edit that must not become durable before earlier writes.
fn log_after_sync(side: &WriteSide, manifest: &mut Manifest, edit: VersionEdit) -> Result<()> {
    let end = side.write.log_end();
    // Readers already see the change. After a failure disk and memory differ, so stop all writing.
    side.write
        .wait_durable(end)
        .and_then(|()| side.versions.log_edit(manifest, edit))
        .inspect_err(|error| side.write.status.stop_writing(error.clone()))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind as Io;
    use std::sync::Arc;

    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::{Fault, OperationKind, SimFs};

    use crate::background::FlushGroup;
    use crate::{Db, KeyspaceOptions, Options};

    fn open(fs: &SimFs) -> (Arc<SimEnv>, Db) {
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        (env, db)
    }

    /// On another thread the flush would wait for the manifest lock until the clear has failed.
    #[test]
    fn a_flush_after_a_failed_clear_keeps_the_log_of_the_cleared_keyspace() {
        let fs = SimFs::new();
        let (env, db) = open(&fs);
        let cleared = db.keyspace("cleared", KeyspaceOptions::new()).unwrap();
        cleared.put("in a table", "1").unwrap();
        db.flush().unwrap();
        cleared.put("in the log", "2").unwrap();
        db.put("elsewhere", "3").unwrap();
        let (database, tree) = (Arc::clone(&db.database), db.default.tree());
        let side = database.writer.as_ref().unwrap();
        side.write.committer.lock().rotate(tree.id, database.visibility.sequence());
        let memtable = Arc::clone(&tree.load().immutable[0]);
        let mut group = FlushGroup::of(&side.background, vec![(tree, memtable.into())]);
        let manifest =
            format!("MANIFEST-{:06}", crate::inspect::current(&fs, "/db".as_ref()).unwrap().manifest);
        fs.inject(Fault::on(OperationKind::Write, Io::Other).named(manifest));
        cleared.clear().unwrap_err();
        assert!(group.step(&side.background).is_err());
        drop((group, cleared, database, db));
        env.drop_jobs();
        let (env, db) = open(&fs);
        let cleared = db.keyspace("cleared", KeyspaceOptions::new()).unwrap();
        // The failed clear may have happened as a whole, but not in part.
        let found: Vec<_> = cleared.iter().map(|entry| entry.unwrap().0).collect();
        assert!(found.is_empty() || found == ["in a table", "in the log"], "{found:?}");
        assert_eq!(db.get("elsewhere").unwrap().unwrap(), "3");
        drop((cleared, db));
        env.drop_jobs();
    }
}
