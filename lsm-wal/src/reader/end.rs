//! What it means that the log does not go on: its end, a torn tail, or damage.

use std::path::{Path, PathBuf};

use lsm_core::{Error, Result};

use super::{Cursor, WalReader};
use crate::chain;
use crate::damage::{self, Aftermath};
use crate::directory::LogFile;
use crate::record;
use crate::report::Dropped;
use crate::report::RecoveryMode;
use crate::segment;
use crate::verdict::Verdict;
use crate::window;

impl WalReader {
    /// Decides what it means that no sound record stands at the cursor.
    pub(super) fn end_of_log(&mut self) -> Result<()> {
        let position = self.cursor.position;
        let mut verdict = Verdict { claimed: self.claimed, corrupt: None, dropped: Vec::new() };
        self.examine_here(&mut verdict)?;
        self.examine_later_segments(&mut verdict)?;
        if verdict.corrupt.is_none() && verdict.claimed > position {
            let detail = format!("everything up to position {} was synced", verdict.claimed);
            verdict.corrupt = Some((self.here(), detail));
        }
        self.claimed = self.claimed.max(verdict.claimed);
        if verdict.corrupt.is_none() {
            self.examine_window(&mut verdict)?;
        }
        if self.mode == RecoveryMode::Salvage {
            return self.salvage(verdict);
        }
        let error = |place: &(PathBuf, u64), why: &str| {
            Error::corruption(&place.0, place.1, format!("no sound record at position {position}: {why}"))
        };
        if let Some((place, why)) = &verdict.corrupt {
            return Err(error(place, why));
        }
        if self.mode == RecoveryMode::Strict
            && let Some(Dropped { path, offset, reason, .. }) = verdict.dropped.first()
        {
            return Err(error(&(path.clone(), *offset), reason));
        }
        for dropped in verdict.dropped {
            self.report.drop_bytes(dropped);
        }
        self.finished = true;
        self.check_end()
    }

    /// Looks at the segment and window in which a record should stand.
    fn examine_here(&mut self, verdict: &mut Verdict) -> Result<()> {
        if self.source.is_none() {
            return self.examine_orphaned_windows(verdict);
        }
        let Cursor { position, checksum } = self.cursor;
        self.open_windows()?;
        if let Some(source) = &mut self.source {
            if let Some(byte) = damage::flipped_byte(source, position, checksum)? {
                verdict.flipped(source, byte);
            }
            if let Some(offset) = source.offset_of(position) {
                let seen = damage::aftermath(source, offset, true)?;
                verdict.claim(seen.claim);
                verdict.dropped(source, offset, seen.nonzero_end, "not written completely");
            }
        }
        for source in &mut self.windows {
            if let Some(byte) = damage::flipped_byte(source, position, checksum)? {
                verdict.flipped(source, byte);
            }
            let offset = source.offset_of(position).unwrap_or(source.first_offset());
            let seen = damage::aftermath(source, offset, true)?;
            verdict.claim(seen.claim);
            // Bytes of earlier rounds are no loss, records are.
            verdict.dropped(source, offset, seen.sound_end, "not connected to the log before it");
        }
        Ok(())
    }

    /// Looks whether the window is there in which the log ends, unless it was closed or goes on with another.
    fn examine_window(&self, verdict: &mut Verdict) -> Result<()> {
        let Some(segment) = self.chain.segments.get(self.segment) else { return Ok(()) };
        let ends_here = self.source.is_some() && self.chain.successor(self.segment).is_none();
        let window = segment.header.map_or(0, |header| header.window);
        if window == 0 || !ends_here || self.clean.is_some() {
            return Ok(());
        }
        if let Some(loss) = window::find_loss(&*self.vfs, &self.directory, window, &segment.path)? {
            verdict.corrupt = Some(((loss.path.clone(), loss.offset), loss.reason.clone()));
            verdict.dropped.push(loss);
        }
        Ok(())
    }

    /// Looks for records in windows that no segment speaks for. A log's first segment is durable before the window
    /// takes a record, and is removed only when a later one is: no power cut leaves the window alone.
    fn examine_orphaned_windows(&self, verdict: &mut Verdict) -> Result<()> {
        for &file in &self.chain.files {
            let LogFile::Window(number) = file else { continue };
            for mut source in window::read(&*self.vfs, &self.directory, number, None)? {
                let offset = source.first_offset();
                let seen = damage::aftermath(&mut source, offset, true)?;
                let newest = source.position_of(seen.sound_end.saturating_sub(record::HEADER_BYTES as u64));
                if seen.sound_end == 0 || newest.is_none_or(|newest| newest < self.from.0) {
                    continue;
                }
                let segment = self.chain.segments.iter().find(|listed| listed.number >= number);
                let path = segment.map_or_else(
                    || LogFile::Segment(number).path(&self.directory),
                    |listed| listed.path.clone(),
                );
                let detail = format!("its header is lost, and window {number} holds records that follow it");
                verdict.corrupt.get_or_insert(((path, 0), detail));
            }
        }
        Ok(())
    }

