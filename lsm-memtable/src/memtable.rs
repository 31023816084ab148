//! The traits of a memtable: factory, writing half, reading half.

use std::fmt;
use std::sync::Arc;

use lsm_core::{Cursor, Entry, SequenceNumber, ValueKind};

/// Makes memtables of one kind.
///
/// A store has one factory and calls [`create`](Self::create) each time that a memtable is full and becomes an
/// immutable memtable. What tables share, such as memory that a dropped table leaves to the next, lives in the factory.
pub trait MemtableFactory: Send + Sync + fmt::Debug {
    /// Name of the structure, for logs and reports.
    fn name(&self) -> &'static str;

    /// A new, empty table. The two halves share it; it is freed when both, and all its cursors, are dropped.
    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>);

    /// Bytes that the factory keeps for tables to come. They belong to no table, so
    /// [`MemtableReader::memory_bytes`] does not contain them.
    fn pooled_bytes(&self) -> usize {
        0
    }

    /// Says how much may be kept for tables to come from now on. What is kept beyond is freed before this returns. A
    /// factory that keeps nothing need not know.
    fn set_pool_bytes(&self, _bytes_max: usize) {}
}

/// The writing half of a memtable. There is one per table, so that one writer is a fact of types.
pub trait MemtableWriter: Send {
    /// Inserts a version of `key`.
    ///
    /// The version can be found by every reader whose call happens after this one returned. A reader that runs at
    /// the same time finds all of it or nothing; hence, publish the sequence number (with a releasing store) after
    /// this returns, and read with published numbers.
    ///
    /// # Caller
    /// `key` has at most [`KEY_BYTES_MAX`](lsm_core::key::KEY_BYTES_MAX) bytes, `value` at most
    /// [`VALUE_BYTES_MAX`](lsm_core::key::VALUE_BYTES_MAX), `sequence` is at most
    /// [`SEQUENCE_MAX`](lsm_core::SEQUENCE_MAX). For one key, sequence numbers ascend.
    ///
    /// # Errors
    /// [`Full`] if the table cannot take this entry. The table is as it was and stays readable; the entry belongs
    /// into the next table. An empty table takes any single entry for which there is memory.
    ///
    /// # Panics
    /// If the caller breaks the rules above. The table is unchanged then.
    fn insert(
        &mut self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<(), Full>;

    /// Makes sure that the entries that come next can be inserted without asking the system for memory: a store that
    /// logs a write before it inserts it must not find out afterwards that there is none. For a single entry that is
    /// certain; for several it is an estimate, since nobody knows before how many nodes they will split. A table that
    /// cannot tell says yes, as this default does.
    ///
    /// Returns how many more entries are as certain as a single one, each of at most
    /// [`longest_bytes`](Reservation::longest_bytes) and without a long value. A store need not ask for those, as long as
    /// it asks for everything else that it inserts. 0 is always right.
    ///
    /// # Errors
    /// [`Full`] if there is no memory, or no room in the table. It takes the entries that it has room for all the same.
    fn reserve(&mut self, _reservation: &Reservation<'_>) -> Result<usize, Full> {
        Ok(0)
    }

    /// Bytes of [`MemtableReader::memory_bytes`] that are there for entries to come. A store that limits
    /// tables by their size need not count these bytes.
    fn unused_bytes(&self) -> usize {
        0
    }
}

/// Entries that are about to be inserted; see [`MemtableWriter::reserve`].
#[derive(Clone, Copy, Debug)]
pub struct Reservation<'a> {
    /// Their keys and values, and [`OVERHEAD_BYTES`](Self::OVERHEAD_BYTES) for each.
    pub bytes: usize,
    /// The largest of them, counted in the same way.
    pub longest_bytes: usize,
    /// Lengths of the values longer than [`LONG_VALUE_BYTES`](Self::LONG_VALUE_BYTES), in their order.
    pub long_values: &'a [usize],
}

impl Reservation<'_> {
    /// What an entry takes beside its key and value, about.
    pub const OVERHEAD_BYTES: usize = 64;
    /// Shorter values never get memory of their own.
    pub const LONG_VALUE_BYTES: usize = 8 << 10;
}

/// The reading half of a memtable. Any number of threads may use it while the writer writes.
pub trait MemtableReader: Send + Sync {
    /// The newest version of `key` whose sequence number is at most `sequence`, tombstones included.
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>>;

    /// A cursor over all versions in the order of internal keys. It owns the table, and it never fails:
    /// [`Cursor::error`] is always `None`.
    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send>;

    /// Everything that is allocated for this table, in bytes: what dropping it frees, or hands back to the factory.
    /// Cheap enough to ask after every insert.
    fn memory_bytes(&self) -> usize;

    /// Number of versions inserted.
    fn entry_count(&self) -> usize;
}

/// The table cannot take this entry: make it immutable and go on with a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the memtable is full; make it immutable and go on with a new one")
    }
}

impl std::error::Error for Full {}

/// Checks the rules of [`MemtableWriter::insert`] that do not depend on the content of the table.
pub(crate) fn assert_insertable(key: &[u8], sequence: SequenceNumber, value: &[u8]) {
    assert!(key.len() <= lsm_core::key::KEY_BYTES_MAX, "key of {} bytes is too long", key.len());
    assert!(
        value.len() as u64 <= lsm_core::key::VALUE_BYTES_MAX,
        "value of {} bytes is too long",
        value.len()
    );
    assert!(sequence <= lsm_core::SEQUENCE_MAX, "sequence number {sequence} is too large");
}

/// Checks the rule about versions of one key.
pub(crate) fn assert_ascending(newest: SequenceNumber, sequence: SequenceNumber) {
    assert!(sequence > newest, "sequence number {sequence} does not follow {newest} of the same key");
}
