//! The segments of a directory and how they continue each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_core::{Error, Result};

use crate::files::directory::{self, LogFile};
use crate::files::record_reader::{RecordArea, RecordReader};
use crate::files::window_file::WindowFile;
use crate::format::record;
use crate::format::segment::{self, HeaderState, SegmentHeader};
use crate::log::Position;
use crate::report::RecoveryMode;

/// A segment's file.
pub(crate) struct ListedSegment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// `None` if it was never used, or lost before it was synced.
    pub(crate) header: Option<SegmentHeader>,
}

/// All segments of a directory, by number.
///
/// A segment continues its predecessor. When several name the same predecessor, the highest number is right: it
/// was written because the others were given up, by recovery, by [`truncate_tail`](crate::Wal::truncate_tail)
/// or after a write failed.
pub(crate) struct SegmentList {
    pub(crate) segments: Vec<ListedSegment>,
    pub(crate) files: Vec<LogFile>,
}

impl SegmentList {
    pub(crate) fn read(vfs: &dyn Vfs, directory: &Path, mode: RecoveryMode) -> Result<Self> {
        let files = directory::list(vfs, directory)?;
        let mut segments = Vec::new();
        for &file in &files {
            let LogFile::Segment(number) = file else { continue };
            let path = file.path(directory);
            let Some(state) = directory::read_header(vfs, &path)? else { continue };
            let header = header_of(&path, number, state);
            let header = match header {
                Err(Error::Corruption { .. }) if mode == RecoveryMode::Salvage => None,
                header => header?,
            };
            segments.push(ListedSegment { number, path, header });
        }
        Ok(Self { segments, files })
    }

    /// Reads the directory again, of a log that is being written, and the headers that it had not. Returns whether it
    /// found another segment or header, or misses one.
    pub(crate) fn refresh(&mut self, vfs: &dyn Vfs, directory: &Path) -> Result<bool> {
        let files = directory::list(vfs, directory)?;
        let mut segments = Vec::new();
        let mut changed = false;
        for &file in &files {
            let LogFile::Segment(number) = file else { continue };
            let path = file.path(directory);
            let known = self.find(number).and_then(|index| self.segments.get(index)?.header);
            let listed = match known {
                Some(_) => Some(ListedSegment { number, path, header: known }),
                None => read_live(vfs, path, number)?,
            };
            changed |= listed.as_ref().is_some_and(|listed| listed.header != known);
            segments.extend(listed);
        }
        changed |= self.segments.len() != segments.len();
        *self = Self { segments, files };
        Ok(changed)
    }

    /// Where to begin in order to read from a position: the newest segment that begins at or before it. From
    /// position 0, the oldest of a log whose front was truncated will do.
    pub(crate) fn first(&self, from: Position, mode: RecoveryMode) -> Result<Option<usize>> {
        let starts = |listed: &ListedSegment| listed.header.is_some_and(|header| header.start <= from.0);
        if let Some(index) = self.segments.iter().rposition(starts) {
            return Ok(Some(index));
        }
        let oldest = self.segments.iter().position(|listed| listed.header.is_some());
        let Some(header) = oldest.and_then(|index| self.header(index)) else { return Ok(None) };
        if mode == RecoveryMode::Salvage {
            return Ok(oldest);
        }
        let detail = if from > Position::ZERO {
            format!(
                "the log begins at position {}; what is before it, from {from} on, is missing",
                header.start
            )
        } else if self.find(header.predecessor).is_some() {
            // Truncating the front removes the file; and only after the next segment was synced.
            format!(
                "segment {} continues segment {}, whose header is lost",
                header.number, header.predecessor
            )
        } else {
            return Ok(oldest);
        };
        let number = if from > Position::ZERO { header.number } else { header.predecessor };
        let path = self.find(number).and_then(|index| self.segments.get(index)).map(|listed| &listed.path);
        Err(Error::corruption(path.map_or(Path::new(""), |path| path), 0, detail))
    }

    pub(crate) fn header(&self, index: usize) -> Option<&SegmentHeader> {
        self.segments.get(index)?.header.as_ref()
    }

    /// The segment that continues this one.
    pub(crate) fn successor(&self, index: usize) -> Option<usize> {
        let number = self.segments.get(index)?.number;
        let names = |listed: &ListedSegment| listed.header.is_some_and(|header| header.predecessor == number);
        self.segments.iter().rposition(names).filter(|&successor| successor > index)
    }

