//! Going on with a log where it stands, on a disk that has no room to write it anew.
//!
//! A disk cannot be asked what it has: after a sync that failed, reading shows bytes that are in memory only. What is
//! not known to be durable is therefore written once more, and synced. Where there is room, that goes into new files;
//! here it goes to the same places, which are allocated. The bytes are the same, so that a crash on the way changes
//! nothing; only what stood in the window alone comes to stand in its segment, as if the log had been written on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::env::Env;
use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Error, Result};

use super::origin::Origin;
use super::recovery::{clean_up, find_resume_point};
use super::site::Site;
use super::writer::{Live, Writer};
use crate::files::directory::{self, LogFile};
use crate::format::record::{self, RecordHeader, RecordType};
use crate::format::segment::{self, SegmentHeader};
use crate::log::Position;
use crate::read::damage;
use crate::read::segment_list;
use crate::read::wal_reader::{ResumePoint, WalReader};
use crate::report::{RecoveryMode, RecoveryReport};

const CHUNK_BYTES: usize = 1 << 20;

/// Makes durable what a reader has read to the end, and goes on after it. Returns the writer and the paths of what was
/// set aside.
pub(crate) fn resume(
    site: &Site,
    env: &dyn Env,
    whole: &WalReader,
    kept: Position,
    first_segment: u64,
) -> Result<(Writer, Vec<PathBuf>)> {
    let report = whole.report();
    if first_segment < report.next_segment {
        return Err(Error::invalid(format!("segment number {first_segment} is not free")));
    }
    let is_whole = site.options.recovery != RecoveryMode::Salvage || report.dropped.is_empty();
    if report.segment == 0 || whole.trace().resume_point.is_none() || !is_whole {
        return Err(Error::invalid(
            "only a log that was read to its end, without a gap, can be gone on with",
        ));
    }
    let weak = whole.trace().first_weak.map_or(report.end, Position);
    let sound = report.synced.min(weak).clamp(report.start, report.end);
    if sound < report.end {
        let (tail, from) = find_resume_point(site, whole, sound)?;
        let segments = whole.read_segments().copied().collect();
        InPlace { site, segments, from, file: None, chunk: Vec::new(), offset: 0 }.rewrite(tail)?;
    }
    release_unused(&*site.vfs, &site.directory, report)?;
    let (_, end) = find_resume_point(site, whole, report.end)?;
    let needed = whole.read_segments().take_while(|header| header.number <= end.segment);
    let live = earlier(whole, kept).into_iter().chain(needed.copied());
    let live = live.map(|header| Live { number: header.number, start: header.start }).collect();
    let writer = Writer::begin(site.clone(), first_segment, Origin::after(end, env), live)?;
    let set_aside = clean_up(site, whole, &writer)?;
    Ok((writer, set_aside))
}

/// The segments before the first that was read that have records from `kept` on, oldest first, without a gap.
fn earlier(whole: &WalReader, kept: Position) -> Vec<SegmentHeader> {
    let before = |header: &SegmentHeader| {
        let index = whole.list().find(header.predecessor)?;
        let before = whole.list().header(index).copied()?;
        let continues = before.number < header.number && before.start <= header.start;
        (continues && header.start > kept.0).then_some(before)
    };
    let first = whole.read_segments().next().and_then(before);
    let mut earlier: Vec<_> = std::iter::successors(first, before).collect();
    earlier.reverse();
    earlier
}

