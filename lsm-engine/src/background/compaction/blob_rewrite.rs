//! Rewrites blob files with much garbage: finds the pointers to them in the tables, and copies the values that these point
//! to into files that take the place of the old ones. Pointers and tables stay as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsm_core::env::{Job, Priority, Step};
use lsm_core::{BlobPointer, Cursor, ValueKind};
use lsm_sstable::{BlobWriter, CursorAccess, TableCursor};

use super::blob_output::NewBlobs;
use crate::background::context::{JobContext, JobToken};
use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::keyspaces::{ReadState, Tree};
use crate::memory::{Charge, Part};
use crate::reentry::Inside;
use crate::version::edit::VersionEdit;
use crate::version::{LiveBlob, TableFile, files};

/// Maximum number of entries that one step looks at, and bytes that it copies.
const ENTRIES_PER_STEP: usize = 8192;
const BYTES_PER_STEP: u64 = 1 << 20;

/// Starts the rewrite that is due, if none runs.
pub(super) fn start_due(context: &Arc<JobContext>) {
    if context.status.control.is_paused() || context.status.is_stopping() {
        return;
    }
    let now_micros = context.resources.env.monotonic_micros();
    if let Some((tree, blobs)) = context.blob_rewrites.begin(now_micros) {
        let job = RewriteJob::new(context, tree, &blobs);
        context.resources.env.spawn(Priority::Low, Box::new(job));
    }
}

/// A rewrite of some blob files of a keyspace.
struct RewriteJob {
    context: Arc<JobContext>,
    tree: Arc<Tree>,
    /// The files, by their blobs.
    blobs: BTreeMap<u64, Rewritten>,
    /// Tables to look through, and the one that is being looked through.
    tables: Vec<Arc<TableFile>>,
    cursor: Option<TableCursor>,
    current: Option<Copying>,
    charge: Charge,
    /// It has told that it has ended.
    has_ended: bool,
    _token: JobToken,
}

/// A file that is rewritten.
struct Rewritten {
    old: LiveBlob,
    /// The pointers to it that were found.
    pointers: Vec<BlobPointer>,
}

/// A file that is being written.
struct Copying {
    old: LiveBlob,
    /// The values to copy, the next one last.
    left: Vec<BlobPointer>,
    number: u64,
    writer: BlobWriter,
}

impl RewriteJob {
    fn new(context: &Arc<JobContext>, tree: Arc<Tree>, blobs: &[LiveBlob]) -> Self {
        // The tables of a later version than that from which the files were picked point to nothing more in them: only
        // the flush that wrote a file makes pointers to it.
        let version = Arc::clone(&tree.load().version);
        let blobs: BTreeMap<u64, Rewritten> = blobs
            .iter()
            .filter_map(|picked| version.blobs().find(picked.file.blob()))
            .map(|old| (old.file.blob(), Rewritten { old: old.clone(), pointers: Vec::new() }))
            .collect();
        let points_there =
            |table: &&Arc<TableFile>| table.meta().blobs.iter().any(|held| blobs.contains_key(&held.blob));
        let tables = version.tables().filter(points_there).cloned().collect();
        let read_bytes = context.resources.memory.budget.read_buffer_bytes as usize;
        Self {
            charge: Charge::new(&context.resources.memory, Part::Buffers, read_bytes),
            _token: JobToken::new(context),
            context: Arc::clone(context),
            tree,
            blobs,
            tables,
            cursor: None,
            current: None,
            has_ended: false,
        }
    }

    /// Works for a while. Returns whether all is done.
    fn work(&mut self) -> Result<bool> {
        if self.context.status.is_stopping() || self.tree.is_dropped() {
            return Err(Error::Closed);
        }
        if self.cursor.is_some() || !self.tables.is_empty() {
            self.look()?;
            return Ok(false);
        }
        if self.current.is_some() {
            self.copy()?;
            return Ok(false);
        }
        let Some((_, next)) = self.blobs.pop_first() else { return Ok(true) };
        self.begin(next)?;
        Ok(false)
    }

    /// Looks for pointers in the tables.
    fn look(&mut self) -> Result<()> {
        if self.cursor.is_none() {
            let Some(table) = self.tables.pop() else { return Ok(()) };
            let mut cursor = table.table().cursor(CursorAccess::Sequential);
            cursor.first();
            self.cursor = Some(cursor);
        }
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        for _ in 0..ENTRIES_PER_STEP {
            let Some(entry) = cursor.entry() else {
                let failed = cursor.error().cloned();
                self.cursor = None;
                return failed.map_or(Ok(()), |error| Err(error.into()));
            };
            if entry.kind == ValueKind::BlobPointer
                && let Some(pointer) = BlobPointer::decode(entry.value)
                && let Some(rewritten) = self.blobs.get_mut(&pointer.blob)
            {
                rewritten.pointers.push(pointer);
            }
            cursor.next();
        }
        let found: usize = self.blobs.values().map(|rewritten| rewritten.pointers.capacity()).sum();
        let read_bytes = self.context.resources.memory.budget.read_buffer_bytes as usize;
        self.charge.set(read_bytes + found * size_of::<BlobPointer>());
        Ok(())
    }

