use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use lsm_core::range_tombstone::RangeTombstoneSet;
use lsm_core::{Cursor, Entry, MergingCursor, SequenceNumber};
use lsm_memtable::MemtableReader;
use parking_lot::Mutex;

use crate::version::BlobFile;

use crate::version::Placement;

/// The readable part of a memtable, and its range tombstones.
pub(crate) struct Memtable {
    /// Orders memtables, and the runs flushed from them, by age.
    pub(crate) number: u64,
    pub(crate) reader: Arc<dyn MemtableReader>,
    pub(crate) range_tombstones: RangeTombstoneSet,
    /// The log position before its first record.
    pub(crate) log_start: u64,
    /// Set when it becomes immutable: all writes of the keyspace up to this number are in it or in older data.
    last_sequence: AtomicU64,
    /// Its memory when it became immutable. The accounting uses this number until the memtable is released.
    immutable_bytes: AtomicUsize,
    /// If the memtable became full in the middle of a log record, the last sequence number before that record; the rest of
    /// the record is in the next memtable. Otherwise `u64::MAX`.
    whole_up_to: AtomicU64,
    may_expire: AtomicBool,
    /// Blob files of values that were too large for the memtable, written before its entries.
    blobs: Mutex<Vec<Arc<BlobFile>>>,
    /// The tables of an ingest. They are in the version already, but not in the manifest: the flush of this memtable, which
    /// has no entries, puts them there. So the log keeps the record of the ingest until then, and all older data of the
    /// keyspace is in tables by then.
    pub(crate) ingested: Vec<Placement>,
}

/// The entries of a memtable that stands for ingested tables.
struct NoEntries;

impl MemtableReader for NoEntries {
    fn get(&self, _key: &[u8], _sequence: SequenceNumber) -> Option<Entry<'_>> {
        None
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(MergingCursor::new(Vec::<Box<dyn Cursor + Send>>::new()))
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn entry_count(&self) -> usize {
        0
    }
}

impl Memtable {
    pub(crate) fn new(number: u64, reader: Arc<dyn MemtableReader>, log_start: u64) -> Self {
        Self {
            number,
            reader,
            range_tombstones: RangeTombstoneSet::new(),
            log_start,
            last_sequence: AtomicU64::new(0),
            immutable_bytes: AtomicUsize::new(0),
            whole_up_to: AtomicU64::new(SequenceNumber::MAX),
            may_expire: AtomicBool::new(false),
            ingested: Vec::new(),
            blobs: Mutex::default(),
        }
    }

    /// The immutable memtable that stands for tables ingested at `sequence`, whose log record starts at `log_start`. Its
    /// number must be between those of older memtables and that of the tables' run.
    pub(crate) fn of_ingested(
        number: u64,
        log_start: u64,
        sequence: SequenceNumber,
        ingested: Vec<Placement>,
    ) -> Self {
        let memtable = Self::new(number, Arc::new(NoEntries), log_start);
        memtable.rotate(sequence, 0);
        Self { ingested, ..memtable }
    }

    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence.load(Ordering::Acquire)
    }

    pub(crate) fn rotate(&self, last_sequence: SequenceNumber, bytes: usize) {
        self.last_sequence.store(last_sequence, Ordering::Release);
        self.immutable_bytes.store(bytes, Ordering::Release);
    }

    pub(crate) fn immutable_bytes(&self) -> usize {
        self.immutable_bytes.load(Ordering::Acquire)
    }

    /// Marks that the memtable ends in the middle of a log record. `whole_up_to` is the last number before that record.
    pub(crate) fn cut(&self, whole_up_to: SequenceNumber) {
        self.whole_up_to.store(whole_up_to, Ordering::Release);
    }

    pub(crate) fn whole_up_to(&self) -> SequenceNumber {
        self.whole_up_to.load(Ordering::Acquire)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.whole_up_to() != SequenceNumber::MAX
    }

    /// Notes that an entry that expires was inserted. The write is not visible yet.
    #[cold]
    pub(crate) fn note_expiry(&self) {
        self.may_expire.store(true, Ordering::Relaxed);
    }

    /// Whether it has an entry that expires, among those that are visible.
    pub(crate) fn may_expire(&self) -> bool {
        self.may_expire.load(Ordering::Relaxed)
    }

    /// Takes the file of a pointer that was inserted. The write is not visible yet. Returns the bytes of all such files.
    pub(crate) fn hold_blob(&self, file: Arc<BlobFile>) -> u64 {
        let mut blobs = self.blobs.lock();
        blobs.push(file);
        blobs.iter().map(|file| file.meta().file_bytes).sum()
    }

    pub(crate) fn has_blobs(&self) -> bool {
        !self.blobs.lock().is_empty()
    }

    /// The blob files that only its entries point to.
    pub(crate) fn blobs(&self) -> Vec<Arc<BlobFile>> {
        self.blobs.lock().clone()
    }

    pub(crate) fn find_blob(&self, blob: u64) -> Option<Arc<BlobFile>> {
        self.blobs.lock().iter().find(|file| file.blob() == blob).cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reader.entry_count() == 0 && self.range_tombstones.is_empty() && self.ingested.is_empty()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.reader.memory_bytes() + self.range_tombstones.memory_bytes()
    }
}
