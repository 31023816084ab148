//! Going from one segment to the next, and the spare that is prepared for it.

use std::path::PathBuf;

use lsm_core::Result;

use super::{Live, Writer};
use crate::files::segment_file::{CLOSE_BYTES, Segment, Spare};
use crate::format::segment;
use crate::log::LogChange;
use crate::write::origin::Origin;
use crate::write::site::{SMALL_SEGMENT_BYTES, Site};
use crate::write::window_writer::WindowWriter;

impl Writer {
    /// Goes on in a new segment; everything is in this one.
    pub(super) fn rotate(&mut self, next_bytes: u64) -> Result<()> {
        debug_assert_eq!(self.written.position, self.end.position);
        self.next_segment(next_bytes)
    }

    /// Goes on in a new segment, unless this one has no records, and overwrites those in the window. Everything was
    /// synced. Returns where the segment begins, and the path of the window.
    pub(crate) fn begin_segment(&mut self) -> Result<(u64, Option<PathBuf>)> {
        self.check()?;
        self.flush(0)?;
        if self.segment.start < self.end.position {
            self.rotate(0)?;
        }
        let window = self.window.as_mut().map(|window| {
            window.wipe(self.end.position);
            window.path().to_owned()
        });
        Ok((self.end.position, window))
    }

    /// Leaves a segment that could not be written for a new one, which begins with what is missing.
    pub(super) fn relocate(&mut self, next_bytes: u64) -> Result<()> {
        let missing = self.end.position - self.written.position;
        self.next_segment(missing.saturating_add(next_bytes))?;
        self.sealed = false;
        Ok(())
    }

    fn next_segment(&mut self, bytes: u64) -> Result<()> {
        let needed = (segment::HEADER_BYTES as u64).saturating_add(bytes).saturating_add(CLOSE_BYTES);
        let spare = self.take_spare(needed)?;
        if self.window.is_none() && self.written.position == self.end.position {
            // There was no room for one when the log began.
            let window =
                WindowWriter::create(&self.site, spare.number, self.end.position, self.segment.record_seed);
            self.window = window.unwrap_or_default();
        }
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
        self.tell(LogChange::Begun(&self.segment.path));
    }

    /// A spare of the size that is due, or, on a disk that has no room for that, of `needed` bytes at least.
    fn take_spare(&mut self, needed: u64) -> Result<Spare> {
        let due = needed.max(self.site.segment_bytes_after(self.segment.capacity));
        let small = needed.max(SMALL_SEGMENT_BYTES).min(due);
        if let Some(mut spare) = self.spare.take() {
            let allocated = spare.allocate(due);
            let full = allocated.as_ref().is_err_and(lsm_core::Error::is_disk_full);
            if let Err(error) = if full { spare.allocate(small) } else { allocated } {
                self.spare = Some(spare);
                return Err(error);
            }
            return Ok(spare);
        }
        let number = self.take_number();
        let Site { vfs, directory, .. } = &self.site;
        match Spare::prepare(&**vfs, directory, number, due) {
            Err(error) if error.is_disk_full() => Spare::prepare(&**vfs, directory, number, small),
            prepared => prepared,
        }
    }

    pub(super) fn take_number(&mut self) -> u64 {
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
}
