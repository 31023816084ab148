//! Follows a log while it is being written, by this process or another.
//!
//! A [`WalReader`](crate::WalReader) reads a log that stands still, and decides what it means that it ends. A tail comes
//! back to the end again and again. What it takes for a record continues the chain of checksums at its position, so
//! bytes that are half written, or left by an earlier generation, never pass. What does not is no damage yet: it is the
//! end for now, unless something proves that the record was synced.
//!
//! At the end it looks into the window first and into the segment second, because records move that way; then whether
//! there is a segment that it did not know. If not, then nothing was there when it was asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_core::{Error, Result};

use crate::files::record_reader::{Found, FoundRecord, Record, RecordReader};
use crate::files::window_file;
use crate::format::record::{Boundary, RecordType};
use crate::format::segment::SegmentHeader;
use crate::log::Position;
use crate::read::damage;
use crate::read::segment_list::{self, SegmentList};

/// How often what looks damaged is read again, because somebody may have been in the middle of writing it.
const LIVE_READS: usize = 3;

/// Reads a log while it is being written, by this process or another: the records from a position on, in order, and
/// when there are no more, those that came since. It changes nothing, takes no lock and keeps no file from being
/// removed.
///
/// It follows the log into a new one that was begun where the old one ended, as an engine does when it opens.
/// Memory is bounded by a mebibyte and the longest record.
///
/// ```
/// # use std::sync::Arc;
/// # use lsm_core::{env::ThreadEnv, vfs::PosixFs};
/// # use lsm_wal::{FirstSegment, Log, Position, Tail, Wal, WalOptions};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// # let vfs = Arc::new(PosixFs);
/// let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
/// let env = Arc::new(ThreadEnv::new(1));
/// let mut log = Wal::create(vfs.clone(), env, directory, FirstSegment::default(), options)?;
///
/// let mut tail = Tail::open(vfs, directory, Position::ZERO)?;
/// assert!(tail.next()?.is_none()); // nothing yet
/// let end = log.append(7, b"hello")?;
/// let record = tail.next()?.expect("it was appended");
/// assert_eq!((record.tag, record.payload, record.end), (7, &b"hello"[..], end));
/// assert!(tail.next()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tail {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    list: SegmentList,
    /// The segment that is being read; `None` until there is one.
    here: Option<Here>,
    /// Index of the segment that comes after it, as far as is known.
    following: Option<usize>,
    /// Where the next record begins, and the checksum that it continues.
    next: Boundary,
    /// Records that begin before this are passed over.
    from: u64,
    /// Everything before this was durable when the directory was listed.
    listed: u64,
    passed: Option<Passed>,
}

/// Records that were handed out, and should stand in a later segment once more, since writing the one before failed.
#[derive(Clone, Copy)]
struct Passed {
    /// Where that segment begins.
    start: u64,
    /// The end of the last of them.
    end: Boundary,
}

struct Here {
    header: SegmentHeader,
    reader: RecordReader,
    /// What its window held when it was last looked into.
    windows: Vec<RecordReader>,
}

/// Where a record was found.
#[derive(Clone, Copy)]
enum Place {
    Segment,
    Window(usize),
}

