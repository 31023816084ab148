//! Reading a log, from segment to segment and into the window, and deciding where it ends.

mod end_of_log;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_core::{Error, Result};

use super::segment_list::{self, SegmentList};
use crate::files::directory::LogFile;
use crate::files::record_reader::{Found, FoundRecord, Record, RecordReader};
use crate::files::window_file;
use crate::format::record::{Boundary, RecordType};
use crate::format::segment::SegmentHeader;
use crate::log::{CleanClose, Position};
use crate::report::{Dropped, LogExpectation, RecoveryMode, RecoveryReport};

/// Reads a log without changing anything on disk: for recovery, for looking into files, for followers.
///
/// Memory is bounded by a few mebibytes or the longest record, time by the bytes on disk.
///
/// ```
/// # use std::sync::Arc;
/// # use lsm_core::{env::ThreadEnv, vfs::PosixFs};
/// # use lsm_wal::{FirstSegment, Log, LogExpectation, Position, RecoveryMode, Wal, WalOptions, WalReader};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// # let vfs = Arc::new(PosixFs);
/// let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
/// let env = Arc::new(ThreadEnv::new(1));
/// let mut log = Wal::create(vfs.clone(), env, directory, FirstSegment::default(), options)?;
/// log.append(7, b"hello")?;
///
/// let mode = RecoveryMode::TolerateTornTail;
/// let mut reader = WalReader::open(vfs, directory, &LogExpectation::default(), mode)?;
/// while let Some(record) = reader.next()? {
///     assert_eq!((record.tag, record.payload), (7, &b"hello"[..]));
/// }
/// assert_eq!(reader.report().records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WalReader {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    list: SegmentList,
    /// Index of the segment where reading began.
    first: Option<usize>,
    /// Index of the segment that is being read.
    segment: usize,
    reader: Option<RecordReader>,
    /// The window that goes with the segment, once it was needed.
    windows: Vec<RecordReader>,
    windows_of: Option<u64>,
    /// Where the next record begins, and the checksum that it continues.
    next: Boundary,
    from: Position,
    /// Where to stop although there may be more: the end of a log that is being written.
    until: Option<Position>,
    /// Everything before this was synced, as far as is known.
    claimed: u64,
    mode: RecoveryMode,
    clean: Option<CleanClose>,
    finished: bool,
    trace: Trace,
    /// Stop where the position to read from is reached, before the record there.
    pausing: bool,
    report: RecoveryReport,
}

/// What recovery needs to know beyond the report.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trace {
    /// Where the position to read from was reached.
    pub(crate) resume_point: Option<ResumePoint>,
    /// The first position below a synced one that does not stand in a segment as it should: damaged and left
    /// out, or mended from the window.
    pub(crate) first_weak: Option<u64>,
}

/// Where a segment can be continued.
#[derive(Clone, Copy)]
pub(crate) struct ResumePoint {
    pub(crate) segment: u64,
    /// Bytes of the segment that count, its header included.
    pub(crate) bytes: u64,
    pub(crate) checksum: u64,
    pub(crate) position: u64,
    pub(crate) record_seed: u32,
}

#[derive(Clone, Copy)]
enum Place {
    Segment,
    Window(usize),
}

/// Where the last record was found.
#[derive(Clone, Copy)]
pub(crate) struct Located {
    /// Where it stands in the window, if its segment does not have it.
    pub(crate) window_offset: Option<u64>,
    pub(crate) checksum: u64,
}

impl WalReader {
    /// The file system and the directory of the log.
    pub(crate) fn place(&self) -> (&Arc<dyn Vfs>, &Path) {
        (&self.vfs, &self.directory)
    }

