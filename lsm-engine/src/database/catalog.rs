//! Keyspaces: created, found, cleared, dropped.

use std::sync::Arc;

use super::{Database, WriteSide, join};
use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::keyspaces::{ReadState, Tree};
use crate::options::KeyspaceOptions;
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

    /// The keyspace of this name, created if need be.
    pub(crate) fn open_keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Arc<Tree>> {
        self.check_open()?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a keyspace name has 1 to {NAME_BYTES_MAX} bytes, not {}",
                name.len()
            )));
        }
        options.check()?;
        let options = self.resources.memory.shared_with(options);
        if let Some(tree) = self.tree_named(name) {
            self.configure(&tree, options)?;
            return Ok(tree);
        }
        let side = self.write_side()?;
        self.resources.check_may_change_keyspaces()?;
        let (mut manifest, inside) = (side.versions.lock(), self.resources.enter(Inside::Manifest));
        if let Some(tree) = self.tree_named(name) {
            // Somebody created it meanwhile, perhaps with other options.
            drop((inside, manifest));
            self.configure(&tree, options)?;
            return Ok(tree);
        }
        let id = manifest.state().next_keyspace;
        let next_keyspace =
            id.checked_add(1).ok_or_else(|| Error::invalid("all keyspace ids are used up"))?;
        let name: Arc<str> = name.into();
        let policy = options.compaction.name().into();
        let edit = VersionEdit {
            keyspaces: vec![KeyspaceRecord { id, name: Arc::clone(&name), policy }],
            next_keyspace: Some(next_keyspace),
            ..VersionEdit::default()
        };
        let tree = Arc::new(Tree::new(id, name, options, Version::default(), &self.resources.memory));
        self.resources.memory.check_tables()?;
        // Durable before the first record that names it.
        side.versions.log_edit(&mut manifest, edit)?;
        join(&tree, &side.write);
        let mut committer = side.write.committer.lock();
        tree.configure((*tree.options()).clone());
        committer.add_writer(KeyspaceWriter::new(Arc::clone(&tree)));
        self.trees.write().insert(Arc::clone(&tree));
        Ok(tree)
    }

    /// Gives a keyspace that was found on disk the options that its user opens it with.
    fn configure(&self, tree: &Arc<Tree>, options: KeyspaceOptions) -> Result<()> {
        let (recorded, given) = (tree.policy(), options.compaction.name());
        if *recorded != *given && (!options.change_compaction || tree.is_configured()) {
            return Err(policy_mismatch(&tree.name, &recorded, given));
        }
        if tree.is_configured() {
            return Ok(());
        }
        let Some(side) = &self.writer else { return self.reopen_with(tree, options) };
        self.resources.check_may_change_keyspaces()?;
        let (mut manifest, _inside) = (side.versions.lock(), self.resources.enter(Inside::Manifest));
        if *recorded != *given {
            let record = KeyspaceRecord { id: tree.id, name: Arc::clone(&tree.name), policy: given.into() };
            side.versions
                .log_edit(&mut manifest, VersionEdit { keyspaces: vec![record], ..VersionEdit::default() })?;
            tree.set_policy(given.into());
        }
        self.reopen_with(tree, options)?;
        side.background.compaction_queue.add(tree);
        Ok(())
    }

    /// Opens the tables of a keyspace anew: filters and prefix extractors come with the options.
    fn reopen_with(&self, tree: &Tree, options: KeyspaceOptions) -> Result<()> {
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
        let mut manifest = side.versions.lock();
        // From here on nothing more is written to it.
        let end = {
            let committer = side.write.committer.lock();
            if tree.is_dropped() {
                return Err(Error::KeyspaceDropped(Arc::clone(&tree.name)));
            }
            tree.mark_dropped(true);
            committer.log_end()
        };
        let edit = VersionEdit { dropped: vec![tree.id], ..VersionEdit::default() };
        // Batches that wrote to it must not lose the rest of what they wrote.
        side.write
            .wait_durable(end)
            .and_then(|()| side.versions.log_edit(&mut manifest, edit))
            .inspect_err(|_| tree.mark_dropped(side.write.status.check_writing().is_err()))?;
        side.write.committer.lock().remove_writer(tree.id);
        self.trees.write().remove(&tree);
        // Handles may stay for long: what they lead to must not.
        tree.update(|state| {
            let immutable: usize = state.immutable.iter().map(|memtable| memtable.immutable_bytes()).sum();
            self.resources.memory.remove_immutable_bytes(immutable);
            self.resources.memory.let_go(state.memtables().map(|memtable| Arc::clone(&memtable.reader)));
            state.version.tables().for_each(|table| table.mark_obsolete());
            ReadState {
                memtable: None,
                immutable: Vec::new(),
                version: Arc::new(Version::default()),
                before_clear: None,
                ..(**state).clone()
            }
        });
        side.write.unflushed.look_at(&tree);
        side.background.compaction_queue.add(&tree);
        self.visibility.look_at_cleared(&tree);
        drop(manifest);
        side.write.status.progress.notify();
        Ok(())
    }

    pub(crate) fn clear_keyspace(&self, tree: &Arc<Tree>) -> Result<()> {
        let side = self.write_side()?;
        self.resources.check_may_change_keyspaces()?;
        // Flushes look for their memtable under this lock, and move the start of the log under it.
        let mut manifest = side.versions.lock();
        let version = Arc::clone(&tree.load().version);
        let sequence = side.write.clear_tree(tree)?;
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
        // They go when their last reader does.
        version.tables().for_each(|table| table.mark_obsolete());
        self.visibility.forget_cleared();
        // Its memtables are gone without a flush.
        side.write.status.progress.notify();
        Ok(())
    }
}