    /// Looks at segments that should come after the one that is being read.
    fn examine_later_segments(&mut self, verdict: &mut Verdict) -> Result<()> {
        let later = if self.source.is_some() { self.segment + 1 } else { 0 };
        for index in later..self.chain.segments.len() {
            let Some(listed) = self.chain.segments.get(index) else { break };
            let first_offset = segment::HEADER_BYTES as u64;
            let Some(header) = listed.header else {
                self.examine_headless(&listed.path, verdict)?;
                continue;
            };
            if !self.chain.same_log(index, self.segment) {
                continue;
            }
            let Some(mut source) = chain::open_source(&*self.vfs, &listed.path, Some(&header))? else {
                continue;
            };
            verdict.claim(Some((header.synced, 0)));
            let seen = damage::aftermath(&mut source, first_offset, true)?;
            verdict.claim(seen.claim);
            verdict.dropped(&source, first_offset, seen.nonzero_end, "not connected to the log before it");
        }
        Ok(())
    }

    /// Looks at a segment whose header is not there.
    fn examine_headless(&self, path: &Path, verdict: &mut Verdict) -> Result<()> {
        let Some(mut source) = chain::open_source(&*self.vfs, path, None)? else { return Ok(()) };
        let first_offset = source.first_offset();
        let named = self.chain.record_seeds(&*self.vfs, &self.directory);
        let is_alone = named.is_empty();
        let mut seeds: Vec<Option<u32>> = named.into_iter().map(Some).collect();
        // Last of all what the first record seems to have, or none.
        seeds.push(source.guess_seed()?);
        let (mut seen, mut why) = (Aftermath::default(), None);
        for seed in seeds {
            source.set_record_seed(seed);
            seen = damage::aftermath(&mut source, first_offset, false)?;
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
            verdict.corrupt.get_or_insert(((path.to_owned(), 0), why));
        }
        verdict.dropped(&source, 0, seen.nonzero_end, "its header was lost before it was synced");
        Ok(())
    }

    fn here(&self) -> (PathBuf, u64) {
        if let Some(source) = &self.source {
            return (source.path().to_owned(), source.offset_of(self.cursor.position).unwrap_or(0));
        }
        let first = self.chain.segments.first();
        (first.map_or(&self.directory, |listed| &listed.path).clone(), 0)
    }

    /// Goes on behind the damage, if anything sound stands there.
    fn salvage(&mut self, verdict: Verdict) -> Result<()> {
        let position = self.cursor.position;
        self.trace.first_weak.get_or_insert(position);
        let reason = verdict.corrupt.map_or_else(|| "a torn record".to_owned(), |(_, why)| why);
        let (path, offset) = self.here();
        let mut resume = None;
        for source in self.source.iter_mut().chain(&mut self.windows) {
            let Some(search) = source.offset_of(position + 8) else { continue };
            if let Some((next, found)) = damage::next_sound(source, search)? {
                let sound = Cursor { position: found.header.position, checksum: found.chain_before };
                let bytes = next.saturating_sub(search - 8);
                resume = Some((
                    sound,
                    Dropped {
                        path: source.path().to_owned(),
                        offset: search - 8,
                        bytes,
                        reason: reason.clone(),
                    },
                ));
                break;
            }
        }
        if let Some((cursor, dropped)) = resume {
            self.report.drop_bytes(dropped);
            self.cursor = cursor;
            return Ok(());
        }
        let later = if self.source.is_some() { self.segment + 1 } else { 0 };
        let next = self.chain.successor(self.segment).or_else(|| {
            let mut indexes = later..self.chain.segments.len();
            indexes
                .find(|&index| self.chain.header(index).is_some() && self.chain.same_log(index, self.segment))
        });
        if let Some(next) = next
            && self.chain.header(next).is_some_and(|header| header.start >= position)
        {
            let bytes = self.source.as_ref().map_or(0, |source| source.len().saturating_sub(offset));
            self.report.drop_bytes(Dropped { path, offset, bytes, reason });
            return self.enter(next);
        }
        for dropped in verdict.dropped {
            self.report.drop_bytes(dropped);
        }
        self.finished = true;
        Ok(())
    }

    /// Compares the end with where the log was closed.
    pub(super) fn check_end(&self) -> Result<()> {
        let Some(clean) = self.clean.filter(|_| self.mode != RecoveryMode::Salvage) else { return Ok(()) };
        let Cursor { position, checksum } = self.cursor;
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
