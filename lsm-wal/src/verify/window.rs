//! Checks a window: header, slots, and the area that holds records.

use std::ops::Range;
use std::path::Path;

use lsm_core::Result;
use lsm_core::vfs::Vfs;

use super::accepted_log::{AcceptedLog, TakenFromWindow, overlap};
use super::check::{Bits, Check};
use super::generations::{Generations, Piece};
use super::log_bytes::LogBytes;
use super::report::Extent;
use crate::files::directory;
use crate::files::record_reader::{RecordArea, RecordReader};
use crate::files::window_file::WindowFile;
use crate::format::record;
use crate::format::window::{AREA_OFFSET, COVERED_BYTES, HEADER_BYTES, SLOT_BYTES, SLOT_OFFSETS, Slot};
use crate::read::damage::{self, SECTOR_BYTES};

/// A multiple of a sector.
const CHUNK_BYTES: usize = 64 << 10;
const AREA: u64 = AREA_OFFSET as u64;
/// Earlier generations that a sector is compared with when it seems damaged.
const OLDER_GENERATIONS_MAX: usize = 1024;

/// Checks a window of a log that was read, or as much as can be said of it without.
pub(super) fn check(
    vfs: &dyn Vfs,
    check: &mut Check,
    directory: &Path,
    number: u64,
    accepted: Option<&AcceptedLog>,
) -> Result<()> {
    let Some(window) = WindowFile::open(vfs, directory, number)? else { return check_headless(vfs, check) };
    zeros(check, &mut window.area(0))?;
    slots(check, &window, accepted);
    let end = AREA.saturating_add(window.area_bytes);
    if window.len > end {
        check.damaged(end, "the window is longer than its header says");
    } else if window.len < end {
        check.note(format!("{} bytes are missing at its end, as a power cut leaves it", end - window.len));
    }
    let Some(accepted) = accepted else {
        check.file.extent = Extent::Part;
        return Ok(());
    };
    AreaCheck::new(vfs, check, &window, accepted).run()
}

/// A window whose header is not there.
fn check_headless(vfs: &dyn Vfs, check: &mut Check) -> Result<()> {
    let Some(file) = directory::open_if_there(vfs, &check.file.path)? else { return Ok(()) };
    let path = check.file.path.clone();
    let len = file.len().map_err(|error| lsm_core::Error::io("read the length of", &path, error))?;
    let mut reader =
        RecordReader::new(file, path, len, RecordArea { first_offset: AREA, ..RecordArea::default() });
    let header = reader.load(0, HEADER_BYTES)?;
    // Its checksum was written last.
    if header.iter().skip(COVERED_BYTES).all(|&byte| byte == 0) {
        check.note("its header is missing, as a power cut leaves it".into());
        check.file.extent = Extent::Part;
    } else {
        check.damaged(0, "this is no header of a window");
    }
    zeros(check, &mut reader)
}

/// Checks that between header, slots and area nothing is.
fn zeros(check: &mut Check, reader: &mut RecordReader) -> Result<()> {
    let [first, second] = SLOT_OFFSETS;
    let gaps = [HEADER_BYTES..first, first + SLOT_BYTES..second, second + SLOT_BYTES..AREA_OFFSET];
    for gap in gaps {
        let bytes = reader.load(gap.start as u64, gap.len())?;
        if let Some(byte) = bytes.iter().position(|&byte| byte != 0) {
            check.damaged((gap.start + byte) as u64, "nothing is ever written here");
        }
    }
    Ok(())
}

fn slots(check: &mut Check, window: &WindowFile, accepted: Option<&AcceptedLog>) {
    for (slot, offset) in window.slots.into_iter().zip(SLOT_OFFSETS) {
        let offset = offset as u64;
        match slot {
            Slot::Base(_) | Slot::Open(0) => {}
            Slot::Flipped => check.damaged(offset, "one bit of where the window begins was flipped"),
            Slot::Bad => check.damaged(offset, "where the window begins does not pass its check"),
            Slot::Open(base) => {
                let Some(accepted) = accepted else { continue };
                let seen = accepted.open_bases.iter().any(|&(open, seen)| open == base && seen)
                    || accepted.parts.iter().any(|part| part.header.start == base || part.end == base);
                let within = (accepted.start()..=accepted.end).contains(&base);
                // Behind the end it may have begun with a record that a power cut took.
                let possible = base.is_multiple_of(8) && base < record::POSITION_MAX;
                if within && !seen || !possible {
                    check.damaged(offset, "no record of the log begins where this says that the window does");
                } else {
                    check.note("the process ended while it began the window anew".into());
                }
            }
        }
    }
}

