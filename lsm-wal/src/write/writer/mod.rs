//! The writer of a log: what changes when records are appended. All of it is behind one mutex, which the appender and
//! whoever syncs take briefly.

mod durability;
mod rotation;

use std::collections::VecDeque;
use std::sync::Arc;

use lsm_core::checksum::crc64;
use lsm_core::env::Event;
use lsm_core::{Error, Result};

use crate::files::segment_file::{Segment, Spare};
use crate::format::record::{self, Boundary, RecordHeader, RecordType};
use crate::log::{LogChange, LogObserver, Position};
use crate::write::origin::Origin;
use crate::write::site::{LEAST_SEGMENT_BYTES, SMALL_SEGMENT_BYTES, Site};
use crate::write::window_writer::WindowWriter;

pub(crate) struct Writer {
    pub(crate) site: Site,
    segment: Segment,
    window: Option<WindowWriter>,
    /// Everything before this is in the segment's file, or an earlier one's; the rest is in the window.
    written: Boundary,
    /// The end of the last record.
    end: Boundary,
    /// Everything before this is durable.
    synced: u64,
    /// A write failed: the segment takes no more, the next one begins at `written`.
    sealed: bool,
    /// Segments before the current one that were written since they were last synced, oldest first.
    unsynced: Vec<Segment>,
    /// All segments but the current one that hold records not yet truncated, oldest first.
    live: VecDeque<Live>,
    spare: Option<Spare>,
    next_number: u64,
    stopped: Option<Arc<Error>>,
    closed: bool,
    pub(crate) background: Background,
}

/// What the appender and the background job tell each other.
#[derive(Clone, Default)]
pub(crate) struct Background {
    /// There is something to do.
    pub(crate) work: Event,
    /// When the oldest record was appended that no sync has covered or is about to.
    pub(crate) oldest_unsynced_micros: Option<u64>,
    /// The job is preparing a spare, and creating a file.
    pub(crate) preparing: bool,
    /// The job sleeps until it is told that there is something to sync.
    pub(crate) job_sleeps: bool,
    /// Told of changes of the log.
    observer: Option<LogObserver>,
}

pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) start: u64,
}

impl Writer {
    /// Begins a log, or goes on with one, in a new segment of this number. Durable when it returns. On a disk that is
    /// almost full the segment is small, and has no window.
    pub(crate) fn begin(site: Site, number: u64, origin: Origin, live: VecDeque<Live>) -> Result<Self> {
        let (spare, window) = Self::prepare(&site, number, &origin)?;
        let header = origin.header(number, origin.position, window.as_ref());
        let segment = spare.activate(&header).map_err(|(_, error)| error)?;
        segment.sync()?;
        let end = Boundary { position: origin.position, checksum: origin.seed };
        Ok(Self::resume(site, segment, window, end, live))
    }

    /// The files for a first segment: as large as they should be, or as there is room for.
    fn prepare(site: &Site, number: u64, origin: &Origin) -> Result<(Spare, Option<WindowWriter>)> {
        let Site { vfs, directory, .. } = site;
        let bytes = site.segment_bytes_after(0);
        let prepared = Spare::prepare(&**vfs, directory, number, bytes).and_then(|spare| {
            match WindowWriter::create(site, number, origin.position, origin.record_seed) {
                Ok(window) => Ok((spare, window)),
                Err(error) => {
                    spare.discard(&**vfs);
                    Err(error)
                }
            }
        });
        [SMALL_SEGMENT_BYTES, LEAST_SEGMENT_BYTES].into_iter().fold(
            prepared,
            |prepared, small| match prepared {
                Err(error) if error.is_disk_full() => {
                    Ok((Spare::prepare(&**vfs, directory, number, small.min(bytes))?, None))
                }
                prepared => prepared,
            },
        )
    }