    /// Opens the log in a directory for reading the records that begin at or after [`LogExpectation::from`]. What is
    /// missing of the rest of what is expected is corruption; salvaging reports it instead.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        directory: &Path,
        expected: &LogExpectation,
        mode: RecoveryMode,
    ) -> Result<Self> {
        let &LogExpectation { from, synced, clean, begun } = expected;
        let list = SegmentList::read(&*vfs, directory, mode)?;
        let first = list.first(from, mode)?;
        let claimed = synced.max(clean.map_or(Position::ZERO, |clean| clean.end));
        let mut reader = Self::new(vfs, directory, list, first, mode)?;
        reader.from = from;
        reader.claimed = reader.claimed.max(claimed.0);
        reader.clean = clean;
        if begun > 0 {
            reader.expect_begun(begun)?;
        }
        Ok(reader)
    }

    /// Fails unless the log was begun: a segment of this number, or a later one, has a header.
    fn expect_begun(&mut self, segment: u64) -> Result<()> {
        let begun =
            |listed: &segment_list::ListedSegment| listed.number >= segment && listed.header.is_some();
        if self.list.segments.iter().any(begun) {
            return Ok(());
        }
        let lost = self.list.segments.iter().find(|listed| listed.number >= segment);
        let detail = match lost {
            Some(_) => "its header or an earlier segment is lost: the log is known to have more",
            None => "the file is missing, yet the log is known to have it or a later one",
        };
        let path = lost
            .map_or_else(|| LogFile::Segment(segment).path(&self.directory), |listed| listed.path.clone());
        if self.mode == RecoveryMode::Salvage {
            let reason = format!("{}: {detail}", path.display());
            self.report.drop_bytes(Dropped { path: self.directory.clone(), offset: 0, bytes: 1, reason });
            return Ok(());
        }
        Err(Error::corruption(&path, 0, detail))
    }

    /// Reads from a segment's beginning on, the records that begin at or after `from`.
    pub(crate) fn open_at(
        vfs: Arc<dyn Vfs>,
        directory: &Path,
        segment: u64,
        from: Position,
        mode: RecoveryMode,
    ) -> Result<Self> {
        let list = SegmentList::read(&*vfs, directory, mode)?;
        let first = list.find(segment);
        let mut reader = Self::new(vfs, directory, list, first, mode)?;
        reader.from = from;
        Ok(reader)
    }

    fn new(
        vfs: Arc<dyn Vfs>,
        directory: &Path,
        list: SegmentList,
        first: Option<usize>,
        mode: RecoveryMode,
    ) -> Result<Self> {
        let files: Vec<String> = list.files.iter().map(|file| file.name()).collect();
        let next_segment = list.files.iter().map(|file| file.number()).max().unwrap_or(0) + 1;
        let mut reader = Self {
            vfs,
            directory: directory.to_owned(),
            list,
            first,
            segment: 0,
            reader: None,
            windows: Vec::new(),
            windows_of: None,
            next: Boundary { position: 0, checksum: 0 },
            from: Position::ZERO,
            until: None,
            claimed: 0,
            mode,
            clean: None,
            finished: false,
            trace: Trace::default(),
            pausing: false,
            report: RecoveryReport { next_segment, files, ..RecoveryReport::default() },
        };
        if let Some(first) = first {
            reader.enter(first)?;
            reader.report.start = Position(reader.next.position);
        }
        Ok(reader)
    }

    /// Ends at the end of a record without asking what stands behind it: so a log can be read while it is being written.
    /// Everything before `until` must be [durable](crate::LogSync::wait_durable) already, and stay in the log meanwhile.
    #[must_use]
    pub fn until(mut self, until: Position) -> Self {
        self.until = Some(until);
        self.claimed = self.claimed.max(until.0);
        self
    }

    /// The next record, borrowed until the next call; `None` at the end.
    ///
    /// After an error the reader is at its end.
    #[expect(clippy::should_implement_trait, reason = "the record borrows from the reader")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        Ok(self.next_located()?.map(|(record, _)| record))
    }

    /// As [`next`](Self::next), with the place.
    #[inline]
    pub(crate) fn next_located(&mut self) -> Result<Option<(Record<'_>, Located)>> {
        let found = self.advance().inspect_err(|_| self.finished = true)?;
        let Some((place, found)) = found else { return Ok(None) };
        self.report.records += 1;
        self.report.bytes += u64::from(found.header.length);
        self.report.last_tag = Some(found.header.tag);
        let (reader, is_window) = match place {
            Place::Segment => (self.reader.as_ref(), false),
            Place::Window(index) => (self.windows.get(index), true),
        };
        Ok(reader.map(|reader| {
            let window_offset = reader.offset_of(found.header.position).filter(|_| is_window);
            let located = Located { window_offset, checksum: found.checksum };
            (reader.record(&found), located)
        }))
    }

    /// Bytes of the buffers that the files are read into. They grow to the longest record, with the call of
    /// [`next`](Self::next) that returns it.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.reader.iter().chain(&self.windows).map(RecordReader::memory_bytes).sum()
    }

    /// What was found, complete once [`next`](Self::next) returned `None`.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    pub(crate) fn trace(&self) -> Trace {
        self.trace
    }

    pub(crate) fn list(&self) -> &SegmentList {
        &self.list
    }

    /// Where the log can be continued from the position to read from on. Before the first record was read.
    pub(crate) fn find_resume_point(&mut self) -> Result<Option<ResumePoint>> {
        self.pausing = true;
        let found = self.advance();
        self.pausing = false;
        found.map(|_| self.trace.resume_point)
    }

    /// The segments that were read, oldest first, their headers.
    pub(crate) fn read_segments(&self) -> impl Iterator<Item = &SegmentHeader> {
        let next = |&index: &usize| self.list.successor(index);
        std::iter::successors(self.first, next).filter_map(|index| self.list.header(index))
    }

    fn advance(&mut self) -> Result<Option<(Place, FoundRecord)>> {
        loop {
            if self.trace.resume_point.is_none() && self.next.position >= self.from.0 {
                self.trace.resume_point = self.resume_point();
                if self.pausing {
                    return Ok(None);
                }
            }
            if self.finished || self.until.is_some_and(|until| self.next.position >= until.0) {
                self.finish();
                return Ok(None);
            }
            if let Some(successor) = self.list.successor(self.segment)
                && self.list.header(successor).is_some_and(|header| header.start == self.next.position)
            {
                self.enter(successor)?;
                continue;
            }
            let Some((place, found)) = self.find()? else {
                self.end_of_log()?;
                continue;
            };
            if found.header.kind == RecordType::Close {
                self.claimed = self.claimed.max(found.header.synced);
                self.report.closed = true;
                self.finished = true;
                self.check_end()?;
                continue;
            }
            if let Place::Window(_) = place {
                self.trace.first_weak.get_or_insert(found.header.position);
            }
            self.next = Boundary { position: found.header.end(), checksum: found.checksum };
            self.claimed = self.claimed.max(found.header.synced);
            if found.header.position >= self.from.0 {
                return Ok(Some((place, found)));
            }
        }
    }

    /// The next record, from the segment or else from the window.
    #[inline]
    fn find(&mut self) -> Result<Option<(Place, FoundRecord)>> {
        let Boundary { position, checksum } = self.next;
        let Some(reader) = &mut self.reader else { return Ok(None) };
        if let Found::Record(found) = reader.record_at(position, checksum)? {
            return Ok(Some((Place::Segment, found)));
        }
        if self.until.is_some() {
            return Ok(None);
        }
        self.open_windows()?;
        for (index, window) in self.windows.iter_mut().enumerate() {
            if let Found::Record(found) = window.record_at(position, checksum)? {
                return Ok(Some((Place::Window(index), found)));
            }
        }
        Ok(None)
    }

    fn open_windows(&mut self) -> Result<()> {
        let segment = self.list.header(self.segment);
        let number = segment.map_or(0, |header| header.window);
        if self.windows_of != Some(number) {
            let windows = match number {
                0 => Ok(Vec::new()),
                number => window_file::read(&*self.vfs, &self.directory, number, segment),
            };
            self.windows = match windows {
                Err(Error::Corruption { path, offset, detail }) if self.mode == RecoveryMode::Salvage => {
                    let (path, reason) = (path.to_path_buf(), detail.to_string());
                    self.report.drop_bytes(Dropped { path, offset, bytes: 1, reason });
                    Vec::new()
                }
                windows => windows?,
            };
            self.windows_of = Some(number);
        }
        Ok(())
    }

    /// Goes on at the start of a segment.
    fn enter(&mut self, index: usize) -> Result<()> {
        let Some(&header) = self.list.header(index) else { return Ok(()) };
        let continues = self.reader.is_some()
            && self.list.segments.get(self.segment).is_some_and(|now| now.number == header.predecessor)
            && header.start == self.next.position;
        if continues
            && header.predecessor_checksum != self.next.checksum
            && self.mode != RecoveryMode::Salvage
        {
            let path = self.list.segments.get(index).map_or(&self.directory, |listed| &listed.path);
            let detail = format!("the segment does not continue segment {}", header.predecessor);
            return Err(Error::corruption(path, 48, detail));
        }
        self.reader = self.list.open(&*self.vfs, index)?;
        self.segment = index;
        self.next = Boundary { position: header.start, checksum: header.seed };
        self.claimed = self.claimed.max(header.synced);
        Ok(())
    }

    fn resume_point(&self) -> Option<ResumePoint> {
        let reader = self.reader.as_ref()?;
        Some(ResumePoint {
            segment: self.list.segments.get(self.segment)?.number,
            bytes: reader.offset_of(self.next.position)?,
            checksum: self.next.checksum,
            position: self.next.position,
            record_seed: self.list.header(self.segment)?.record_seed,
        })
    }

    fn finish(&mut self) {
        self.finished = true;
        let Boundary { position, checksum } = self.next;
        let end = Position(position).max(self.from);
        self.report.end = end;
        self.report.synced = Position(self.claimed).min(end);
        self.report.checksum = checksum;
        self.report.closed &= self.report.dropped.is_empty();
        if let Some(reader) = &self.reader {
            self.report.segment = self.list.segments.get(self.segment).map_or(0, |listed| listed.number);
            self.report.length = reader.offset_of(position).unwrap_or(0);
        }
    }
}
