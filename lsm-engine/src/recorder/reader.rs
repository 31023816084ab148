use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_wal::{RecordFileReader, RecoveryMode};

use super::record::decode;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::version::files;

/// Reads the events of the flight recorder, oldest first. The database may be open meanwhile.
///
/// Nothing promises that all of it is on the disk after a power cut, so what is damaged is left out;
/// [`dropped`](Self::dropped) tells what that was. The end of the iteration is the end of what was written so far.
pub struct RecordedEvents {
    vfs: Arc<dyn Vfs>,
    /// Files to read, the next one first.
    files: VecDeque<PathBuf>,
    reader: Option<RecordFileReader>,
    events: VecDeque<Event>,
    dropped: Vec<String>,
}

impl RecordedEvents {
    /// The events of the database in a directory. There are none if nothing was recorded.
    pub fn of(vfs: Arc<dyn Vfs>, directory: &Path) -> Result<Self> {
        let numbers = files::event_numbers(&*vfs, directory)?;
        let files = numbers.into_iter().map(|number| files::events(directory, number)).collect();
        Ok(Self::new(vfs, files))
    }

    /// The events of one file.
    pub fn of_file(vfs: Arc<dyn Vfs>, path: &Path) -> Self {
        Self::new(vfs, [path.to_owned()].into())
    }

    fn new(vfs: Arc<dyn Vfs>, files: VecDeque<PathBuf>) -> Self {
        Self { vfs, files, reader: None, events: VecDeque::new(), dropped: Vec::new() }
    }

    /// What was left out so far because it is damaged: where, and why.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// Opens the next file. `false` if there is none.
    fn open_next(&mut self) -> Result<bool> {
        use lsm_core::Error::{Corruption, Io, UnsupportedVersion};
        let Some(path) = self.files.pop_front() else { return Ok(false) };
        match RecordFileReader::open(&*self.vfs, &path, 0, RecoveryMode::Salvage) {
            Ok(reader) => self.reader = Some(reader),
            Err(error @ (Corruption { .. } | UnsupportedVersion { .. })) => {
                self.dropped.push(error.to_string());
            }
            // The recorder removed it since the directory was listed.
            Err(Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Reads the next record. `false` at the end.
    fn read(&mut self) -> Result<bool> {
        let Some(reader) = &mut self.reader else { return self.open_next() };
        if let Some(record) = reader.next()? {
            if let Err(reason) = decode(record.payload, &mut self.events) {
                self.dropped.push(Error::corruption(record.path, record.offset, reason).to_string());
            }
        } else {
            self.dropped.extend(reader.report().dropped.iter().map(ToString::to_string));
            self.reader = None;
        }
        Ok(true)
    }
}

impl Iterator for RecordedEvents {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.files.clear();
                    self.reader = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::fmt::Debug for RecordedEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordedEvents").field("files", &self.files).finish_non_exhaustive()
    }
}