struct AreaCheck<'a> {
    check: &'a mut Check,
    window: &'a WindowFile,
    reader: RecordReader,
    log: LogBytes<'a>,
    /// The generations that are known, and whether there were no others.
    generations: Option<&'a Generations>,
    complete: bool,
    /// What the reader took from here.
    taken: Vec<Range<u64>>,
    /// What belongs to no generation that is known, and was not checked by the reader.
    unknown: Vec<Range<u64>>,
    /// Where a difference ended last that reached the end of its sector.
    differs_up_to: u64,
    /// Bytes that differ from what the log says.
    older_bytes: u64,
}

impl<'a> AreaCheck<'a> {
    fn new(
        vfs: &'a dyn Vfs,
        check: &'a mut Check,
        window: &'a WindowFile,
        accepted: &'a AcceptedLog,
    ) -> Self {
        let place = |taken: &TakenFromWindow| {
            let start = taken.offset.saturating_sub(AREA);
            start..start + (taken.positions.end - taken.positions.start)
        };
        let mut taken: Vec<_> = accepted.taken.iter().map(place).collect();
        taken.sort_unstable_by_key(|range| range.start);
        let (generations, complete) = accepted.generations();
        Self {
            check,
            window,
            reader: window.area(0),
            log: LogBytes::new(vfs, accepted),
            generations,
            complete,
            taken,
            unknown: Vec::new(),
            differs_up_to: u64::MAX,
            older_bytes: 0,
        }
    }

    fn run(mut self) -> Result<()> {
        let area_bytes = self.window.area_bytes.min(self.window.len.saturating_sub(AREA)) / 8 * 8;
        let layout = self.layout(usize::MAX);
        let mut stored = vec![0; CHUNK_BYTES];
        let mut expected = vec![0; CHUNK_BYTES];
        let mut known = vec![false; CHUNK_BYTES];
        let mut at = 0;
        while at < area_bytes {
            let bytes = CHUNK_BYTES.min((area_bytes - at) as usize);
            let loaded = self.reader.load(AREA + at, bytes)?;
            if loaded.len() < bytes {
                break;
            }
            stored[..bytes].copy_from_slice(loaded);
            self.expect(&layout, at, &mut expected[..bytes], &mut known[..bytes])?;
            for start in (0..bytes).step_by(SECTOR_BYTES as usize) {
                let sector = start..bytes.min(start + SECTOR_BYTES as usize);
                self.sector(
                    at + start as u64,
                    &stored[sector.clone()],
                    &expected[sector.clone()],
                    &known[sector],
                )?;
            }
            at += bytes as u64;
        }
        let mut unchecked = 0;
        for range in std::mem::take(&mut self.unknown) {
            unchecked += self.stale(AREA + range.start..AREA + range.end, range.end == area_bytes)?;
        }
        if self.older_bytes > 0 {
            let bytes = self.older_bytes;
            self.check.note(format!("{bytes} bytes are older than the log, as a crash leaves them"));
        }
        if unchecked > 0 {
            self.check.note(format!("{unchecked} bytes are of records that the log no longer has"));
        }
        Ok(())
    }

    fn layout(&self, count: usize) -> Vec<Piece> {
        self.generations.map_or(Vec::new(), |generations| generations.layout(count))
    }

    /// What ought to stand from `offset` of the area on, and of which bytes that is known.
    fn expect(&mut self, layout: &[Piece], offset: u64, bytes: &mut [u8], known: &mut [bool]) -> Result<()> {
        known.fill(false);
        let wanted = offset..offset + bytes.len() as u64;
        for piece in layout {
            let there = overlap(&wanted, &piece.area);
            let within = (there.start - offset) as usize..(there.end - offset) as usize;
            if let (Some(bytes), Some(known)) = (bytes.get_mut(within.clone()), known.get_mut(within)) {
                self.log.read(piece.position + (there.start - piece.area.start), bytes, known)?;
            }
        }
        let covered = layout.last().map_or(0, |piece| piece.area.end);
        let untouched = overlap(&wanted, &(covered..u64::MAX));
        if self.complete {
            let within = (untouched.start - offset) as usize..(untouched.end - offset) as usize;
            if let (Some(bytes), Some(known)) = (bytes.get_mut(within.clone()), known.get_mut(within)) {
                bytes.fill(0);
                known.fill(true);
            }
        }
        Ok(())
    }

