use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lsm_core::coding::{Decoder, put_varint};
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{BlobPointer, Entry, SEQUENCE_MAX, SequenceNumber, Slice};

/// Identity of a table: 128 random bits, drawn when it is written and never used again.
///
/// The id is in the file and in every checksum of it, so it survives links and copies, unlike a file number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u128);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a list of tables (a manifest) keeps about each one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableMeta {
    /// Identity.
    pub id: TableId,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// CRC-64/NVME of the file up to its footer. The footer holds it, under a checksum of its own, so the pair
    /// covers the whole file.
    pub checksum: u64,
    /// A user key at or below everything in the table, range tombstones included.
    pub smallest: Slice,
    /// A user key at or above everything in the table; the (exclusive) ends of range tombstones are included.
    pub largest: Slice,
    /// Number of entries, point tombstones included, range tombstones not.
    pub entries: u64,
    /// Number of entries that delete one key.
    pub tombstones: u64,
    /// Number of range tombstones as stored: cut into fragments that do not overlap.
    pub range_tombstones: u64,
    /// Lowest sequence number of entries and range tombstones.
    pub smallest_sequence: SequenceNumber,
    /// Highest sequence number of entries and range tombstones.
    pub largest_sequence: SequenceNumber,
    /// Sum of the lengths of all user keys.
    pub raw_key_bytes: u64,
    /// Sum of the lengths of all values.
    pub raw_value_bytes: u64,
    /// The number that everything in the table has, although the file says 0: that of the moment at which a table from
    /// outside was taken in. 0 if the numbers in the file count. The file does not know it; a manifest does.
    pub global_sequence: SequenceNumber,
    /// The blobs that its pointers point into, ascending by their numbers.
    pub blobs: Arc<[BlobRef]>,
}

/// What a table holds of a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobRef {
    /// Number of the blob; see [`BlobPointer::blob`].
    pub blob: u64,
    /// Number of pointers to it.
    pub values: u64,
    /// Sum of the lengths of their values.
    pub bytes: u64,
}

impl BlobRef {
    /// Encodes a list for a manifest:
    ///
    /// ```text
    /// blobs := (blob:varint values:varint bytes:varint)*      blobs ascend
    /// ```
    pub fn encode_all(blobs: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for blob in blobs {
            for number in [blob.blob, blob.values, blob.bytes] {
                put_varint(&mut out, number);
            }
        }
        out
    }

    /// Decodes what [`encode_all`](Self::encode_all) wrote; `None` if it is malformed.
    pub fn decode_all(encoded: &[u8]) -> Option<Vec<Self>> {
        let mut rest = Decoder::new(encoded);
        let mut blobs: Vec<Self> = Vec::new();
        while !rest.is_empty() {
            let blob = Self { blob: rest.varint()?, values: rest.varint()?, bytes: rest.varint()? };
            let ascends = blobs.last().is_none_or(|last| last.blob < blob.blob);
            if !ascends || blob.values == 0 || blob.bytes < blob.values || i64::try_from(blob.bytes).is_err()
            {
                return None;
            }
            blobs.push(blob);
        }
        Some(blobs)
    }
}

/// Counts the blobs that the entries of a table point into.
#[derive(Default)]
pub(crate) struct BlobRefs(BTreeMap<u64, (u64, u64)>);

impl BlobRefs {
    #[cold]
    pub(crate) fn count(&mut self, entry: Entry<'_>) {
        let Some(pointer) = BlobPointer::decode(entry.value) else { return };
        let (values, bytes) = self.0.entry(pointer.blob).or_default();
        *values += 1;
        *bytes += pointer.bytes;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        // A node of the map is half full at least.
        self.0.len() * 2 * size_of::<(u64, (u64, u64))>()
    }

    pub(crate) fn finish(self) -> Arc<[BlobRef]> {
        self.0.into_iter().map(|(blob, (values, bytes))| BlobRef { blob, values, bytes }).collect()
    }
}

impl TableMeta {
    /// Adds `global_sequence` to the numbers of everything in a table, which are 0. Blocks get it as they are decoded.
    pub(crate) fn renumber(
        &mut self,
        range_tombstones: FragmentedRangeTombstones,
        global_sequence: SequenceNumber,
    ) -> FragmentedRangeTombstones {
        if global_sequence == 0 {
            return range_tombstones;
        }
        self.global_sequence = global_sequence;
        if self.entries > 0 || !range_tombstones.is_empty() {
            self.smallest_sequence = (self.smallest_sequence + global_sequence).min(SEQUENCE_MAX);
            self.largest_sequence = (self.largest_sequence + global_sequence).min(SEQUENCE_MAX);
        }
        range_tombstones.later_by(global_sequence)
    }

    /// Widens the bounds of the entries to those of the range tombstones, and settles what an empty table has.
    pub(crate) fn widen(&mut self, range_tombstones: &FragmentedRangeTombstones) {
        let has_entries = self.entries > 0;
        if let Some((start, end)) = range_tombstones.bounds() {
            if !has_entries || *start < *self.smallest {
                self.smallest = Slice::copy_from(start);
            }
            if !has_entries || *end > *self.largest {
                self.largest = Slice::copy_from(end);
            }
        } else if !has_entries {
            self.smallest_sequence = 0;
        }
    }
}