/// Why a log cannot be followed any further. The [`Tail`] stays where it is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// The records that come next were removed, because the front of the log was truncated.
    #[error("position {position} of the log is gone: what is left of it begins at position {begin}")]
    Gone {
        /// Where the next record began.
        position: Position,
        /// Where the log begins now.
        begin: Position,
    },
    /// Records that were read are not part of the log: they were not durable and a power cut lost them, or writing
    /// them failed. Cannot happen to durable ones.
    #[error(
        "records were read up to position {position} of the log, and it goes on from position {common} with others"
    )]
    TakenBack {
        /// The end of the last record that was read.
        position: Position,
        /// Records up to here are part of the log.
        common: Position,
    },
    /// A file could not be read, or is damaged.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Tail {
    /// Follows the log in a directory, from the first record on that begins at `from` or after it. A log that is not
    /// there yet is waited for.
    pub fn open(vfs: Arc<dyn Vfs>, directory: &Path, from: Position) -> Result<Self, TailError> {
        let mut tail = Self {
            vfs,
            directory: directory.to_owned(),
            list: SegmentList { segments: Vec::new(), files: Vec::new() },
            here: None,
            following: None,
            next: Boundary { position: from.0, checksum: 0 },
            from: from.0,
            listed: 0,
            passed: None,
        };
        tail.refresh()?;
        tail.begin()?;
        Ok(tail)
    }

    /// The next record, durable or not, borrowed until the next call. `None` if there is none now.
    ///
    /// Everything is found that was appended before the call. A record that is not durable may be
    /// [taken back](TailError::TakenBack).
    #[expect(clippy::should_implement_trait, reason = "the record borrows from the tail")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, TailError> {
        self.next_up_to(None)
    }

    /// The next record that ends at or before `durable`, which the caller knows to be durable, as
    /// [`LogSync::durable`](crate::LogSync::durable) says. `None` if there is none.
    pub fn next_durable(&mut self, durable: Position) -> Result<Option<Record<'_>>, TailError> {
        self.next_up_to(Some(durable.0))
    }

    /// Passes over records whose tags are at or below `tag`, in a log whose tags ascend, a segment at a time as far as
    /// that goes: what is left to be passed over are records of one segment.
    pub fn skip_segments(&mut self, tag: u64) -> Result<(), TailError> {
        while let Some(here) = &self.here
            && let Some(index) = self.following
            && let Some(&header) = self.list.header(index)
            && header.predecessor == here.header.number
            && let Some(mut reader) = self.open_segment(index)?
            && let Found::Record(first) = reader.record_at(header.start, header.seed)?
            && first.header.kind == RecordType::Data
            && first.header.tag <= tag
        {
            self.enter(header, reader);
        }
        Ok(())
    }

    /// The end of the last record that was returned, or where reading began.
    pub fn position(&self) -> Position {
        let passed = self.passed.map_or(0, |passed| passed.end.position);
        Position(self.next.position.max(passed).max(self.from))
    }

    /// Bytes of the buffers that files are read into.
    pub fn memory_bytes(&self) -> usize {
        let readers = self.here.iter().flat_map(|here| here.windows.iter().chain([&here.reader]));
        readers.map(RecordReader::memory_bytes).sum()
    }

    fn next_up_to(&mut self, durable: Option<u64>) -> Result<Option<Record<'_>>, TailError> {
        loop {
            let Some((place, found)) = self.find(durable)? else { return Ok(None) };
            let end = Boundary { position: found.header.end(), checksum: found.checksum };
            if durable.is_some_and(|durable| end.position > durable) {
                return Ok(None);
            }
            if let Some(passed) = self.passed {
                let Passed { start, end: last } = passed;
                if end.position > last.position
                    || end.position == last.position && end.checksum != last.checksum
                {
                    let (position, common) = (Position(last.position), Position(start));
                    return Err(TailError::TakenBack { position, common });
                }
                self.next = end;
                if end.position == last.position {
                    self.passed = None;
                }
                continue;
            }
            self.next = end;
            if found.header.position < self.from {
                continue;
            }
            let reader = self.here.as_ref().and_then(|here| match place {
                Place::Segment => Some(&here.reader),
                Place::Window(index) => here.windows.get(index),
            });
            return Ok(reader.map(|reader| reader.record(&found)));
        }
    }

    /// The record that comes next, if it is there.
    fn find(&mut self, durable: Option<u64>) -> Result<Option<(Place, FoundRecord)>, TailError> {
        loop {
            if let Some(durable) = durable {
                if self.next.position >= durable {
                    return Ok(None);
                }
                // What is durable, and not a record that failed to be written, has its segment in the list from then on.
                if self.listed < durable {
                    self.refresh()?;
                    self.listed = durable;
                }
            }
            self.begin()?;
            if self.step_over()? {
                continue;
            }
            if let Some(found) = self.look()? {
                return Ok(Some(found));
            }
            self.read_anew(durable.is_some())?;
            if let Some(found) = self.look()? {
                return Ok(Some(found));
            }
            if !self.refresh()? {
                return self.end(durable);
            }
        }
    }

    /// Lists the directory again. Returns whether it has changed.
    fn refresh(&mut self) -> Result<bool> {
        let changed = self.list.refresh(&*self.vfs, &self.directory)?;
        self.following = self.find_following();
        Ok(changed)
    }

    /// Enters the segment to begin with, unless one is being read.
    fn begin(&mut self) -> Result<(), TailError> {
        while self.here.is_none() {
            let position = self.next.position;
            let headers =
                || self.list.segments.iter().enumerate().filter(|(_, listed)| listed.header.is_some());
            let starts = |listed: &segment_list::ListedSegment| listed.header.map(|header| header.start);
            let begun = headers().rfind(|(_, listed)| starts(listed).is_some_and(|start| start <= position));
            let Some((index, _)) = begun else {
                let Some(oldest) = headers().filter_map(|(_, listed)| starts(listed)).min() else {
                    return Ok(());
                };
                return Err(TailError::Gone { position: Position(position), begin: Position(oldest) });
            };
            let header = self.list.header(index).copied();
            match (header, self.open_segment(index)?) {
                (Some(header), Some(reader)) => self.enter(header, reader),
                // It was removed after the directory was listed.
                _ => drop(self.refresh()?),
            }
        }
        Ok(())
    }

    /// Goes on to the segment after this one, if that is where the next record is.
    fn step_over(&mut self) -> Result<bool, TailError> {
        let (Some(here), Some(index)) = (&self.here, self.following) else { return Ok(false) };
        let Some(&header) = self.list.header(index) else { return Ok(false) };
        let Boundary { position, checksum } = self.next;
        if header.start > position {
            return Ok(false);
        }
        let continues = header.predecessor == here.header.number;
        let cut = header.seed != header.predecessor_checksum;
        if header.start < position && (!continues || cut) {
            let (position, common) = (self.position(), Position(header.start));
            return Err(TailError::TakenBack { position, common });
        }
        if header.start == position && continues && header.predecessor_checksum != checksum {
            let path = self.list.segments.get(index).map_or(&self.directory, |listed| &listed.path);
            let detail = format!("the segment does not continue segment {}", header.predecessor);
            return Err(Error::corruption(path, 48, detail).into());
        }
        let Some(reader) = self.open_segment(index)? else { return Ok(self.refresh()?) };
        if header.start < position {
            let earlier = self.passed.filter(|passed| passed.end.position >= position);
            let (start, end) = (header.start, earlier.map_or(self.next, |passed| passed.end));
            self.passed = Some(Passed { start, end });
        }
        self.enter(header, reader);
        Ok(true)
    }

    /// The segment that continues this one, or the first of the log that was begun after this one's.
    fn find_following(&self) -> Option<usize> {
        let number = self.here.as_ref()?.header.number;
        let names = |predecessor: u64| {
            move |listed: &segment_list::ListedSegment| {
                let header = listed.header.filter(|header| header.number > number);
                header.is_some_and(|header| header.predecessor == predecessor)
            }
        };
        let segments = &self.list.segments;
        segments.iter().rposition(names(number)).or_else(|| segments.iter().position(names(0)))
    }

    fn open_segment(&self, index: usize) -> Result<Option<RecordReader>> {
        match self.list.segments.get(index) {
            Some(listed) => segment_list::open_reader(&*self.vfs, &listed.path, listed.header.as_ref()),
            None => Ok(None),
        }
    }

    fn enter(&mut self, header: SegmentHeader, reader: RecordReader) {
        self.next = Boundary { position: header.start, checksum: header.seed };
        self.here = Some(Here { header, reader, windows: Vec::new() });
        self.following = self.find_following();
    }

    /// The next record, as far as the files were read.
    fn look(&mut self) -> Result<Option<(Place, FoundRecord)>> {
        let Some(here) = &mut self.here else { return Ok(None) };
        let Boundary { position, checksum } = self.next;
        for (index, window) in here.windows.iter_mut().enumerate() {
            if let Found::Record(found) = window.record_at(position, checksum)?
                && found.header.kind == RecordType::Data
            {
                return Ok(Some((Place::Window(index), found)));
            }
        }
        match here.reader.record_at(position, checksum)? {
            Found::Record(found) if found.header.kind == RecordType::Data => {
                Ok(Some((Place::Segment, found)))
            }
            _ => Ok(None),
        }
    }

    /// Lets go of what was read of the files, since they may have changed. What is durable stands in a segment.
    fn read_anew(&mut self, durable: bool) -> Result<()> {
        let Some(here) = &mut self.here else { return Ok(()) };
        here.reader.forget_chunk();
        here.windows.clear();
        if durable || here.header.window == 0 {
            return Ok(());
        }
        for attempt in 1.. {
            match window_file::read(&*self.vfs, &self.directory, here.header.window, Some(&here.header)) {
                Err(Error::Corruption { .. }) if attempt < LIVE_READS => {}
                windows => {
                    here.windows = windows?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Decides what it means that there is no next record.
    fn end(&mut self, durable: Option<u64>) -> Result<Option<(Place, FoundRecord)>, TailError> {
        let Some(here) = &self.here else { return Ok(None) };
        let position = self.next.position;
        let number = here.header.number;
        let is_listed = self.list.find(number).is_some();
        // A later part of this log, if this one was removed; or another log, which has no more of this one.
        let begins =
            |header: &SegmentHeader| header.number > number && (!is_listed || header.predecessor == 0);
        let later = self.list.segments.iter().filter_map(|listed| listed.header).filter(begins);
        match later.map(|header| Position(header.start)).min() {
            Some(begin) if begin.0 > position => {
                return Err(TailError::Gone { position: Position(position), begin });
            }
            Some(common) if !is_listed && self.following.is_none() => {
                return Err(TailError::TakenBack { position: self.position(), common });
            }
            _ => {}
        }
        let proof = match durable {
            Some(durable) => Some(format!("everything up to position {durable} is durable")),
            None => self.proof()?,
        };
        let Some(proof) = proof else { return Ok(None) };
        // It may be newer than what was read of the segment. What is synced is there.
        if let Some(here) = &mut self.here {
            here.reader.forget_chunk();
        }
        if let Some(found) = self.look()? {
            return Ok(Some(found));
        }
        let Some(here) = &self.here else { return Ok(None) };
        let offset = here.reader.offset_of(position).unwrap_or(0);
        let detail = format!("no sound record at position {position}: {proof}");
        Err(Error::corruption(here.reader.path(), offset, detail).into())
    }

    /// What proves that there was a record. Looks no further than at a few bytes if nothing is odd.
    fn proof(&mut self) -> Result<Option<String>> {
        let following = self.following.and_then(|index| self.list.header(index)).copied();
        let Some(here) = &mut self.here else { return Ok(None) };
        let Boundary { position, checksum } = self.next;
        let mut synced = following.map_or(0, |header| header.synced);
        let Some(offset) = here.reader.offset_of(position) else { return Ok(None) };
        // Bytes stand where only the next record may, or the window has gone on beyond it.
        let began = here.reader.load(offset, 8)?.iter().any(|&byte| byte != 0);
        if began || here.windows.iter().any(|window| window.offset_of(position).is_none()) {
            if damage::flipped_byte(&mut here.reader, position, checksum)?.is_some() {
                return Ok(Some("one bit of it was flipped".to_owned()));
            }
            for reader in here.windows.iter_mut().chain([&mut here.reader]) {
                let from = reader.offset_of(position).unwrap_or(reader.first_offset());
                let claim = damage::scan_tail(reader, from, true)?.claim;
                synced = synced.max(claim.map_or(0, |(synced, _)| synced));
            }
        }
        Ok((synced > position).then(|| format!("everything up to position {synced} was synced")))
    }
}
