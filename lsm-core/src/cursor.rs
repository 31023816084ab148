use crate::error::Error;
use crate::key::{Entry, SequenceNumber};

/// A position in a sorted sequence of entries.
///
/// Memtables, blocks, tables, runs and merges are all read through it: other engines call it an iterator.
///
/// # Contract
///
/// - Entries come in the order of internal keys: user key ascending, sequence number descending
///   ([`key::compare`](crate::key::compare)). A source holds no two entries with equal internal keys.
/// - A new cursor is not positioned: [`entry`](Cursor::entry) is `None` until one of the four positioning calls
///   (`first`, `last`, `seek`, `seek_for_prev`).
/// - A cursor that ran off either end, or was never positioned, stays as it is: `next` and `prev` do nothing then.
/// - After a failure `entry` is `None` and [`error`](Cursor::error) says why. The error stays until the next
///   positioning call. Whoever sees `None` must ask `error` before believing that the data ends there.
/// - `entry` is cheap and may be called any number of times; what it returns is borrowed until the cursor moves.
/// - A cursor reads a fixed state of its source; writes that come later may or may not appear, in order, and
///   never tear an entry.
/// - Dropping a cursor releases what it pins. Cursors are not `Sync`: one thread moves one cursor.
pub trait Cursor {
    /// Moves to the first entry.
    fn first(&mut self);

    /// Moves to the last entry.
    fn last(&mut self);

    /// Moves to the first entry at or after the internal key `(key, sequence)`.
    ///
    /// With a snapshot's sequence number this finds the newest version of `key` that the snapshot sees, or what
    /// follows; with [`SEQUENCE_MAX`](crate::SEQUENCE_MAX), the newest version of all.
    fn seek(&mut self, key: &[u8], sequence: SequenceNumber);

    /// Moves to the last entry at or before the internal key `(key, sequence)`.
    ///
    /// With 0 this finds the oldest version of `key`, or what precedes; with
    /// [`SEQUENCE_MAX`](crate::SEQUENCE_MAX), the last entry of all smaller keys.
    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber);

    /// Moves to the next entry.
    fn next(&mut self);

    /// Moves to the previous entry.
    fn prev(&mut self);

    /// The entry here, or `None` past either end and after a failure.
    fn entry(&self) -> Option<Entry<'_>>;

    /// Why the cursor is not positioned, if it failed.
    fn error(&self) -> Option<&Error>;
}

impl<C: Cursor + ?Sized> Cursor for Box<C> {
    fn first(&mut self) {
        (**self).first();
    }

    fn last(&mut self) {
        (**self).last();
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        (**self).seek(key, sequence);
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        (**self).seek_for_prev(key, sequence);
    }

    fn next(&mut self) {
        (**self).next();
    }

    fn prev(&mut self) {
        (**self).prev();
    }

    fn entry(&self) -> Option<Entry<'_>> {
        (**self).entry()
    }

    fn error(&self) -> Option<&Error> {
        (**self).error()
    }
}