    /// The segment of this number.
    pub(crate) fn find(&self, number: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&number, |listed| listed.number).ok()
    }

    /// The record seeds that headers of segments and windows name.
    pub(crate) fn record_seeds(&self, vfs: &dyn Vfs, directory: &Path) -> Vec<u32> {
        let windows = self.files.iter().filter_map(|&file| match file {
            LogFile::Window(number) => WindowFile::open(vfs, directory, number).ok().flatten(),
            LogFile::Segment(_) | LogFile::Unfinished(_) => None,
        });
        let segments = self.segments.iter().filter_map(|listed| listed.header.as_ref());
        let seeds = segments.map(|header| header.record_seed);
        let mut seeds: Vec<u32> = seeds.chain(windows.map(|window| window.record_seed)).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds
    }

    /// Whether what a segment says holds for the log that another segment belongs to. A log that was begun anew
    /// beside an older one, because an engine's recovery was cut short, knows nothing about that one.
    pub(crate) fn same_log(&self, index: usize, other: usize) -> bool {
        let root = self.root(index);
        root.is_none() || root == self.root(other)
    }

    /// The segment that a log began with; `None` if it is gone.
    fn root(&self, mut index: usize) -> Option<usize> {
        // Predecessors have lower numbers, so this ends.
        loop {
            let predecessor = self.header(index)?.predecessor;
            if predecessor == 0 {
                return Some(index);
            }
            index = self.find(predecessor).filter(|&before| before < index)?;
        }
    }

    /// Opens a segment for reading, up to where its successor begins.
    pub(crate) fn open(&self, vfs: &dyn Vfs, index: usize) -> Result<Option<RecordReader>> {
        let Some(ListedSegment { path, header: Some(header), .. }) = self.segments.get(index) else {
            return Ok(None);
        };
        let Some(mut reader) = open_reader(vfs, path, Some(header))? else {
            return Err(Error::io("open", path, std::io::ErrorKind::NotFound.into()));
        };
        if let Some(next) = self.successor(index).and_then(|next| self.header(next))
            && let Some(end) = reader.offset_of(next.start)
        {
            reader.limit(end);
        }
        Ok(Some(reader))
    }
}

/// Opens a segment's file; without a header positions mean nothing. `None` if it is gone.
pub(crate) fn open_reader(
    vfs: &dyn Vfs,
    path: &Path,
    header: Option<&SegmentHeader>,
) -> Result<Option<RecordReader>> {
    let Some(file) = directory::open_if_there(vfs, path)? else { return Ok(None) };
    let len = file.len().map_err(|error| Error::io("read the length of", path, error))?;
    let area = RecordArea {
        first_offset: segment::HEADER_BYTES as u64,
        start: header.map_or(0, |header| header.start),
        record_seed: header.map(|header| header.record_seed),
    };
    Ok(Some(RecordReader::new(file, path.to_owned(), len, area)))
}

/// What the first bytes of a segment say. `None` if it was never used, or lost before it was synced.
fn header_of(path: &Path, number: u64, state: HeaderState) -> Result<Option<SegmentHeader>> {
    match state {
        HeaderState::Valid(header) => check_header(path, number, header).map(Some),
        HeaderState::Undecodable(error) => Err(error.at(path, segment::ENCRYPTION_OFFSET)),
        HeaderState::OtherVersion(found) => {
            let supported = segment::VERSION;
            Err(Error::UnsupportedVersion { path: Arc::new(path.to_owned()), found, supported })
        }
        HeaderState::Flipped => {
            Err(Error::corruption(path, 0, "one bit of the segment's header was flipped"))
        }
        HeaderState::Empty | HeaderState::Garbage => Ok(None),
    }
}

/// A segment that somebody may be writing; `None` if the file is gone. What a reader sees in the middle of a write may
/// look damaged; it does not twice.
fn read_live(vfs: &dyn Vfs, path: PathBuf, number: u64) -> Result<Option<ListedSegment>> {
    let mut seen = None;
    loop {
        let Some(state) = directory::read_header(vfs, &path)? else { return Ok(None) };
        let stable = seen.as_ref() == Some(&state);
        match header_of(&path, number, state.clone()) {
            Err(Error::Corruption { .. }) if !stable => seen = Some(state),
            header => return Ok(Some(ListedSegment { number, path, header: header? })),
        }
    }
}

fn check_header(path: &Path, number: u64, header: SegmentHeader) -> Result<SegmentHeader> {
    if header.number != number {
        let detail = format!("this is segment {} under another's name", header.number);
        return Err(Error::corruption(path, 16, detail));
    }
    if header.start >= record::POSITION_MAX || header.synced > header.start || header.predecessor >= number {
        return Err(Error::corruption(path, 24, "the segment's header contradicts itself"));
    }
    Ok(header)
}
