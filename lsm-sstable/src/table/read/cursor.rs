//! The cursor over the entries of a table.

use std::ops::Range;
use std::sync::Arc;

use lsm_core::frame::Frame as StoredFrame;
use lsm_core::{Block, BlockCursor, Cursor, Entry, Error, Result, SequenceNumber};

use super::block_finder::BlockFinder;
use super::blocks::{self, KEPT_BUFFER_BYTES_MAX};
use crate::block::{Frame, Row, Shape};
use crate::table::block::TableBlock;
use crate::table::handle::Table;
use crate::table::lookup::{Lookup, Pinned};

/// How a cursor is going to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CursorAccess {
    /// Seeks and scans: blocks come from the cache if they are there. Blocks that a seek missed may enter it, those that
    /// stepping missed do not; stepping on reads ahead, more the longer it goes on.
    #[default]
    Cached,
    /// From one end to the other, once: reads [`TableOpen::sequential_read_bytes`](crate::TableOpen::sequential_read_bytes) at a time past the cache.
    Sequential,
}

/// A cursor over the entries of a table, in both directions. It keeps its table open.
///
/// It holds one block: a cached one by count, any other in a buffer of its own, which is reused from block to
/// block, so that scanning allocates nothing.
#[derive(Debug)]
pub struct TableCursor {
    table: Arc<Table>,
    access: CursorAccess,
    finder: BlockFinder,
    /// Number of the block held.
    block: usize,
    held: Held,
    /// The frame, if `held` is `Own`; the front of it.
    own: Vec<u8>,
    shape: Shape,
    /// Where the block stands in what was read ahead, if it is `Own` and still there.
    stored: Range<usize>,
    row: Row,
    is_positioned: bool,
    error: Option<Error>,
    ahead: ReadAhead,
}

#[derive(Debug)]
enum Held {
    Nothing,
    Cached(StoredFrame),
    Own,
}

/// Bytes of the file around the current block.
#[derive(Debug, Default)]
struct ReadAhead {
    buffer: Vec<u8>,
    start: u64,
    end: u64,
    /// How much to read next time.
    bytes: u64,
}

/// Which way a cursor steps, which is where it reads ahead; `Seek` reads one block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    Seek,
    Next,
    Previous,
}

impl TableCursor {
    /// What a cached cursor reads ahead at most.
    const READ_BYTES_MAX: u64 = 256 << 10;

    /// What a cached cursor reads ahead at first.
    const FIRST_READ_BYTES: u64 = 16 << 10;

    pub(super) fn new(table: Arc<Table>, access: CursorAccess) -> Self {
        Self {
            table,
            access,
            finder: BlockFinder::default(),
            block: 0,
            held: Held::Nothing,
            own: Vec::new(),
            shape: Shape::default(),
            stored: 0..0,
            row: Row::default(),
            is_positioned: false,
            error: None,
            ahead: ReadAhead::default(),
        }
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Bytes of memory that the cursor holds: the block it stands in, unless that is a cached one; what it has read
    /// ahead, at most 256 KiB or [`TableOpen::sequential_read_bytes`](crate::TableOpen::sequential_read_bytes),
    /// unless a block is larger; and a page of the index, if that is not in memory. While a block is being read that
    /// is larger than 256 KiB, the cursor holds it twice: as stored, and decoded.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.own.capacity() + self.ahead.buffer.capacity() + self.finder.heap_bytes()
    }

    #[inline]
    fn frame(&self) -> &[u8] {
        match &self.held {
            Held::Own => &self.own,
            Held::Cached(frame) => frame,
            Held::Nothing => &[],
        }
    }

    #[inline]
    fn stand_on(&mut self, row: usize) {
        self.row = self.shape.row(self.frame(), row);
        self.is_positioned = true;
    }

    fn stand_nowhere(&mut self) {
        self.is_positioned = false;
    }

