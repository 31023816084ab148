use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lsm_core::env::Event;
use lsm_core::{BlobPointer, Slice};
use lsm_wal::{Position, Tail, TailError};

use super::batch::{self, ChangeBatch};
use crate::change_position::ChangePosition;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::version::BlobFile;
use crate::version::history::{Start, gone};

/// The changes of a database from a position on, in the order in which they were made; see [`Db::changes`].
///
/// Each batch comes once, and only when it is durable: a reader never has what a power cut can take from the database.
/// Buffered writes come when the log is synced, about a second later at the latest. Writers do not wait for readers of
/// changes, nor know of them.
///
/// A reader does not keep the database open. When that is closed, reads fail with
/// [`ErrorKind::Closed`](crate::ErrorKind::Closed). It does not keep the log either, so one that falls behind may find that
/// its history is gone ([`ErrorKind::HistoryGone`](crate::ErrorKind::HistoryGone)), unless a [`ChangeSlot`] keeps it. After
/// an error a read can be tried again; no batch is left out.
///
/// As an iterator it waits for further batches, and ends when it is cancelled or the database is closed.
///
/// [`Db::changes`]: crate::Db::changes
/// [`ChangeSlot`]: crate::ChangeSlot
pub struct Changes {
    database: Arc<Database>,
    tail: Tail,
    /// The place after the last batch that was returned.
    position: ChangePosition,
    /// The names of keyspaces by their ids, which never change.
    names: HashMap<u32, Arc<str>>,
    cancelled: Arc<AtomicBool>,
}

/// Cancels a [`Changes`] from another thread.
#[derive(Clone, Debug)]
pub struct ChangesCanceller {
    cancelled: Arc<AtomicBool>,
    changes: Event,
}

impl ChangesCanceller {
    /// Ends all waiting: reads fail with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) from now on, and the iterator
    /// ends.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changes.notify();
    }
}

impl Changes {
    pub(crate) fn new(database: &Arc<Database>, from: &ChangePosition) -> Result<Self> {
        database.check_open()?;
        database.resources.check_process()?;
        let last_sequence = match &database.writer {
            Some(side) => side.write.committer.lock().last_sequence(),
            None => database.visibility.sequence(),
        };
        let history = database.history.lock();
        let Start { log, sequence, events } =
            history.start(from, database.history.database_id, last_sequence)?;
        let position = history.position(database.history.database_id, log, sequence, events);
        drop(history);
        let (vfs, directory) = (Arc::clone(&database.resources.vfs), &database.resources.directory);
        let tail = Tail::open(vfs, directory, Position(log)).map_err(|error| failed(error, &position))?;
        Ok(Self {
            database: Arc::clone(database),
            tail,
            position,
            names: HashMap::new(),
            cancelled: Arc::default(),
        })
    }

    /// The next batch that is durable; `None` if there is none now.
    pub fn try_next(&mut self) -> Result<Option<ChangeBatch>> {
        if self.cancelled.load(Ordering::Acquire) {
            return Err(Error::ChangesCancelled);
        }
        self.database.check_open()?;
        self.database.resources.check_process()?;
        // Asked first: the event of a keyspace is there before the first record that names it.
        let durable = self.database.writer.as_ref().map(|side| Position(side.write.log_durable()));
        if let Some(batch) = self.next_event()? {
            return Ok(Some(batch));
        }
        loop {
            let read = match durable {
                Some(durable) => self.tail.next_durable(durable),
                // Nobody writes.
                None => self.tail.next(),
            };
            let Some(record) = read.map_err(|error| failed(error, &self.position))? else {
                // What is not durable now never will be.
                self.database.status.check_writing()?;
                return Ok(None);
            };
            if record.start.0 != self.position.log {
                let detail = format!("no batch ends at the position {}", self.position);
                return Err(Error::ForeignPosition(detail.into()));
            }
            let end = record.end.0;
            if record.tag > self.position.sequence {
                let (database, names) = (&self.database, &mut self.names);
                let position = &self.position;
                let read = |pointer: &BlobPointer| read_blob(database, pointer, position);
                let changes = batch::decode(&record, |id| name_of(database, names, id), read)?;
                self.position.log = end;
                self.position.sequence = changes.last().map_or(0, |change| change.sequence);
                return Ok(Some(ChangeBatch { changes, position: self.position }));
            }
            self.position.log = end;
        }
    }

    /// The next batch, for which it waits up to so long; `None` if none came. `Duration::MAX` waits without end.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<ChangeBatch>> {
        let env = Arc::clone(&self.database.resources.env);
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let deadline_micros = env.monotonic_micros().checked_add(micros);
        loop {
            let seen = self.database.status.changes().epoch();
            if let Some(batch) = self.try_next()? {
                return Ok(Some(batch));
            }
            if deadline_micros.is_some_and(|deadline| env.monotonic_micros() >= deadline) {
                return Ok(None);
            }
            self.database.resources.check_may_wait()?;
            env.wait(self.database.status.changes(), seen, deadline_micros);
        }
    }

    /// The place after the last batch that was returned.
    pub fn position(&self) -> ChangePosition {
        self.position
    }

    /// What cancels this from another thread.
    pub fn canceller(&self) -> ChangesCanceller {
        let changes = self.database.status.changes().clone();
        ChangesCanceller { cancelled: Arc::clone(&self.cancelled), changes }
    }

    /// The creation or drop of a keyspace, if it comes before the next record.
    fn next_event(&mut self) -> Result<Option<ChangeBatch>> {
        let history = self.database.history.lock();
        let Ok(event) = history.event_after(self.position.events) else {
            return Err(gone(&self.position, "too many keyspaces were created and dropped since"));
        };
        let Some(event) = event.filter(|event| event.sequence <= self.position.sequence) else {
            return Ok(None);
        };
        self.position.events = event.number;
        self.names.insert(event.keyspace, Arc::clone(&event.name));
        Ok(Some(ChangeBatch::of_event(event, self.position)))
    }
}

/// Waits for further batches, and ends when it is cancelled or the database is closed. It goes on after an error.
impl Iterator for Changes {
    type Item = Result<ChangeBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_within(Duration::MAX) {
            Err(Error::ChangesCancelled | Error::Closed) => None,
            batch => batch.transpose(),
        }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The value of a pointer in the log. Its file may be gone, if the value was overwritten since.
fn read_blob(database: &Database, pointer: &BlobPointer, position: &ChangePosition) -> Result<Slice> {
    let resources = &database.resources;
    let numbers = (pointer.blob, pointer.blob);
    let (memory, obsolete_files) = (&resources.memory, &resources.obsolete_files);
    match BlobFile::open(memory, &resources.directory, numbers, None, obsolete_files) {
        Ok(file) => file.read(pointer),
        Err(lsm_core::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(gone(position, "a large value was overwritten since, and its file removed"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The name of a keyspace, dropped or not.
fn name_of(database: &Database, names: &mut HashMap<u32, Arc<str>>, id: u32) -> Option<Arc<str>> {
    if let Some(name) = names.get(&id) {
        return Some(Arc::clone(name));
    }
    let current = database.trees.read().get(id).map(|tree| Arc::clone(&tree.name));
    let name = current.or_else(|| database.history.lock().name_of(id))?;
    names.insert(id, Arc::clone(&name));
    Some(name)
}

/// The error of a reader of changes at `position`.
pub(super) fn failed(error: TailError, position: &ChangePosition) -> Error {
    match error {
        TailError::Failed(error) => error.into(),
        error => gone(position, &error.to_string()),
    }
}
