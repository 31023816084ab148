//! What it means that the log does not go on: its end, a torn tail, or damage.

use std::path::{Path, PathBuf};

use lsm_core::{Error, Result};

use super::WalReader;
use crate::files::directory::LogFile;
use crate::files::window_file;
use crate::format::record::{self, Boundary};
use crate::format::segment;
use crate::read::damage::{self, TailScan};
use crate::read::findings::TailFindings;
use crate::read::segment_list;
use crate::report::{Dropped, RecoveryMode};

impl WalReader {
    /// Decides what it means that no sound record is where the next one should begin.
    pub(super) fn end_of_log(&mut self) -> Result<()> {
        let position = self.next.position;
        let mut findings = TailFindings { claimed: self.claimed, corrupt: None, dropped: Vec::new() };
        self.examine_here(&mut findings)?;
        self.examine_later_segments(&mut findings)?;
        if findings.corrupt.is_none() && findings.claimed > position {
            let detail = format!("everything up to position {} was synced", findings.claimed);
            findings.corrupt = Some((self.here(), detail));
        }
        self.claimed = self.claimed.max(findings.claimed);
        if findings.corrupt.is_none() {
            self.examine_window(&mut findings)?;
        }
        if self.mode == RecoveryMode::Salvage {
            return self.salvage(findings);
        }
        let error = |place: &(PathBuf, u64), why: &str| {
            Error::corruption(&place.0, place.1, format!("no sound record at position {position}: {why}"))
        };
        if let Some((place, why)) = &findings.corrupt {
            return Err(error(place, why));
        }
        if self.mode == RecoveryMode::Strict
            && let Some(Dropped { path, offset, reason, .. }) = findings.dropped.first()
        {
            return Err(error(&(path.clone(), *offset), reason));
        }
        for dropped in findings.dropped {
            self.report.drop_bytes(dropped);
        }
        self.finished = true;
        self.check_end()
    }

    /// Looks at the segment and window in which a record should stand.
    fn examine_here(&mut self, findings: &mut TailFindings) -> Result<()> {
        if self.reader.is_none() {
            return self.examine_orphaned_windows(findings);
        }
        let Boundary { position, checksum } = self.next;
        self.open_windows()?;
        if let Some(reader) = &mut self.reader {
            if let Some(byte) = damage::flipped_byte(reader, position, checksum)? {
                findings.flipped(reader, byte);
            }
            if let Some(offset) = reader.offset_of(position) {
                let seen = damage::scan_tail(reader, offset, true)?;
                findings.claim(seen.claim);
                findings.dropped(reader, offset, seen.nonzero_end, "not written completely");
            }
        }
        for reader in &mut self.windows {
            if let Some(byte) = damage::flipped_byte(reader, position, checksum)? {
                findings.flipped(reader, byte);
            }
            let offset = reader.offset_of(position).unwrap_or(reader.first_offset());
            let seen = damage::scan_tail(reader, offset, true)?;
            findings.claim(seen.claim);
            // Bytes of earlier generations are no loss, records are.
            findings.dropped(reader, offset, seen.sound_end, "not connected to the log before it");
        }
        Ok(())
    }

    /// Looks whether the window is there in which the log ends, unless it was closed or goes on with another.
    fn examine_window(&self, findings: &mut TailFindings) -> Result<()> {
        let Some(segment) = self.list.segments.get(self.segment) else { return Ok(()) };
        let ends_here = self.reader.is_some() && self.list.successor(self.segment).is_none();
        let window = segment.header.map_or(0, |header| header.window);
        if window == 0 || !ends_here || self.clean.is_some() {
            return Ok(());
        }
        if let Some(loss) = window_file::find_loss(&*self.vfs, &self.directory, window, &segment.path)? {
            findings.corrupt = Some(((loss.path.clone(), loss.offset), loss.reason.clone()));
            findings.dropped.push(loss);
        }
        Ok(())
    }

    /// Looks for records in windows that no segment speaks for. A log's first segment is durable before the window
    /// takes a record, and is removed only when a later one is: no power cut leaves the window alone.
    fn examine_orphaned_windows(&self, findings: &mut TailFindings) -> Result<()> {
        for &file in &self.list.files {
            let LogFile::Window(number) = file else { continue };
            for mut reader in window_file::read(&*self.vfs, &self.directory, number, None)? {
                let offset = reader.first_offset();
                let seen = damage::scan_tail(&mut reader, offset, true)?;
                let newest = reader.position_of(seen.sound_end.saturating_sub(record::HEADER_BYTES as u64));
                if seen.sound_end == 0 || newest.is_none_or(|newest| newest < self.from.0) {
                    continue;
                }
                let segment = self.list.segments.iter().find(|listed| listed.number >= number);
                let path = segment.map_or_else(
                    || LogFile::Segment(number).path(&self.directory),
                    |listed| listed.path.clone(),
                );
                let detail = format!("its header is lost, and window {number} holds records that follow it");
                findings.corrupt.get_or_insert(((path, 0), detail));
            }
        }
        Ok(())
    }

