use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_wal::{RecordFile, RecordFileReader, RecoveryMode};
use parking_lot::Mutex;

use super::record::{encode, without_short_stalls};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{EVENTS_MAX, Event, EventKind, Next};
use crate::resources::Resources;
use crate::status::Status;
use crate::version::files;
use crate::waits::LONG_MICROS;

/// A file is full at this length.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Number of files.
const FILES_MAX: usize = 4;
/// Number of events in a record, at most. They fit a file, whatever their texts.
const EVENTS_PER_RECORD: usize = 64;
/// A database that is opened goes on in a new file. It takes over the events of the last file if that has at most this
/// length, so that a database that is opened again and again does not lose its history.
const TAKEN_OVER_BYTES_MAX: u64 = FILE_BYTES_MAX / 2;

/// Writes the events of a database to its flight recorder.
pub(crate) struct Recorder {
    resources: Arc<Resources>,
    status: Arc<Status>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The file that is being written. `None` before the first event, and after a failure.
    file: Option<RecordFile>,
    /// Numbers of the other files; `None` before the directory was listed.
    older: Option<VecDeque<u64>>,
    /// The number of the next event to write.
    next: u64,
    has_failed: bool,
}

impl Recorder {
    pub(crate) fn new(resources: Arc<Resources>, status: Arc<Status>) -> Self {
        Self { resources, status, state: Mutex::default() }
    }

    /// Writes the events since the last call.
    pub(crate) fn write(&self) {
        let mut state = self.state.lock();
        // What is left of a full disk is for data, except for a few bytes that tell of it.
        let error = self.status.flush_error.current();
        if state.file.is_none() && error.is_some_and(|error| error.kind() == ErrorKind::NoSpace) {
            return;
        }
        let (events, next) = self.new_events(state.next);
        if events.is_empty() {
            return;
        }
        match self.append(&mut state, &events) {
            Ok(()) => (state.next, state.has_failed) = (next, false),
            Err(error) => {
                // Warn once, not each second.
                if !std::mem::replace(&mut state.has_failed, true) {
                    tracing::warn!(%error, "failed to write to the flight recorder");
                }
                state.file = None;
                state.older = None;
            }
        }
    }

    /// Writes the events since the last call if there are so many that the ring might lose some.
    pub(crate) fn write_if_many(&self) {
        if self.resources.events.count_from(self.state.lock().next) > EVENTS_MAX / 2 {
            self.write();
        }
    }

    /// Writes the last events, durably.
    pub(crate) fn close(&self) {
        self.write();
        if let Some(mut file) = self.state.lock().file.take()
            && let Err(error) = file.sync()
        {
            tracing::warn!(%error, "failed to sync the flight recorder");
        }
    }

    /// The events from number `next` on that are worth a place, and the number after them.
    fn new_events(&self, mut next: u64) -> (Vec<Event>, u64) {
        let mut events = Vec::new();
        while let Next::Event(event) = self.resources.events.read(&mut next) {
            // The manifest and the events of flushes and compactions tell of files.
            if !matches!(event.kind, EventKind::FileCreated { .. } | EventKind::FileDeleted { .. }) {
                events.push(event);
            }
        }
        (without_short_stalls(events, LONG_MICROS), next)
    }

    fn append(&self, state: &mut State, events: &[Event]) -> Result<()> {
        for events in events.chunks(EVENTS_PER_RECORD) {
            let mut record = Vec::new();
            for event in events {
                encode(&mut record, event);
            }
            let is_full = |file: &RecordFile| file.file_bytes() + record.len() as u64 > FILE_BYTES_MAX;
            if state.file.as_ref().is_none_or(is_full) {
                self.begin_file(state)?;
            }
            let file = state.file.as_mut().ok_or(Error::Closed)?;
            file.append(0, &record)?;
        }
        Ok(())
    }

    /// Goes on in a new file, and removes what is too much.
    fn begin_file(&self, state: &mut State) -> Result<()> {
        let Resources { vfs, directory, env, .. } = &*self.resources;
        let is_first = state.older.is_none();
        let mut older = match state.older.take() {
            Some(older) => older,
            None => files::event_numbers(&**vfs, directory)?.into(),
        };
        let last = older.back().copied();
        let number = last.map_or(1, |last| last + 1);
        let path = files::events(directory, number);
        let begun = RecordFile::create(&**vfs, &path, number, env.random() as u32).and_then(|mut file| {
            let taken = last.filter(|_| is_first).and_then(|last| short_file(&**vfs, directory, last));
            for record in taken.iter().flatten() {
                file.append(0, record)?;
            }
            Ok((file, taken.is_some()))
        });
        let (file, has_taken_over) = begun.inspect_err(|_| {
            let _ = vfs.remove_file(&path);
        })?;
        if has_taken_over && let Some(last) = older.pop_back() {
            let _ = vfs.remove_file(&files::events(directory, last));
        }
        while older.len() >= FILES_MAX {
            if let Some(oldest) = older.pop_front() {
                let _ = vfs.remove_file(&files::events(directory, oldest));
            }
        }
        older.push_back(number);
        (state.file, state.older) = (Some(file), Some(older));
        Ok(())
    }
}

/// The records of a file of the recorder, if it is short. What is damaged is left out.
fn short_file(vfs: &dyn Vfs, directory: &Path, number: u64) -> Option<Vec<Vec<u8>>> {
    let path = files::events(directory, number);
    if vfs.metadata(&path).ok()?.len > TAKEN_OVER_BYTES_MAX {
        return None;
    }
    let mut reader = RecordFileReader::open(vfs, &path, 0, RecoveryMode::Salvage).ok()?;
    let mut records = Vec::new();
    while let Some(record) = reader.next().ok()? {
        records.push(record.payload.to_vec());
    }
    Some(records)
}