/// Logs an edit that must not become durable before the writes that came before it.
fn log_after_sync(side: &WriteSide, manifest: &mut Manifest, edit: VersionEdit) -> Result<()> {
    let end = side.write.log_end();
    // What readers see is changed already: a failure leaves disk and memory apart, so nothing may follow.
    side.write
        .wait_durable(end)
        .and_then(|()| side.versions.log_edit(manifest, edit))
        .inspect_err(|error| side.write.status.stop_writing(error.clone()))
}

pub(crate) fn policy_mismatch(keyspace: &str, created: &str, given: &str) -> Error {
    Error::OptionsMismatch(
        format!(
            "keyspace {keyspace:?} was created with compaction policy {created:?}, and the options give {given:?}; \
             pass the same policy, or KeyspaceOptions::change_compaction(true) to change it"
        )
        .into(),
    )
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

    /// On another thread the flush would wait for the manifest until the clear has failed.
    #[test]
    fn a_flush_beside_a_clear_that_fails_keeps_the_log_of_what_was_cleared() {
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
        let mut group = FlushGroup::of(&side.background, vec![(tree, memtable)]);
        let manifest =
            format!("MANIFEST-{:06}", crate::inspect::current(&fs, "/db".as_ref()).unwrap().manifest);
        fs.inject(Fault::on(OperationKind::Write, Io::Other).named(manifest));
        cleared.clear().unwrap_err();
        assert!(group.step(&side.background).is_err());
        drop((group, cleared, database, db));
        env.drop_jobs();
        let (env, db) = open(&fs);
        let cleared = db.keyspace("cleared", KeyspaceOptions::new()).unwrap();
        // The clear failed, and may have happened; a half of it may not.
        let found: Vec<_> = cleared.iter().map(|entry| entry.unwrap().0).collect();
        assert!(found.is_empty() || found == ["in a table", "in the log"], "{found:?}");
        assert_eq!(db.get("elsewhere").unwrap().unwrap(), "3");
        drop((cleared, db));
        env.drop_jobs();
    }
}
