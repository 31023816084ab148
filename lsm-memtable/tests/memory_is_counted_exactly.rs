//! `memory_bytes` is what the allocator handed out, to the byte.
//!
//! Chunks of a huge page come from the system, not from the allocator, so the tables here are smaller than one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lsm_core::ValueKind;
use lsm_memtable::{BPlusMemtable, MemtableFactory, SkipListMemtable};

struct Counting;

thread_local! {
    /// Of this thread alone: the test harness allocates when it likes.
    static ALLOCATED_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn allocated_bytes() -> usize {
    ALLOCATED_BYTES.get()
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.set(ALLOCATED_BYTES.get().wrapping_add(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.set(ALLOCATED_BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn what_is_counted_is_what_was_allocated() {
    let factories: [Box<dyn MemtableFactory>; 2] =
        [Box::new(BPlusMemtable::with_pool_bytes(0)), Box::new(SkipListMemtable::with_pool_bytes(0))];
    let large = vec![1; 300_000];
    for factory in factories {
        let before = allocated_bytes();
        let (mut writer, table) = factory.create();
        let allocated = || allocated_bytes() - before;
        assert_eq!(table.memory_bytes(), allocated(), "{} when empty", factory.name());
        for sequence in 1..10_000_u64 {
            let key = (sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50).to_be_bytes();
            let value: &[u8] = if sequence.is_multiple_of(1000) { &large } else { b"a value" };
            writer.insert(&key, sequence, ValueKind::Put, value).expect("there is room");
            assert_eq!(table.memory_bytes(), allocated(), "{} after {sequence} inserts", factory.name());
        }
        drop(writer);
        drop(table);
        assert_eq!(allocated_bytes(), before, "{} frees everything", factory.name());
        assert_eq!(factory.pooled_bytes(), 0);
    }
}