    /// Looks at segments that should come after the one that is being read.
    fn examine_later_segments(&mut self, findings: &mut TailFindings) -> Result<()> {
        let later = if self.reader.is_some() { self.segment + 1 } else { 0 };
        for index in later..self.list.segments.len() {
            let Some(listed) = self.list.segments.get(index) else { break };
            let first_offset = segment::HEADER_BYTES as u64;
            let Some(header) = listed.header else {
                self.examine_headless(&listed.path, findings)?;
                continue;
            };
            if !self.list.same_log(index, self.segment) {
                continue;
            }
            let Some(mut reader) = segment_list::open_reader(&*self.vfs, &listed.path, Some(&header))? else {
                continue;
            };
            findings.claim(Some((header.synced, 0)));
            let seen = damage::scan_tail(&mut reader, first_offset, true)?;
            findings.claim(seen.claim);
            findings.dropped(&reader, first_offset, seen.nonzero_end, "not connected to the log before it");
        }
        Ok(())
    }

    /// Looks at a segment whose header is not there.
    fn examine_headless(&self, path: &Path, findings: &mut TailFindings) -> Result<()> {
        let Some(mut reader) = segment_list::open_reader(&*self.vfs, path, None)? else { return Ok(()) };
        let first_offset = reader.first_offset();
        let named = self.list.record_seeds(&*self.vfs, &self.directory);
        let is_alone = named.is_empty();
        let mut seeds: Vec<Option<u32>> = named.into_iter().map(Some).collect();
        // Last of all what the first record seems to have, or none.
        seeds.push(reader.guess_seed()?);
        let (mut seen, mut why) = (TailScan::default(), None);
        for seed in seeds {
            reader.set_record_seed(seed);
            seen = damage::scan_tail(&mut reader, first_offset, false)?;
            if let Some((synced, offset)) = seen.claim {
                why = Some(format!(
                    "the record at offset {offset} says that up to position {synced} it was synced"
                ));
            }
            // A spare, which may be long.
            if seen.nonzero_end == 0 {
                break;
            }
        }
        if is_alone && seen.nonzero_end > 0 {
            // A log's first header is durable before its first record.
            why.get_or_insert_with(|| "it is not empty, and no header of the log is left".to_owned());
        }
        if let Some(why) = why {
            findings.corrupt.get_or_insert(((path.to_owned(), 0), why));
        }
        findings.dropped(&reader, 0, seen.nonzero_end, "its header was lost before it was synced");
        Ok(())
    }

    fn here(&self) -> (PathBuf, u64) {
        if let Some(reader) = &self.reader {
            return (reader.path().to_owned(), reader.offset_of(self.next.position).unwrap_or(0));
        }
        let first = self.list.segments.first();
        (first.map_or(&self.directory, |listed| &listed.path).clone(), 0)
    }

    /// Goes on behind the damage, if anything sound stands there.
    fn salvage(&mut self, findings: TailFindings) -> Result<()> {
        let position = self.next.position;
        self.trace.first_weak.get_or_insert(position);
        let reason = findings.corrupt.map_or_else(|| "a torn record".to_owned(), |(_, why)| why);
        let (path, offset) = self.here();
        let mut resume = None;
        for reader in self.reader.iter_mut().chain(&mut self.windows) {
            let Some(search) = reader.offset_of(position + 8) else { continue };
            if let Some((next, found)) = damage::next_sound(reader, search)? {
                let sound = Boundary { position: found.header.position, checksum: found.chain_before };
                let bytes = next.saturating_sub(search - 8);
                resume = Some((
                    sound,
                    Dropped {
                        path: reader.path().to_owned(),
                        offset: search - 8,
                        bytes,
                        reason: reason.clone(),
                    },
                ));
                break;
            }
        }
        if let Some((next, dropped)) = resume {
            self.report.drop_bytes(dropped);
            self.next = next;
            return Ok(());
        }
        let later = if self.reader.is_some() { self.segment + 1 } else { 0 };
        let next = self.list.successor(self.segment).or_else(|| {
            let mut indexes = later..self.list.segments.len();
            indexes
                .find(|&index| self.list.header(index).is_some() && self.list.same_log(index, self.segment))
        });
        if let Some(next) = next
            && self.list.header(next).is_some_and(|header| header.start >= position)
        {
            let bytes = self.reader.as_ref().map_or(0, |reader| reader.len().saturating_sub(offset));
            self.report.drop_bytes(Dropped { path, offset, bytes, reason });
            return self.enter(next);
        }
        for dropped in findings.dropped {
            self.report.drop_bytes(dropped);
        }
        self.finished = true;
        Ok(())
    }

    /// Compares the end with where the log was closed.
    pub(super) fn check_end(&self) -> Result<()> {
        let Some(clean) = self.clean.filter(|_| self.mode != RecoveryMode::Salvage) else { return Ok(()) };
        let Boundary { position, checksum } = self.next;
        if position != clean.end.0 || checksum != clean.checksum {
            let (path, offset) = self.here();
            let detail = format!(
                "the log ends at position {position} with checksum {checksum:016x}, but was closed at {} with {:016x}",
                clean.end, clean.checksum
            );
            return Err(Error::corruption(&path, offset, detail));
        }
        Ok(())
    }
}