    /// Holds a block of the table; `false` if there is no such block or it cannot be read.
    fn hold(&mut self, block: usize, towards: Towards) -> bool {
        self.is_positioned = false;
        if block >= self.table.block_count() {
            return false;
        }
        if block == self.block && !matches!(self.held, Held::Nothing) {
            return true;
        }
        match self.load(block, towards) {
            Ok(held) => {
                self.held = held;
                self.block = block;
                self.shape = Frame::new(self.frame()).shape();
                true
            }
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    #[cold]
    fn fail(&mut self, error: Error) {
        self.is_positioned = false;
        self.held = Held::Nothing;
        self.error = Some(error);
    }

    /// Holds the block in which a key is to be looked for, and returns its number.
    #[inline]
    fn hold_for(&mut self, key: &[u8], sequence: SequenceNumber) -> Option<usize> {
        self.error = None;
        match self.finder.find(&self.table, key, sequence) {
            Ok(block) => self.hold(block, Towards::Seek).then_some(block),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    fn load(&mut self, block: usize, towards: Towards) -> Result<Held> {
        if self.access == CursorAccess::Cached
            && let Lookup::Pinned(Pinned { cached: Some(cached), .. }) = &self.table.lookup
            && let Some(frame) = cached.get(block)
        {
            return Ok(Held::Cached(frame.to_frame()));
        }
        self.load_from_file(block, towards)
    }

    /// Apart, so that the way through the cache stays short.
    #[inline(never)]
    fn load_from_file(&mut self, block: usize, towards: Towards) -> Result<Held> {
        let range = self.finder.block_range(&self.table, block)?;
        if range.start < self.ahead.start || range.end > self.ahead.end {
            self.stored = 0..0;
            self.ahead.fill(&self.table, &mut self.finder, self.access, block, towards)?;
        }
        let start = (range.start - self.ahead.start) as usize;
        let end = (range.end - self.ahead.start) as usize;
        blocks::give_back(&mut self.own);
        let frame_bytes =
            blocks::decode_block(&self.table, range.start, &self.ahead.buffer[start..end], &mut self.own)?;
        self.stored = start..end;
        // What one huge value takes is not held twice.
        if end - start > KEPT_BUFFER_BYTES_MAX {
            self.ahead.clear();
            self.stored = 0..0;
        }
        if towards == Towards::Seek
            && self.access == CursorAccess::Cached
            && let Lookup::Pinned(Pinned { cached: Some(cached), .. }) = &self.table.lookup
            && let Some(frame) = cached.offer(block, &self.own[..frame_bytes])
        {
            blocks::give_back(&mut self.own);
            return Ok(Held::Cached(frame));
        }
        Ok(Held::Own)
    }

    /// The block whose first entry is here, as [`TableWriter::add_block`](crate::TableWriter::add_block) takes it. Only
    /// blocks as [`BlockCursor::block`] describes them, of up to 256 KiB, and none that came from the cache.
    #[inline]
    pub fn table_block(&self) -> Option<TableBlock<'_>> {
        if self.row.index > 0 || !self.is_positioned || self.stored.is_empty() || !self.shape.is_settled() {
            return None;
        }
        let Held::Own = self.held else { return None };
        Some(TableBlock {
            compression: &self.table.properties().compression,
            stored: self.ahead.buffer.get(self.stored.clone())?,
            frame: &self.own,
            shape: self.shape,
        })
    }

    /// Stands on the first row of a block, if there is such a block.
    fn enter_front(&mut self, block: usize, towards: Towards) {
        if self.hold(block, towards) {
            self.stand_on(0);
        }
    }

    /// Stands on the last row of the block before `block`, if there is one.
    fn enter_back(&mut self, block: usize, towards: Towards) {
        match block.checked_sub(1) {
            Some(before) if self.hold(before, towards) => self.stand_on(self.shape.rows() - 1),
            _ => self.stand_nowhere(),
        }
    }
}

impl ReadAhead {
    /// Reads a block, and, unless this is a seek, as many whole blocks beyond it as fit the window and can be found
    /// without a read.
    fn fill(
        &mut self,
        table: &Table,
        finder: &mut BlockFinder,
        access: CursorAccess,
        block: usize,
        towards: Towards,
    ) -> Result<()> {
        self.bytes = match (access, towards) {
            (CursorAccess::Sequential, _) => table.sequential_read_bytes,
            (CursorAccess::Cached, Towards::Seek) => 0,
            // The first step over a block's end reads a little ahead, the next ones more and more.
            (CursorAccess::Cached, _) => {
                (self.bytes * 4).clamp(TableCursor::FIRST_READ_BYTES, TableCursor::READ_BYTES_MAX)
            }
        };
        let mut range = finder.block_range(table, block)?;
        if self.bytes > 0 {
            let at_hand = finder.at_hand(table, block)?;
            let (mut first, mut last) = (block, block);
            loop {
                let wider = match towards {
                    Towards::Previous if first > at_hand.start => {
                        first -= 1;
                        finder.block_range(table, first)?.start..range.end
                    }
                    Towards::Next | Towards::Seek if last + 1 < at_hand.end => {
                        last += 1;
                        range.start..finder.block_range(table, last)?.end
                    }
                    _ => break,
                };
                if wider.end - wider.start > self.bytes {
                    break;
                }
                range = wider;
            }
        }
        // Until the bytes are there, nothing is.
        (self.start, self.end) = (0, 0);
        if self.buffer.len() > 2 * KEPT_BUFFER_BYTES_MAX {
            self.buffer = Vec::new();
        }
        blocks::read_range(table, range.clone(), &mut self.buffer)?;
        (self.start, self.end) = (range.start, range.end);
        Ok(())
    }

    /// Drops what was read, but remembers how far the reading has come.
    fn clear(&mut self) {
        *self = Self { bytes: self.bytes, ..Self::default() };
    }
}

impl BlockCursor for TableCursor {
    #[inline]
    fn block(&self) -> Option<Block<'_>> {
        let block = self.table_block()?;
        Some(Block { last_key: block.last_key(), entries: block.rows() as u64 })
    }

    fn skip_block(&mut self) -> u64 {
        let Some(block) = self.table_block() else { return 0 };
        let bytes = block.entries().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>();
        self.enter_front(self.block + 1, Towards::Next);
        bytes as u64
    }
}

impl Cursor for TableCursor {
    fn first(&mut self) {
        self.error = None;
        self.enter_front(0, Towards::Seek);
    }

    fn last(&mut self) {
        self.error = None;
        self.enter_back(self.table.block_count(), Towards::Seek);
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        let Some(block) = self.hold_for(key, sequence) else { return };
        let row = Frame::new(self.frame()).lower_bound(key, sequence);
        if row < self.shape.rows() {
            self.stand_on(row);
        } else {
            self.enter_front(block + 1, Towards::Seek);
        }
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        let Some(block) = self.hold_for(key, sequence) else { return };
        let row = Frame::new(self.frame()).lower_bound(key, sequence);
        if row < self.shape.rows() {
            self.stand_on(row);
            if self.row.sequence() == sequence && self.row.key(self.frame()) == key {
                return;
            }
        }
        match row.checked_sub(1) {
            Some(before) => self.stand_on(before),
            None => self.enter_back(block, Towards::Seek),
        }
    }

    #[inline]
    fn next(&mut self) {
        if !self.is_positioned {
            return;
        }
        if self.row.index + 1 < self.shape.rows() {
            self.row = self.shape.row_after(self.frame(), &self.row);
        } else {
            self.enter_front(self.block + 1, Towards::Next);
        }
    }

    #[inline]
    fn prev(&mut self) {
        if !self.is_positioned {
            return;
        }
        match self.row.index.checked_sub(1) {
            Some(before) => self.row = self.shape.row(self.frame(), before),
            None => self.enter_back(self.block, Towards::Previous),
        }
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        if self.is_positioned { self.row.entry(self.frame()) } else { None }
    }

    fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}
