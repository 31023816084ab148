//! A memtable that has memory for more entries than it was asked for is not asked for each of them, and gets no entry
//! that it has not reserved.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::{SequenceNumber, ValueKind};
use lsm_engine::{KeyspaceOptions, Options, WriteBatch};
use lsm_memtable::{BPlusMemtable, Full, MemtableFactory, MemtableReader, MemtableWriter, Reservation};

/// Says at each reservation that it has memory for this many more entries.
const MORE: usize = 3;

#[derive(Clone, Debug, Default)]
struct Thrifty(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    reservations: AtomicUsize,
    inserted: AtomicUsize,
    /// Entries that were inserted without a reservation.
    unreserved: AtomicUsize,
}

struct ThriftyWriter {
    writer: Box<dyn MemtableWriter>,
    counts: Arc<Counts>,
    /// What is left of the last reservation: bytes of those entries, and entries ahead with the length of each.
    bytes: usize,
    more: usize,
    longest_bytes: usize,
}

impl MemtableFactory for Thrifty {
    fn name(&self) -> &'static str {
        "thrifty"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = BPlusMemtable::default().create();
        let counts = Arc::clone(&self.0);
        (Box::new(ThriftyWriter { writer, counts, bytes: 0, more: 0, longest_bytes: 0 }), reader)
    }
}

impl MemtableWriter for ThriftyWriter {
    fn insert(&mut self, key: &[u8], at: SequenceNumber, kind: ValueKind, value: &[u8]) -> Result<(), Full> {
        let bytes = key.len() + value.len() + Reservation::OVERHEAD_BYTES;
        self.counts.inserted.fetch_add(1, Ordering::Relaxed);
        if bytes <= self.bytes {
            self.bytes -= bytes;
        } else if self.more > 0 && bytes <= self.longest_bytes && value.len() <= Reservation::LONG_VALUE_BYTES
        {
            self.more -= 1;
        } else {
            self.counts.unreserved.fetch_add(1, Ordering::Relaxed);
        }
        self.writer.insert(key, at, kind, value)
    }

    fn reserve(&mut self, coming: &Reservation<'_>) -> Result<usize, Full> {
        self.counts.reservations.fetch_add(1, Ordering::Relaxed);
        (self.bytes, self.more, self.longest_bytes) = (coming.bytes, MORE, coming.longest_bytes);
        self.writer.reserve(coming).map(|_| MORE)
    }
}

#[test]
fn a_memtable_is_asked_once_for_several_short_writes_and_always_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path()).unwrap();
    let memtable = Thrifty::default();
    let counts = Arc::clone(&memtable.0);
    let thrifty = db.keyspace("thrifty", KeyspaceOptions::new().memtable(Arc::new(memtable))).unwrap();
    for number in 0..400_u32 {
        thrifty.put(number.to_be_bytes(), "short").unwrap();
    }
    let asked = counts.reservations.load(Ordering::Relaxed);
    assert!((100..=110).contains(&asked), "{asked}");

    let mut random = 1_u64;
    for number in 0..4000_u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let value = vec![7; (random >> 33) as usize % [10, 200, 12_000][number as usize % 3]];
        let key = number.to_be_bytes();
        match (random >> 20) % 8 {
            0 => thrifty.delete(key).unwrap(),
            1 => thrifty.delete_range(key..(number + 2).to_be_bytes()).unwrap(),
            2 => {
                let mut batch = WriteBatch::new();
                batch.put_in(&thrifty, key, &value).put_in(&thrifty, [1], "one").put(key, "beside");
                db.write(batch).unwrap();
            }
            _ => thrifty.put(key, &value).unwrap(),
        }
    }
    assert!(counts.inserted.load(Ordering::Relaxed) > 4000);
    assert_eq!(counts.unreserved.load(Ordering::Relaxed), 0);
    db.close().unwrap();
}