/// Gives back what was allocated for records that never came, behind the end of a log that is not being written: its
/// spare segments, and the rest of its last. `report` is that of a reader at its end that did not salvage. Changes
/// nothing of the log.
pub fn release_unused(vfs: &dyn Vfs, directory: &Path, report: &RecoveryReport) -> Result<()> {
    if report.segment == 0 {
        return Ok(());
    }
    let mut removed = false;
    for file in report.files.iter().filter_map(|name| LogFile::parse(name)) {
        let LogFile::Segment(number) = file else { continue };
        let path = file.path(directory);
        if number < report.segment || report.dropped.iter().any(|dropped| dropped.path == path) {
            continue;
        }
        if number > report.segment {
            if is_spare(vfs, &path)? {
                directory::remove(vfs, &path)?;
                removed = true;
            }
        } else if !report.closed {
            let file = vfs.open_write(&path).map_err(|error| Error::io("open", &path, error))?;
            let len = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
            if len > report.length {
                file.set_len(report.length).map_err(|error| Error::io("cut", &path, error))?;
            }
        }
    }
    if removed { directory::sync(vfs, directory) } else { Ok(()) }
}

/// Whether a segment was never used: it holds zeros.
fn is_spare(vfs: &dyn Vfs, path: &Path) -> Result<bool> {
    let Some(mut reader) = segment_list::open_reader(vfs, path, None)? else { return Ok(false) };
    Ok(damage::scan_tail(&mut reader, 0, false)?.nonzero_end == 0)
}

/// Writes records to the places in their segments where they belong.
struct InPlace<'s> {
    site: &'s Site,
    /// Those that were read, oldest first.
    segments: Vec<SegmentHeader>,
    /// What is before is durable.
    from: ResumePoint,
    file: Option<(u64, PathBuf, Arc<dyn VfsFile>)>,
    chunk: Vec<u8>,
    /// Where the chunk belongs in the file.
    offset: u64,
}

impl InPlace<'_> {
    fn rewrite(mut self, mut tail: WalReader) -> Result<()> {
        let (mut chain, mut end) = (self.from.checksum, self.from.position);
        let changed = |path: &Path| Error::corruption(path, 0, "the log changed while it was read");
        while let Some((record, located)) = tail.next_located()? {
            let started = self.segments.iter().rfind(|header| header.start <= record.start.0);
            let header = *started.ok_or_else(|| changed(record.path))?;
            if self.file.as_ref().is_none_or(|(number, ..)| *number != header.number) {
                self.enter(&header)?;
            }
            if header.start == record.start.0 {
                chain = header.seed;
            }
            let offset = record.start.0 - header.start + segment::HEADER_BYTES as u64;
            if self.chunk.is_empty() {
                self.offset = offset;
            }
            let synced = record.synced.0;
            let length = record::payload_length(record.payload, record.start.0)?;
            let place = RecordHeader {
                length,
                position: record.start.0,
                kind: RecordType::Data,
                tag: record.tag,
                synced,
            };
            chain = record::encode(&mut self.chunk, &place, record.payload, chain, header.record_seed);
            if chain != located.checksum || record.start.0 != end {
                return Err(changed(record.path));
            }
            end = record.end.0;
            if self.chunk.len() >= CHUNK_BYTES {
                self.write_chunk()?;
            }
        }
        self.leave()?;
        directory::sync(&*self.site.vfs, &self.site.directory)
    }

    /// Goes on in another segment. The one before is durable then: no record is without its predecessors.
    fn enter(&mut self, header: &SegmentHeader) -> Result<()> {
        self.leave()?;
        let path = LogFile::Segment(header.number).path(&self.site.directory);
        let file = self.site.vfs.open_write(&path).map_err(|error| Error::io("open", &path, error))?;
        if header.start >= self.from.position {
            // It becomes durable with the segment's first records.
            file.write_at(&header.encode(), 0).map_err(|error| Error::io("write to", &path, error))?;
        }
        self.file = Some((header.number, path, file));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.write_chunk()?;
        match self.file.take() {
            Some((_, path, file)) => file.sync_data().map_err(|error| Error::io("sync", &path, error)),
            None => Ok(()),
        }
    }

    fn write_chunk(&mut self) -> Result<()> {
        if let Some((_, path, file)) = &self.file {
            file.write_at(&self.chunk, self.offset).map_err(|error| Error::io("write to", path, error))?;
        }
        self.offset += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }
}
