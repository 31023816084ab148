//! What changes when records are appended, all behind one mutex: the appender and whoever syncs take it briefly.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::checksum::crc64;
use lsm_core::env::{Env, Event};
use lsm_core::vfs::Vfs;
use lsm_core::{Error, Result};

use crate::directory;
use crate::log::{CleanClose, Position};
use crate::options::WalOptions;
use crate::reader::Joint;
use crate::record::{self, RecordHeader, RecordType};
use crate::segment::{self, SegmentHeader};
use crate::segment_file::{CLOSE_BYTES, Segment, Spare};
use crate::window::WindowWriter;

/// Where a log goes on: after which segment, from which position and checksum.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) position: u64,
    pub(crate) seed: u64,
    pub(crate) predecessor: u64,
    pub(crate) predecessor_bytes: u64,
    pub(crate) predecessor_checksum: u64,
    /// What the checksum of each record's header continues from.
    pub(crate) record_seed: u32,
}

impl Origin {
    /// A log that begins here.
    pub(crate) fn root(start: Position, env: &dyn Env) -> Self {
        Self {
            position: start.0,
            seed: env.random(),
            predecessor: 0,
            predecessor_bytes: 0,
            predecessor_checksum: 0,
            record_seed: random_record_seed(env),
        }
    }

    /// After a part of a segment. Records that are given up thereby may stand elsewhere still, and positions are
    /// used anew: with a random seed they can never continue the chain.
    pub(crate) fn after(joint: Joint, env: &dyn Env) -> Self {
        Self {
            position: joint.position,
            seed: env.random(),
            predecessor: joint.segment,
            predecessor_bytes: joint.bytes,
            predecessor_checksum: joint.checksum,
            // One for all of a log, so that whichever of its headers is lost, another has it.
            record_seed: if joint.record_seed == 0 { random_record_seed(env) } else { joint.record_seed },
        }
    }

    pub(crate) fn header(&self, number: u64, synced: u64, window: Option<&WindowWriter>) -> SegmentHeader {
        SegmentHeader {
            number,
            start: self.position,
            predecessor: self.predecessor,
            predecessor_bytes: self.predecessor_bytes,
            predecessor_checksum: self.predecessor_checksum,
            seed: self.seed,
            synced,
            window: window.map_or(0, WindowWriter::number),
            record_seed: self.record_seed,
        }
    }
}

/// What nobody can know who has only the log's records. Not 0, which stands for none.
fn random_record_seed(env: &dyn Env) -> u32 {
    ((env.random() >> 32) as u32).max(1)
}

/// Bytes of a log's first segment, unless all are to be smaller.
const FIRST_SEGMENT_BYTES: u64 = 2 << 20;

/// The place that a log is written in.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) directory: PathBuf,
    pub(crate) options: WalOptions,
}

impl Site {
    /// Bytes of the segment after one of `capacity`. The first are small, so that a log of few records is, and each is
    /// twice as large as the one before.
    pub(crate) fn segment_bytes_after(&self, capacity: u64) -> u64 {
        capacity.saturating_mul(2).max(FIRST_SEGMENT_BYTES).min(self.options.segment_bytes)
    }

    pub(crate) fn window(&self, number: u64, base: u64, record_seed: u32) -> Result<Option<WindowWriter>> {
        let bytes = (self.options.window_bytes as usize).next_multiple_of(8);
        if bytes == 0 {
            return Ok(None);
        }
        let window = WindowWriter::create(&*self.vfs, &self.directory, number, bytes, base, record_seed)?;
        if let Some(window) = &window
            && let Err(error) = directory::sync(&*self.vfs, &self.directory)
        {
            // A segment that names a window proves that its file was there: one that is gone is damage.
            let _ = directory::remove(&*self.vfs, window.path());
            return Err(error);
        }
        Ok(window)
    }
}

/// What a sync has to cover.
pub(crate) struct Unsynced {
    pub(crate) segments: Vec<Segment>,
    pub(crate) end: u64,
}

pub(crate) struct Writer {
    pub(crate) site: Site,
    segment: Segment,
    window: Option<WindowWriter>,
    /// Everything before this is in the segment's file, or an earlier one's; the rest is in the window.
    written: Mark,
    /// The end of the last record.
    end: Mark,
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
}

/// A position and the checksum of the record that ends there.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) position: u64,
    pub(crate) checksum: u64,
}

pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) start: u64,
}

impl Writer {
    /// Begins a log, or goes on with one, in a new segment of this number. Durable when it returns.
    pub(crate) fn begin(site: Site, number: u64, origin: Origin, live: VecDeque<Live>) -> Result<Self> {
        let spare = Spare::prepare(&*site.vfs, &site.directory, number, site.segment_bytes_after(0))?;
        let window = match site.window(number, origin.position, origin.record_seed) {
            Ok(window) => window,
            Err(error) => {
                spare.discard(&*site.vfs);
                return Err(error);
            }
        };
        let header = origin.header(number, origin.position, window.as_ref());
        let segment = spare.activate(&header).map_err(|(_, error)| error)?;
        segment.sync()?;
        let mark = Mark { position: origin.position, checksum: origin.seed };
        Ok(Self::resume(site, segment, window, mark, live))
    }

