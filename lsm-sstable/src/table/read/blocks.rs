//! How blocks get from the file, or the cache, to whoever searches them.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use lsm_core::frame::{Frame as StoredFrame, PinnedFrame};
use lsm_core::{Result, Slice};

use crate::block::{self, Frame};
use crate::table::handle::Table;
use crate::table::lookup::Pinned;

/// Longest value that is copied out of its block in any case.
const COPIED_BYTES_MAX: usize = 2048;

/// Buffers that grew past this are given back.
pub(in crate::table) const KEPT_BUFFER_BYTES_MAX: usize = 256 << 10;

/// A block in memory for the duration of a call.
pub(in crate::table) enum BorrowedBlock<'a> {
    Cached(PinnedFrame<'a>),
    /// Just entered the cache.
    Admitted(StoredFrame),
    Scratch(&'a [u8]),
}

impl BorrowedBlock<'_> {
    #[inline]
    pub(in crate::table) fn bytes(&self) -> &[u8] {
        match self {
            Self::Cached(frame) => frame,
            Self::Admitted(frame) => frame,
            Self::Scratch(frame) => frame,
        }
    }

    #[inline]
    pub(in crate::table) fn frame(&self) -> Frame<'_> {
        Frame::new(self.bytes())
    }

    /// The bytes in `range` to keep: copied, or pinned if that saves a long copy and wastes little memory.
    #[inline]
    pub(in crate::table) fn slice(&self, range: Range<usize>) -> Slice {
        if range.len() > COPIED_BYTES_MAX && range.len() >= self.bytes().len() / 2 {
            let frame = match self {
                Self::Cached(frame) => Some(frame.to_frame()),
                Self::Admitted(frame) => Some(frame.clone()),
                Self::Scratch(_) => None,
            };
            // A frame of the pool would keep a huge page.
            if let Some(frame) = frame.filter(|frame| !frame.is_pooled()) {
                return Slice::pinned(Arc::new(frame), range);
            }
        }
        Slice::copy_from(&self.bytes()[range])
    }
}

/// Buffers for one read.
#[derive(Default)]
pub(in crate::table) struct Scratch {
    pub(in crate::table) stored: Vec<u8>,
    pub(in crate::table) frame: Vec<u8>,
}

thread_local! {
    /// Blocks that do not enter the cache are decoded here: memory that stays in the processor's cache, which
    /// makes a miss a third cheaper than filling fresh memory.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Calls `read` with a block for a point read, from the cache if it is there; if not, the cache may keep it.
#[inline]
pub(in crate::table) fn with_block<R>(
    table: &Table,
    pinned: &Pinned,
    block: usize,
    read: impl FnOnce(BorrowedBlock<'_>) -> R,
) -> Result<R> {
    if let Some(frame) = pinned.cached.as_ref().and_then(|cached| cached.get(block)) {
        return Ok(read(BorrowedBlock::Cached(frame)));
    }
    with_scratch(|scratch| {
        let range = pinned.index.block_range(block);
        let frame_bytes = read_block(table, range, &mut scratch.stored, &mut scratch.frame)?;
        let frame = &scratch.frame[..frame_bytes];
        if let Some(cached) = &pinned.cached
            && let Some(frame) = cached.offer(block, frame)
        {
            return Ok(read(BorrowedBlock::Admitted(frame)));
        }
        Ok(read(BorrowedBlock::Scratch(frame)))
    })
}

/// Calls `read` with buffers that are used again and again, and gives them back if they grew too large.
pub(in crate::table) fn with_scratch<R>(read: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with(|scratch| {
        // A policy called from `read` could read a table itself; it then gets buffers of its own.
        if let Ok(mut scratch) = scratch.try_borrow_mut() {
            let result = read(&mut scratch);
            give_back(&mut scratch.frame);
            give_back(&mut scratch.stored);
            result
        } else {
            read(&mut Scratch::default())
        }
    })
}

/// Gives back what one huge value made a buffer grow to.
pub(in crate::table) fn give_back(buffer: &mut Vec<u8>) {
    if buffer.len() > KEPT_BUFFER_BYTES_MAX {
        *buffer = Vec::new();
    }
}

/// Reads and decodes the block at `range` of the file into `frame`; `stored` is working space, which a huge block
/// leaves empty. Returns the frame's length.
pub(in crate::table) fn read_block(
    table: &Table,
    range: Range<u64>,
    stored: &mut Vec<u8>,
    frame: &mut Vec<u8>,
) -> Result<usize> {
    let offset = range.start;
    let block = read_range(table, range, stored)?;
    let frame_bytes = decode_block(table, offset, block, frame)?;
    give_back(stored);
    Ok(frame_bytes)
}

/// Decodes a block that stands at `offset`.
pub(in crate::table) fn decode_block(
    table: &Table,
    offset: u64,
    block: &[u8],
    frame: &mut Vec<u8>,
) -> Result<usize> {
    let covered = table.checksum.verify(offset, block).map_err(|detail| table.corruption(offset, detail))?;
    let loaded = block::load(covered, frame).map_err(|detail| table.refused(offset, covered, detail))?;
    if table.meta.global_sequence > 0 {
        block::renumber(&mut frame[..loaded], table.meta.global_sequence);
    }
    Ok(loaded)
}

/// Reads a range of the file to the front of `buffer`, which grows as needed. Returns what was read.
pub(in crate::table) fn read_range<'b>(
    table: &Table,
    range: Range<u64>,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b [u8]> {
    let too_large = || table.corruption(range.start, format!("{range:?} does not fit memory"));
    let bytes = usize::try_from(range.end - range.start).map_err(|_| too_large())?;
    if buffer.len() < bytes {
        buffer.try_reserve_exact(bytes - buffer.len()).map_err(|_| too_large())?;
        buffer.resize(bytes, 0);
    }
    let buffer = &mut buffer[..bytes];
    table.file.read_exact_at(buffer, range.start).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            table.corruption(range.start, format!("file ends before {}", range.end))
        } else {
            table.io("read", error)
        }
    })?;
    Ok(buffer)
}
