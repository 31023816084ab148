use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lsm_core::{SequenceNumber, ValueKind};
use lsm_memtable::{Full, MemtableFactory, MemtableReader, MemtableWriter, Reservation};

/// A shortage: some calls of memtables get no memory.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    next: Mutex<Next>,
    refusals: AtomicU64,
}

#[derive(Debug, Default)]
struct Next {
    methods: &'static [&'static str],
    skip: usize,
    calls: usize,
}

impl Shortage {
    /// The next `calls` calls of these methods get no memory, after `skip` calls that do. 0 ends the shortage.
    pub(crate) fn set(&self, methods: &'static [&'static str], skip: usize, calls: usize) {
        *self.next.lock().unwrap() = Next { methods, skip, calls };
    }

    /// Number of calls that got no memory.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn allocate(&self, method: &str) -> Result<(), Full> {
        let mut next = self.next.lock().unwrap();
        if next.calls == 0 || !next.methods.contains(&method) {
            return Ok(());
        }
        if next.skip > 0 {
            next.skip -= 1;
            return Ok(());
        }
        next.calls -= 1;
        self.refusals.fetch_add(1, Ordering::Relaxed);
        Err(Full)
    }
}

/// A memtable that gets no memory during a shortage.
#[derive(Clone, Debug)]
pub(crate) struct Short(pub(crate) Arc<dyn MemtableFactory>, pub(crate) Arc<Shortage>);

struct ShortWriter(Box<dyn MemtableWriter>, Arc<Shortage>);

impl MemtableFactory for Short {
    fn name(&self) -> &'static str {
        "short"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = self.0.create();
        (Box::new(ShortWriter(writer, Arc::clone(&self.1))), reader)
    }

    fn set_pool_bytes(&self, bytes_max: usize) {
        self.0.set_pool_bytes(bytes_max);
    }

    fn pooled_bytes(&self) -> usize {
        self.0.pooled_bytes()
    }
}

impl MemtableWriter for ShortWriter {
    fn insert(&mut self, key: &[u8], at: SequenceNumber, kind: ValueKind, value: &[u8]) -> Result<(), Full> {
        self.1.allocate("insert")?;
        self.0.insert(key, at, kind, value)
    }

    fn reserve(&mut self, coming: &Reservation<'_>) -> Result<usize, Full> {
        self.1.allocate("reserve")?;
        // 0 more: so every write asks, and may meet the shortage.
        self.0.reserve(coming).map(|_| 0)
    }

    fn unused_bytes(&self) -> usize {
        self.0.unused_bytes()
    }
}
