//! The log as the reader accepted it: what `verify` compares the files with.

use std::ops::Range;
use std::path::PathBuf;

use super::generations::Generations;
use crate::files::record_reader::Record;
use crate::files::window_file::WindowFile;
use crate::format::segment::{self, SegmentHeader};
use crate::format::window::Slot;
use crate::read::wal_reader::Located;
use crate::report::RecoveryReport;

/// The log as the reader accepted it.
pub(super) struct AcceptedLog {
    pub(super) parts: Vec<AcceptedSegment>,
    /// What the reader took from the window, by position.
    pub(super) taken: Vec<TakenFromWindow>,
    /// Everything before this was synced.
    pub(super) synced: u64,
    /// Where the log ends. A power cut may have left segments that begin behind it.
    pub(super) end: u64,
    pub(super) window: Option<WindowFile>,
    /// The generations of the window if it was begun with the segment of its number.
    whole: Option<Generations>,
    /// The generations of the window from the older of the two bases on that it names.
    newest: Option<Generations>,
    /// Bases of slots that are being changed, and whether a record begins or ends there.
    pub(super) open_bases: Vec<(u64, bool)>,
}

/// A segment that was read.
pub(super) struct AcceptedSegment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// Position where its records end, and the checksum of the last.
    pub(super) end: u64,
    pub(super) checksum: u64,
    pub(super) records: u64,
}

/// A stretch of the log that its segment does not have.
#[derive(Clone)]
pub(super) struct TakenFromWindow {
    pub(super) positions: Range<u64>,
    /// Where it stands in the window's file.
    pub(super) offset: u64,
}

impl AcceptedSegment {
    pub(super) fn new(path: PathBuf, header: SegmentHeader) -> Self {
        Self { path, header, end: header.start, checksum: header.seed, records: 0 }
    }

    /// The file offset of a position.
    pub(super) fn offset_of(&self, position: u64) -> u64 {
        position - self.header.start + segment::HEADER_BYTES as u64
    }
}

impl AcceptedLog {
    pub(super) fn new(parts: Vec<AcceptedSegment>, window: Option<WindowFile>) -> Self {
        let number = parts.last().map_or(0, |part| part.header.window);
        let begun = parts.iter().find(|part| part.header.number == number).map(|part| part.header.start);
        let bases = window.as_ref().map_or(Vec::new(), WindowFile::bases);
        let area = window.as_ref().map_or(0, |window| window.area_bytes);
        let open_bases = window.iter().flat_map(|window| window.slots).filter_map(|slot| match slot {
            Slot::Open(base) => Some((base, false)),
            _ => None,
        });
        Self {
            taken: Vec::new(),
            synced: 0,
            end: 0,
            open_bases: open_bases.collect(),
            whole: begun.map(|start| Generations::new(area, start)),
            newest: bases.last().map(|&older| Generations::last_two(area, older, bases.first().copied())),
            parts,
            window,
        }
    }

    pub(super) fn add(&mut self, record: &Record<'_>, located: Located) {
        let positions = record.start.0..record.end.0;
        if let Some(part) = self.parts.iter_mut().rev().find(|part| part.header.start <= positions.start) {
            part.end = positions.end;
            part.checksum = located.checksum;
            part.records += 1;
        }
        for (base, seen) in &mut self.open_bases {
            *seen |= *base == positions.start || *base == positions.end;
        }
        for generations in self.whole.iter_mut().chain(&mut self.newest) {
            generations.add(&positions);
        }
        if let Some(offset) = located.window_offset {
            match self.taken.last_mut() {
                Some(last)
                    if last.positions.end == positions.start
                        && last.offset + (positions.start - last.positions.start) == offset =>
                {
                    last.positions.end = positions.end;
                }
                _ => self.taken.push(TakenFromWindow { positions, offset }),
            }
        }
    }

    /// To be called after the last record, with what the reader says of the end.
    pub(super) fn finish(&mut self, report: &RecoveryReport) {
        self.synced = report.synced.0;
        self.end = report.end.0;
        // A window that was begun anew in an old directory starts in the middle of its segment.
        let bases = self.window.as_ref().map_or(Vec::new(), WindowFile::bases);
        if self.whole.as_ref().is_some_and(|whole| !whole.has_bases(&bases)) {
            self.whole = None;
        }
    }

    /// The generations of the window, as far as they are known, and whether those are all there were.
    pub(super) fn generations(&self) -> (Option<&Generations>, bool) {
        (self.whole.as_ref().or(self.newest.as_ref()), self.whole.is_some())
    }

    /// Where reading began.
    pub(super) fn start(&self) -> u64 {
        self.parts.first().map_or(0, |part| part.header.start)
    }
}

/// What two ranges have in common; empty, at the start of one of them, if nothing.
pub(super) fn overlap(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}
