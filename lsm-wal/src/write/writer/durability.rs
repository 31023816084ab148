//! Making what was appended durable, removing what is no longer needed, and closing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::{Error, Result};

use super::{Live, Writer};
use crate::files::directory;
use crate::files::segment_file::{CLOSE_BYTES, Segment};
use crate::format::record::{self, Boundary, RecordHeader, RecordType};
use crate::log::{CleanClose, Position};
use crate::write::origin::Origin;

/// What a sync has to cover.
pub(crate) struct Unsynced {
    pub(crate) segments: Vec<Segment>,
    pub(crate) end: u64,
}

impl Writer {
    /// Writes what is only in the window, and says which files a sync has to cover. `None` if there are none.
    pub(crate) fn prepare_sync(&mut self) -> Result<Option<Unsynced>> {
        if let Some(cause) = &self.stopped {
            return Err(Error::Stopped { cause: Arc::clone(cause) });
        }
        // A segment that was entered has to be synced, with or without records.
        if self.synced == self.end.position && self.unsynced.is_empty() {
            return Ok(None);
        }
        self.flush(0)?;
        self.background.oldest_unsynced_micros = None;
        // Earlier segments first, so that no record is durable without its predecessors.
        let mut segments = self.unsynced.clone();
        segments.push(self.segment.clone());
        Ok(Some(Unsynced { segments, end: self.end.position }))
    }

    /// Takes note of a sync that succeeded.
    pub(crate) fn finish_sync(&mut self, unsynced: &Unsynced) {
        self.synced = self.synced.max(unsynced.end);
        let current = unsynced.segments.last().map_or(0, |segment| segment.number);
        // The last one may have been written since, if it was left meanwhile.
        self.unsynced.retain(|segment| segment.number >= current);
    }

    /// Brings everything appended so far into segment files, for reading it there.
    pub(crate) fn flush_for_reading(&mut self) -> Result<()> {
        self.check()?;
        self.flush(0)
    }

    /// The oldest segment, if all of it is before `position`.
    pub(crate) fn oldest_below(&self, position: u64) -> Option<u64> {
        let next = self.live.get(1).map_or(self.segment.start, |live| live.start);
        self.live.front().filter(|_| next <= position).map(|live| live.number)
    }

    /// Takes note that the oldest segment was removed.
    pub(crate) fn forget_oldest(&mut self) {
        self.live.pop_front();
    }

    /// Goes on from `origin`, which lies behind; everything was synced. Returns the segments that are no longer
    /// part of the log and the window that went with them.
    pub(crate) fn truncate_tail(&mut self, origin: Origin) -> Result<(Vec<u64>, Option<PathBuf>)> {
        debug_assert_eq!(self.synced, self.end.position);
        if let Some(spare) = self.spare.take() {
            spare.discard(&*self.site.vfs);
        }
        let number = self.take_number();
        let (site, stale) = (self.site.clone(), self.window.as_ref().map(|window| window.path().to_owned()));
        let next = Self::begin(site, number, origin, VecDeque::new())?;
        let mut live = std::mem::take(&mut self.live);
        live.push_back(Live { number: self.segment.number, start: self.segment.start });
        let kept =
            live.iter().position(|live| live.number == origin.predecessor).map_or(0, |index| index + 1);
        let gone = live.split_off(kept).into_iter().map(|live| live.number).collect();
        *self = Self { live, background: self.background.clone(), ..next };
        Ok((gone, stale))
    }

    /// Marks the end and gives back what was allocated beyond it. Everything was synced.
    pub(crate) fn close(&mut self) -> Result<CleanClose> {
        self.check()?;
        debug_assert_eq!(self.synced, self.end.position);
        self.closed = true;
        let Boundary { position, checksum } = self.end;
        let header = RecordHeader { length: 0, position, kind: RecordType::Close, tag: 0, synced: position };
        let mut bytes = Vec::new();
        record::encode(&mut bytes, &header, &[], checksum, self.segment.record_seed);
        let length = self.segment.offset_of(position);
        self.segment.write(&bytes, length)?;
        let cut = self.segment.file.set_len(length + CLOSE_BYTES);
        cut.map_err(|error| Error::io("cut", &self.segment.path, error))?;
        self.segment.sync()?;
        if let Some(spare) = self.spare.take() {
            spare.discard(&*self.site.vfs);
        }
        if let Some(window) = self.window.take() {
            directory::remove(&*self.site.vfs, window.path())?;
        }
        directory::sync(&*self.site.vfs, &self.site.directory)?;
        Ok(CleanClose { end: Position(position), segment: self.segment.number, length, checksum })
    }

    /// Takes no more records. The memory of the window is given back, unless it holds what no segment has.
    pub(crate) fn abandon(&mut self) {
        self.closed = true;
        if self.written.position == self.end.position {
            self.window = None;
        }
    }
}