    /// Compares a sector with what ought to stand there.
    fn sector(&mut self, at: u64, stored: &[u8], expected: &[u8], known: &[bool]) -> Result<()> {
        if stored == expected && known.iter().all(|&known| known) {
            return Ok(());
        }
        let mut differing = Vec::new();
        for word in (0..stored.len()).step_by(8) {
            let place = at + word as u64..at + word as u64 + 8;
            let next = self.taken.partition_point(|taken| taken.end <= place.start);
            if self.taken.get(next).is_some_and(|taken| taken.start <= place.start) {
                continue;
            }
            if !known[word..word + 8].iter().all(|&known| known) {
                match self.unknown.last_mut() {
                    Some(last) if last.end == place.start => last.end = place.end,
                    _ => self.unknown.push(place),
                }
            } else if stored[word..word + 8] != expected[word..word + 8] {
                differing.push(word);
            }
        }
        // A record that the log does not have may reach into this sector with its last words only.
        let goes_on = differing.first() == Some(&0) && self.differs_up_to == at;
        if differing.last().is_some_and(|word| word + 8 == stored.len()) {
            self.differs_up_to = at + stored.len() as u64;
        }
        if let [word] = differing[..]
            && !goes_on
        {
            let difference = |byte: &usize| stored[*byte] ^ expected[*byte];
            let bytes: Vec<usize> = (word..word + 8).filter(|byte| difference(byte) != 0).collect();
            if let [byte] = bytes[..]
                && difference(&byte).is_power_of_two()
                && !self.was_there_before(at + word as u64, &stored[word..])?
            {
                self.check.damaged(AREA + at + byte as u64, "one bit of this byte was flipped");
                return Ok(());
            }
        }
        self.older_bytes += differing.len() as u64 * 8;
        Ok(())
    }

    /// Whether the rest of a sector is as it was at some time before: the disk may have it from then.
    fn was_there_before(&mut self, at: u64, rest: &[u8]) -> Result<bool> {
        if rest.iter().all(|&byte| byte == 0) {
            return Ok(true);
        }
        let mut expected = vec![0; rest.len()];
        let mut known = vec![false; rest.len()];
        for count in (0..self.generations.map_or(0, Generations::len)).rev().take(OLDER_GENERATIONS_MAX) {
            let layout = self.layout(count);
            self.expect(&layout, at, &mut expected, &mut known)?;
            if expected == rest && known.iter().all(|&known| known) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks what generations left whose records the log no longer has, as far as one sound record leads to the next.
    /// Returns how many bytes that leaves open.
    fn stale(&mut self, range: Range<u64>, to_the_end: bool) -> Result<u64> {
        let mut budget = (range.end - range.start).saturating_mul(4);
        let mut unchecked = 0;
        // Where the last sound record ended, and its checksum.
        let mut joint: Option<(u64, u64)> = None;
        let mut bits = Bits::default();
        let mut at = range.start;
        while at + 8 <= range.end {
            if let Some(header) = self.reader.header_at(at)?
                && at + header.record_bytes() <= range.end
                && let Some(rest) = budget.checked_sub(header.record_bytes())
            {
                budget = rest;
                let chained = joint.filter(|&(position, _)| position == header.position);
                let chain = match chained {
                    Some((_, checksum)) => Some(checksum),
                    None => {
                        self.reader.load(at - 8, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
                    }
                };
                let record = self.reader.load(at, header.record_bytes() as usize)?;
                let checksum = record::stored_checksum(record).unwrap_or(0);
                if chain.is_some_and(|chain| record::expected_checksum(record, chain) == checksum) {
                    joint = Some((header.end(), checksum));
                    at += header.record_bytes();
                    bits = Bits::default();
                    continue;
                }
            }
            if let Some((position, checksum)) = joint.take()
                && let Some(base) = position.checked_sub(at - AREA)
                && let Some(byte) = damage::flipped_byte(&mut self.window.area(base), position, checksum)?
            {
                self.check.damaged(byte, "one bit of this byte was flipped");
                return Ok(unchecked);
            }
            let word = self.reader.load(at, 8)?;
            if word.iter().any(|&byte| byte != 0) {
                if bits.last / SECTOR_BYTES != at / SECTOR_BYTES {
                    bits = Bits::default();
                }
                bits.add(word, at);
                unchecked += 8;
            }
            at += 8;
        }
        // The last thing that stands in the area is the end of a record, whose checksum has more bits.
        if to_the_end && bits.count == 1 {
            self.check.damaged(bits.last, "nothing was ever written here");
        }
        Ok(unchecked)
    }
}
