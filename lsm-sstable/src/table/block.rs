use lsm_core::Entry;

use crate::block::Shape;

/// A data block of a table on its way into another one, as stored and decoded.
///
/// Its entries are puts with sequence number 0, each of another key.
pub struct TableBlock<'a> {
    /// Name of the compression that the table was written with.
    pub(super) compression: &'a str,
    /// The block as the file has it.
    pub(super) stored: &'a [u8],
    pub(super) frame: &'a [u8],
    pub(super) shape: Shape,
}

impl std::fmt::Debug for TableBlock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, last) = (self.first_key().escape_ascii(), self.last_key().escape_ascii());
        write!(f, "{} entries from \"{first}\" to \"{last}\"", self.rows())
    }
}

impl<'a> TableBlock<'a> {
    /// The entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let (frame, shape) = (self.frame, self.shape);
        let mut next = (shape.rows() > 0).then(|| shape.row(frame, 0));
        std::iter::from_fn(move || {
            let row = next?;
            next = (row.index + 1 < shape.rows()).then(|| shape.row_after(frame, &row));
            row.entry(frame)
        })
    }

    /// Key of the first entry.
    pub fn first_key(&self) -> &'a [u8] {
        self.shape.row(self.frame, 0).key(self.frame)
    }

    /// Key of the last entry.
    pub fn last_key(&self) -> &'a [u8] {
        self.shape.row(self.frame, self.shape.rows() - 1).key(self.frame)
    }

    pub(super) fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// Bytes of its stream before compression.
    pub(super) fn raw_bytes(&self) -> usize {
        self.shape.raw_bytes(self.frame)
    }

    /// Bytes that it takes in the file.
    pub fn stored_bytes(&self) -> usize {
        self.stored.len()
    }

    /// What its checksum covers: it has no say in where the block stands, or in which table.
    pub(super) fn covered(&self) -> &'a [u8] {
        &self.stored[size_of::<u32>()..]
    }
}
