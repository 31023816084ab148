//! The bytes that the log ought to have at a position.

use std::sync::Arc;

use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Error, Result};

use super::accepted_log::{AcceptedLog, AcceptedSegment, overlap};

/// Reads the log in its segments, anywhere.
pub(super) struct LogBytes<'a> {
    vfs: &'a dyn Vfs,
    accepted: &'a AcceptedLog,
    open: Option<(u64, Arc<dyn VfsFile>)>,
}

impl<'a> LogBytes<'a> {
    pub(super) fn new(vfs: &'a dyn Vfs, accepted: &'a AcceptedLog) -> Self {
        Self { vfs, accepted, open: None }
    }

    /// Reads from a position on. `known` says for each byte whether it stands in a segment and was accepted there.
    pub(super) fn read(&mut self, position: u64, bytes: &mut [u8], known: &mut [bool]) -> Result<()> {
        let accepted = self.accepted;
        let wanted = position..position.saturating_add(bytes.len() as u64);
        for part in &accepted.parts {
            let there = overlap(&wanted, &(part.header.start..part.end));
            if there.is_empty() {
                continue;
            }
            let within = (there.start - position) as usize..(there.end - position) as usize;
            let (Some(bytes), Some(known)) = (bytes.get_mut(within.clone()), known.get_mut(within)) else {
                continue;
            };
            let count = self.fill(part, bytes, part.offset_of(there.start))?;
            known[..count].fill(true);
        }
        let first = accepted.taken.partition_point(|taken| taken.positions.end <= wanted.start);
        for taken in accepted.taken.iter().skip(first).take_while(|taken| taken.positions.start < wanted.end)
        {
            let there = overlap(&wanted, &taken.positions);
            if let Some(known) =
                known.get_mut((there.start - position) as usize..(there.end - position) as usize)
            {
                known.fill(false);
            }
        }
        Ok(())
    }

    /// Reads what a segment has; returns how much that is.
    fn fill(&mut self, part: &AcceptedSegment, bytes: &mut [u8], offset: u64) -> Result<usize> {
        let number = part.header.number;
        let file = match &self.open {
            Some((open, file)) if *open == number => Arc::clone(file),
            _ => {
                let opened = self.vfs.open_read(&part.path);
                opened.map_err(|error| Error::io("open", &part.path, error))?
            }
        };
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &part.path, error)),
            }
        }
        self.open = Some((number, file));
        Ok(filled)
    }
}
