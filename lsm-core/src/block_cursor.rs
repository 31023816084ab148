//! Cursors that can hand over a whole block of entries, which a merge passes on without comparing each.

use crate::cursor::Cursor;

/// Entries that a source keeps together; see [`BlockCursor::block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The key of the last of them.
    pub last_key: &'a [u8],
    /// How many there are.
    pub entries: u64,
}

/// A cursor over a source that keeps its entries in blocks, so that a merge can copy a block as it is instead of taking
/// it apart.
///
/// ```
/// # use lsm_core::{Block, BlockCursor, Cursor, Entry, Error, MergingCursor, SequenceNumber, ValueKind};
/// # struct Blocks(&'static [&'static [&'static [u8]]], usize, usize);
/// # impl Cursor for Blocks {
/// #     fn first(&mut self) { (self.1, self.2) = (0, 0); }
/// #     fn last(&mut self) { unimplemented!() }
/// #     fn seek(&mut self, _: &[u8], _: SequenceNumber) { unimplemented!() }
/// #     fn seek_for_prev(&mut self, _: &[u8], _: SequenceNumber) { unimplemented!() }
/// #     fn next(&mut self) {
/// #         self.2 += 1;
/// #         if self.0.get(self.1).is_some_and(|block| self.2 == block.len()) { (self.1, self.2) = (self.1 + 1, 0); }
/// #     }
/// #     fn prev(&mut self) { unimplemented!() }
/// #     fn entry(&self) -> Option<Entry<'_>> {
/// #         let key = self.0.get(self.1)?.get(self.2)?;
/// #         Some(Entry { key, sequence: 0, kind: ValueKind::Put, value: b"" })
/// #     }
/// #     fn error(&self) -> Option<&Error> { None }
/// # }
/// # impl BlockCursor for Blocks {
/// #     fn block(&self) -> Option<Block<'_>> {
/// #         let block = self.0.get(self.1).filter(|_| self.2 == 0)?;
/// #         Some(Block { last_key: block.last()?, entries: block.len() as u64 })
/// #     }
/// #     fn skip_block(&mut self) -> u64 { let bytes = self.0[self.1].concat().len(); self.1 += 1; bytes as u64 }
/// # }
/// // Each source has two blocks; one of them has a foreign key in its middle.
/// let one = Blocks(&[&[b"a", b"c"], &[b"f", b"g"]], 9, 0);
/// let two = Blocks(&[&[b"b"], &[b"h", b"i"]], 9, 0);
/// let mut merged = MergingCursor::new(vec![one, two]);
/// merged.first();
/// let mut seen = Vec::new();
/// while let Some(entry) = merged.entry() {
///     if let Some(block) = merged.block() {
///         seen.push(format!("to {}", block.last_key.escape_ascii()));
///         merged.skip_block();
///     } else {
///         seen.push(entry.key.escape_ascii().to_string());
///         merged.next();
///     }
/// }
/// assert_eq!(seen, ["a", "to b", "c", "to g", "to i"]);
/// ```
pub trait BlockCursor: Cursor {
    /// The block that begins with the entry here, if the cursor would step through all of it, and nothing else in
    /// between, and its entries are puts with sequence number 0, each of another key. `None` is always right.
    fn block(&self) -> Option<Block<'_>>;

    /// Moves to the entry after the [`block`](BlockCursor::block) here; without one, does nothing. Returns the bytes of
    /// keys and values that were passed.
    fn skip_block(&mut self) -> u64;
}
