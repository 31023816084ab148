//! User parts that work like those of the engine, until one of their calls panics.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lsm_core::{Cursor, Entry, SequenceNumber, ValueKind};
use lsm_engine::compaction_policies::{Compaction, CompactionPolicy, TreeShape};
use lsm_engine::{BuiltInMerge, FilterPolicy, FixedPrefix, MergeError, MergeOperator, PrefixExtractor};
use lsm_memtable::{Full, MemtableFactory, MemtableReader, MemtableWriter, Reservation};
use lsm_sstable::BloomFilter;

pub(crate) const SAID: &str = "the part of the test gave up";

/// Makes one of the calls of some methods panic.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    methods: Mutex<Vec<&'static str>>,
    /// 0 if no call shall panic.
    calls_left: AtomicUsize,
    is_armed: AtomicBool,
}

impl Fuse {
    pub(crate) fn call(&self, method: &str) {
        if !self.is_armed.load(Ordering::Relaxed) || !self.is_set_for(method) {
            return;
        }
        let left = self.calls_left.load(Ordering::Relaxed);
        self.calls_left.store(left.saturating_sub(1), Ordering::Relaxed);
        assert!(left != 1, "{SAID}: {method}");
    }

    /// Makes the call with this number to one of these methods panic. Calls count from 1; 0 means none.
    pub(crate) fn set(&self, methods: &[&'static str], call: usize) {
        *self.methods.lock().unwrap() = methods.to_vec();
        self.calls_left.store(call, Ordering::Relaxed);
    }

    pub(crate) fn is_set_for(&self, method: &str) -> bool {
        self.methods.lock().unwrap().contains(&method)
    }

    pub(crate) fn arm(&self, armed: bool) {
        self.is_armed.store(armed, Ordering::Relaxed);
    }

    pub(crate) fn fired(&self) -> bool {
        self.calls_left.load(Ordering::Relaxed) == 0
    }
}

/// A part behind a fuse.
#[derive(Debug)]
pub(crate) struct Fused<T>(pub(crate) T, pub(crate) Arc<Fuse>);

struct FusedReader(Arc<dyn MemtableReader>, Arc<Fuse>);

struct FusedWriter(Box<dyn MemtableWriter>, Arc<Fuse>);

impl Drop for FusedWriter {
    fn drop(&mut self) {
        // A panic during a panic would abort the process.
        if !std::thread::panicking() {
            self.1.call("drop");
        }
    }
}

impl MemtableFactory for Fused<Arc<dyn MemtableFactory>> {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        self.1.call("create");
        let (writer, reader) = self.0.create();
        let fuse = || Arc::clone(&self.1);
        (Box::new(FusedWriter(writer, fuse())), Arc::new(FusedReader(reader, fuse())))
    }

    fn set_pool_bytes(&self, bytes_max: usize) {
        self.1.call("set_pool_bytes");
        self.0.set_pool_bytes(bytes_max);
    }
}

impl MemtableWriter for FusedWriter {
    fn insert(
        &mut self,
        key: &[u8],
        at: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> std::result::Result<(), Full> {
        self.1.call("insert");
        self.0.insert(key, at, kind, value)
    }

    fn reserve(&mut self, coming: &Reservation<'_>) -> std::result::Result<usize, Full> {
        self.1.call("reserve");
        // 0 more: so every write calls, and may panic.
        self.0.reserve(coming).map(|_| 0)
    }
}

impl MemtableReader for FusedReader {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        self.1.call("get");
        self.0.get(key, sequence)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        self.1.call("cursor");
        Box::new(Fused(Arc::clone(&self.0).cursor(), Arc::clone(&self.1)))
    }

    fn memory_bytes(&self) -> usize {
        self.1.call("memory_bytes");
        self.0.memory_bytes()
    }

    fn entry_count(&self) -> usize {
        self.1.call("entry_count");
        self.0.entry_count()
    }
}

impl Cursor for Fused<Box<dyn Cursor + Send>> {
    fn first(&mut self) {
        self.1.call("first");
        self.0.first();
    }

    fn last(&mut self) {
        self.0.last();
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.1.call("seek");
        self.0.seek(key, sequence);
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.0.seek_for_prev(key, sequence);
    }

    fn next(&mut self) {
        self.1.call("next");
        self.0.next();
    }

    fn prev(&mut self) {
        self.0.prev();
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.1.call("entry");
        self.0.entry()
    }

    fn error(&self) -> Option<&lsm_core::Error> {
        self.0.error()
    }
}

impl FilterPolicy for Fused<BloomFilter> {
    fn name(&self) -> &'static str {
        self.1.call("filter name");
        // A name of its own. The engine reads tables that name its own filter with that filter.
        "fused"
    }

    fn build(&self, hashes: &[u64]) -> Vec<u8> {
        self.1.call("filter build");
        self.0.build(hashes)
    }

    fn may_contain(&self, filter: &[u8], hash: u64) -> bool {
        self.1.call("may_contain");
        self.0.may_contain(filter, hash)
    }

    fn filter_bytes(&self, hash_count: usize) -> usize {
        self.1.call("filter_bytes");
        self.0.filter_bytes(hash_count)
    }

    fn part(&self, filter_bytes: u64, hash: u64) -> Option<Range<u64>> {
        self.1.call("part");
        self.0.part(filter_bytes, hash)
    }
}

impl PrefixExtractor for Fused<FixedPrefix> {
    fn name(&self) -> String {
        self.1.call("prefix name");
        self.0.name()
    }

    fn prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        self.1.call("prefix");
        self.0.prefix(key)
    }
}

impl CompactionPolicy for Fused<Arc<dyn CompactionPolicy>> {
    fn name(&self) -> &'static str {
        self.1.call("policy name");
        self.0.name()
    }

    fn level_count(&self) -> usize {
        self.1.call("level_count");
        self.0.level_count()
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        self.1.call("pick");
        self.0.pick(shape)
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        self.1.call("debt_bytes");
        self.0.debt_bytes(shape)
    }

    fn drops_data(&self) -> bool {
        self.1.call("drops_data");
        self.0.drops_data()
    }
}

impl MergeOperator for Fused<BuiltInMerge> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> std::result::Result<Option<Vec<u8>>, MergeError> {
        self.1.call("full");
        self.0.full(key, base, operands)
    }

    fn partial(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        self.1.call("partial");
        self.0.partial(key, operands)
    }
}