    /// Begins to copy what is alive in a file.
    fn begin(&mut self, rewritten: Rewritten) -> Result<()> {
        let Rewritten { old, mut pointers } = rewritten;
        let bytes: u64 = pointers.iter().map(|pointer| pointer.bytes).sum();
        if (pointers.len() as u64, bytes) != (old.live_values, old.live_bytes) {
            let detail = format!(
                "tables point to {} values of {bytes} bytes, but say that they point to {} of {}",
                pointers.len(),
                old.live_values,
                old.live_bytes
            );
            return Err(Error::corruption(old.file.path(), 0, detail));
        }
        pointers.sort_unstable_by_key(|pointer| std::cmp::Reverse(pointer.number));
        let resources = &self.context.resources;
        let number = self.context.versions.numbers.next();
        let path = files::blob(&resources.directory, number);
        let buffer_bytes = resources.memory.budget.write_buffer_bytes;
        let writer =
            BlobWriter::create_rewritten(&*resources.vfs, &path, resources.random_id(), buffer_bytes)?;
        self.current = Some(Copying { old, left: pointers, number, writer });
        Ok(())
    }

    /// Copies the next values. After the last one the file takes the place of the old one.
    fn copy(&mut self) -> Result<()> {
        let Some(copying) = &mut self.current else { return Ok(()) };
        let mut copied = 0;
        while copied < BYTES_PER_STEP {
            let Some(pointer) = copying.left.pop() else {
                return match self.current.take() {
                    Some(copied) => self.finish(copied),
                    None => Ok(()),
                };
            };
            let value = copying.old.file.read(&pointer)?;
            copying.writer.add_as(pointer.number, &value)?;
            copied += pointer.bytes;
        }
        let held = copying.writer.memory_bytes() + copying.left.capacity() * size_of::<BlobPointer>();
        self.charge.set(held + BYTES_PER_STEP as usize);
        self.context.status.control.count_written(&*self.context.resources.env, copied);
        Ok(())
    }

    fn finish(&self, copied: Copying) -> Result<()> {
        let Copying { old, number, writer, .. } = copied;
        let resources = &self.context.resources;
        let written = writer.finish_unsynced();
        let mut new = match written {
            Ok(written) => NewBlobs::rewritten(resources, (old.file.blob(), number), written),
            Err(error) => {
                self.discard(number);
                return Err(error.into());
            }
        };
        let installed =
            new.sync().and_then(|()| resources.sync_directory()).and_then(|()| self.install(&old, &new));
        if installed.is_err() {
            self.discard(number);
        }
        installed
    }

    /// Logs the edit, and makes the file visible. Readers of older versions keep the old one.
    fn install(&self, old: &LiveBlob, new: &NewBlobs) -> Result<()> {
        let file = new.open(&self.context.resources)?;
        let mut manifest = self.context.versions.lock();
        let version = Arc::clone(&self.tree.load().version);
        let known = version.blobs().find(old.file.blob());
        if self.tree.is_dropped() || !known.is_some_and(|known| Arc::ptr_eq(&known.file, &old.file)) {
            // Nothing points to it any more.
            file.mark_obsolete();
            return Ok(());
        }
        let edit = VersionEdit { added_blobs: vec![file.added_to(self.tree.id)], ..VersionEdit::default() };
        self.context.versions.log_edit(&mut manifest, edit)?;
        old.file.mark_obsolete();
        self.tree.update(|state| ReadState {
            version: Arc::new(state.version.with_blobs(std::slice::from_ref(&file))),
            ..(**state).clone()
        });
        drop(manifest);
        self.context.resources.counters.blob_bytes_rewritten.add(new.meta.file_bytes);
        Ok(())
    }

    /// Removes a file that was not installed. If writing has stopped, the manifest may name it after all.
    fn discard(&self, number: u64) {
        if self.context.status.check_writing().is_ok() {
            let resources = &self.context.resources;
            resources.obsolete_files.remove_later(files::blob(&resources.directory, number));
        }
    }

    /// The end of the job, with or without an error.
    fn end(&mut self, error: Option<&Error>) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        if let Some(Copying { number, writer, .. }) = self.current.take() {
            drop(writer);
            self.discard(number);
        }
        let (mut failed_at_micros, mut damaged) = (None, None);
        if let Some(error) = error.filter(|error| !matches!(error, Error::Closed)) {
            tracing::warn!(keyspace = &*self.tree.name, %error, "a blob file could not be rewritten");
            failed_at_micros = Some(self.context.resources.env.monotonic_micros());
            if let Error::Storage(lsm_core::Error::Corruption { path, .. }) = error {
                let version = Arc::clone(&self.tree.load().version);
                let at_path = version.blobs().iter().find(|live| live.file.path() == path.as_path());
                damaged = at_path.map(|live| live.file.number());
            }
            self.context.resources.close_files_after(error);
            self.context.status.note_compaction_error(&self.tree.name, error.clone());
        }
        self.context.blob_rewrites.ended(failed_at_micros, damaged);
        self.context.status.progress.notify();
    }

    /// What to return in place of a step, if users want the job to wait.
    fn wait(&self) -> Option<Step> {
        let control = &self.context.status.control;
        let pending = control.pause().or_else(|| control.limit(&*self.context.resources.env))?;
        (!self.context.status.is_stopping() && !self.tree.is_dropped()).then_some(pending)
    }
}

impl Job for RewriteJob {
    fn step(&mut self) -> Step {
        let context = Arc::clone(&self.context);
        let _inside = context.resources.enter(Inside::Job);
        if let Some(pending) = self.wait() {
            return pending;
        }
        match caught("the rewriting of a blob file", || self.work()) {
            Ok(false) => Step::Again,
            Ok(true) => {
                self.end(None);
                start_due(&context);
                Step::Done
            }
            Err(error) => {
                self.end(Some(&error));
                Step::Done
            }
        }
    }
}

impl Drop for RewriteJob {
    fn drop(&mut self) {
        self.end(Some(&Error::Closed));
    }
}