    /// Goes on in a synced segment after `end`.
    pub(crate) fn resume(
        site: Site,
        segment: Segment,
        window: Option<WindowWriter>,
        end: Mark,
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

    pub(crate) fn stopped(&self) -> Option<&Arc<Error>> {
        self.stopped.as_ref()
    }

    pub(crate) fn stop(&mut self, cause: &Error) {
        self.stopped.get_or_insert_with(|| Arc::new(cause.clone()));
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
                self.end = Mark { position: header.end(), checksum };
            }
            _ => self.append_slowly(&header, payload)?,
        }
        Ok(Position(self.end.position))
    }

    #[cold]
    fn append_slowly(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<()> {
        self.check()?;
        let bytes = header.record_bytes();
        self.flush(bytes)?;
        if !self.segment.fits(header.end()) {
            self.rotate(bytes)?;
        }
        match &mut self.window {
            Some(window) if window.is_for(header) => {
                if !window.has_room(header) {
                    window.rebase(header.position);
                }
                let checksum = window.put(header, payload, self.end.checksum);
                self.end = Mark { position: header.end(), checksum };
                Ok(())
            }
            _ => self.write_through(header, payload),
        }
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
        // The window began before this record; whatever happens next in it begins after.
        if let Err(error) = written {
            self.restart_window();
            self.sealed = true;
            return Err(error);
        }
        self.end = Mark { position: header.end(), checksum };
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

    /// Goes on in a new segment; everything is in this one.
    fn rotate(&mut self, next_bytes: u64) -> Result<()> {
        debug_assert_eq!(self.written.position, self.end.position);
        self.next_segment(next_bytes)
    }

    /// Leaves a segment that could not be written for a new one, which begins with what is missing.
    fn relocate(&mut self, next_bytes: u64) -> Result<()> {
        let missing = self.end.position - self.written.position;
        self.next_segment(missing.saturating_add(next_bytes))?;
        self.sealed = false;
        Ok(())
    }

    fn next_segment(&mut self, bytes: u64) -> Result<()> {
        let needed = (segment::HEADER_BYTES as u64).saturating_add(bytes).saturating_add(CLOSE_BYTES);
        let spare = self.take_spare(needed.max(self.site.segment_bytes_after(self.segment.capacity)))?;
        let origin = Origin {
            position: self.written.position,
            seed: self.written.checksum,
            predecessor: self.segment.number,
            predecessor_bytes: self.segment.offset_of(self.written.position),
            predecessor_checksum: self.written.checksum,
            record_seed: self.segment.record_seed,
        };
        let header = origin.header(spare.number, self.synced, self.window.as_ref());
        match spare.activate(&header) {
            Ok(segment) => {
                self.enter(segment);
                Ok(())
            }
            Err((spare, error)) => {
                // Its header may be on disk and outlive the removal, so nothing may follow in this segment: the
                // next one has a higher number and overrules it.
                self.sealed = true;
                spare.discard(&*self.site.vfs);
                Err(error)
            }
        }
    }

    fn enter(&mut self, segment: Segment) {
        let left = std::mem::replace(&mut self.segment, segment);
        self.live.push_back(Live { number: left.number, start: left.start });
        self.unsynced.push(left);
        // One that was prepared while this one was created in its stead: numbers only rise.
        if self.spare.as_ref().is_some_and(|spare| spare.number <= self.segment.number)
            && let Some(spare) = self.spare.take()
        {
            spare.discard(&*self.site.vfs);
        }
        self.background.work.notify();
    }

    fn take_spare(&mut self, capacity: u64) -> Result<Spare> {
        if let Some(mut spare) = self.spare.take() {
            if let Err(error) = spare.allocate(capacity) {
                self.spare = Some(spare);
                return Err(error);
            }
            return Ok(spare);
        }
        let number = self.take_number();
        Spare::prepare(&*self.site.vfs, &self.site.directory, number, capacity)
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Number and bytes of a spare to be prepared outside of the lock, if one is missing.
    pub(crate) fn wants_spare(&mut self) -> Option<(u64, u64)> {
        if self.spare.is_some() || self.is_finished() {
            return None;
        }
        self.background.preparing = true;
        Some((self.take_number(), self.site.segment_bytes_after(self.segment.capacity)))
    }

    /// Takes a spare that was prepared; gives it back if it came too late.
    pub(crate) fn offer_spare(&mut self, spare: Spare) -> Option<Spare> {
        if self.is_finished() || self.spare.is_some() || spare.number <= self.segment.number {
            return Some(spare);
        }
        self.spare = Some(spare);
        None
    }

    /// Whether nothing will be appended any more.
    pub(crate) fn is_finished(&self) -> bool {
        self.closed || self.stopped.is_some()
    }

    /// Whether a segment belongs to the log.
    pub(crate) fn is_live(&self, number: u64) -> bool {
        self.segment.number == number || self.live.iter().any(|live| live.number == number)
    }

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
    pub(crate) fn cut(&mut self, origin: Origin) -> Result<(Vec<u64>, Option<PathBuf>)> {
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
        let Mark { position, checksum } = self.end;
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

    /// Takes no more records.
    pub(crate) fn abandon(&mut self) {
        self.closed = true;
    }
}