    /// Goes on in a synced segment after `end`.
    pub(crate) fn resume(
        site: Site,
        segment: Segment,
        window: Option<WindowWriter>,
        end: Boundary,
        live: VecDeque<Live>,
    ) -> Self {
        Self {
            next_number: segment.number + 1,
            written: end,
            synced: end.position,
            end,
            site,
            segment,
            window,
            sealed: false,
            unsynced: Vec::new(),
            live,
            spare: None,
            stopped: None,
            closed: false,
            background: Background::default(),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.position
    }

    /// Position of the oldest record that was not truncated, or where it would be.
    pub(crate) fn start(&self) -> u64 {
        self.live.front().map_or(self.segment.start, |live| live.start)
    }

    /// Whether nothing will be appended any more.
    pub(crate) fn is_finished(&self) -> bool {
        self.closed || self.stopped.is_some()
    }

    /// Whether a segment belongs to the log.
    pub(crate) fn is_live(&self, number: u64) -> bool {
        self.segment.number == number || self.live.iter().any(|live| live.number == number)
    }

    /// Sets who is told of changes of the log, and tells of the current segment.
    pub(crate) fn observe(&mut self, observer: LogObserver) {
        self.background.observer = Some(observer);
        self.tell(LogChange::Begun(&self.segment.path));
    }

    pub(crate) fn tell(&self, change: LogChange<'_>) {
        if let Some(observer) = &self.background.observer {
            observer(change);
        }
    }

    pub(crate) fn stopped(&self) -> Option<&Arc<Error>> {
        self.stopped.as_ref()
    }

    pub(crate) fn stop(&mut self, cause: &Error) {
        self.stopped.get_or_insert_with(|| Arc::new(cause.clone()));
        self.tell(LogChange::Stopped(cause));
    }

    pub(crate) fn check(&self) -> Result<()> {
        if let Some(cause) = &self.stopped {
            return Err(Error::Stopped { cause: Arc::clone(cause) });
        }
        if self.closed {
            return Err(Error::invalid("the log was closed"));
        }
        Ok(())
    }

    /// Appends a record. Nothing has changed if it fails, except that the segment may be sealed.
    #[inline]
    pub(crate) fn append(&mut self, tag: u64, payload: &[u8]) -> Result<Position> {
        let length = record::payload_length(payload, self.end.position)?;
        let header = RecordHeader {
            length,
            position: self.end.position,
            kind: RecordType::Data,
            tag,
            synced: self.synced,
        };
        match &mut self.window {
            Some(window)
                if window.is_for(&header)
                    && window.has_room(&header)
                    && self.segment.fits(header.end())
                    && !(self.sealed || self.closed || self.stopped.is_some()) =>
            {
                let checksum = window.put(&header, payload, self.end.checksum);
                self.end = Boundary { position: header.end(), checksum };
            }
            _ => self.append_slowly(&header, payload)?,
        }
        Ok(Position(self.end.position))
    }

    #[cold]
    fn append_slowly(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<()> {
        self.check()?;
        self.tell(LogChange::Writing);
        let appended = self.append_to_files(header, payload);
        self.tell(LogChange::Written);
        appended
    }

    fn append_to_files(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<()> {
        let bytes = header.record_bytes();
        self.flush(bytes)?;
        if !self.segment.fits(header.end()) {
            self.rotate(bytes)?;
        }
        if let Some(window) = &mut self.window
            && window.is_for(header)
            && (window.has_room(header) || window.make_room(header))
        {
            let checksum = window.put(header, payload, self.end.checksum);
            self.end = Boundary { position: header.end(), checksum };
            return Ok(());
        }
        self.write_through(header, payload)
    }

    /// Writes a record to the segment without the window.
    fn write_through(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<()> {
        let offset = self.segment.offset_of(header.position);
        let head = header.encode(self.segment.record_seed);
        let zeros = &[0; 7][..payload.len().next_multiple_of(8) - payload.len()];
        let checksum = crc64(crc64(crc64(self.end.checksum, &head), payload), zeros);
        let written = if payload.len() <= 64 << 10 {
            let record = [&head, payload, zeros, &checksum.to_le_bytes()].concat();
            self.segment.write(&record, offset)
        } else {
            // The checksum goes last: without it there is no record.
            let mut tail = zeros.to_vec();
            tail.extend_from_slice(&checksum.to_le_bytes());
            let payload_offset = offset + head.len() as u64;
            self.segment
                .write(&head, offset)
                .and_then(|()| self.segment.write(payload, payload_offset))
                .and_then(|()| self.segment.write(&tail, payload_offset + payload.len() as u64))
        };
        // The window began before this record. What comes next in it begins after this record, even if the write failed.
        if let Err(error) = written {
            self.restart_window();
            self.sealed = true;
            return Err(error);
        }
        self.end = Boundary { position: header.end(), checksum };
        self.written = self.end;
        self.restart_window();
        Ok(())
    }

    /// Brings everything appended so far into segments. `next_bytes` more are to come.
    fn flush(&mut self, next_bytes: u64) -> Result<()> {
        if self.sealed {
            self.relocate(next_bytes)?;
        }
        let missing = self.written.position..self.end.position;
        if let Some(window) = &self.window
            && !missing.is_empty()
        {
            window.write_to(&self.segment, missing).inspect_err(|_| self.sealed = true)?;
            self.written = self.end;
        }
        Ok(())
    }

    /// Begins the window anew after everything in it was written.
    fn restart_window(&mut self) {
        debug_assert_eq!(self.written.position, self.end.position);
        if let Some(window) = &mut self.window {
            window.rebase(self.end.position);
        }
    }
}
