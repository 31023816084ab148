//! A single entry that was reserved can be inserted when the system has no memory left, and of several nearly all; what
//! cannot be reserved leaves the table as it was.
//!
//! Chunks of a huge page come from the system, not from the allocator, so the tables here are smaller than one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lsm_core::{SEQUENCE_MAX, ValueKind};
use lsm_memtable::{BPlusMemtable, Full, MemtableFactory, MemtableWriter, Reservation, SkipListMemtable};

/// Has no memory for large pieces when told so.
struct RunningOut;

thread_local! {
    static HAS_RUN_OUT: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is left to the system's allocator, or refused.
unsafe impl GlobalAlloc for RunningOut {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= 4096 && HAS_RUN_OUT.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: RunningOut = RunningOut;

fn without_memory<T>(call: impl FnOnce() -> T) -> T {
    HAS_RUN_OUT.set(true);
    let answer = call();
    HAS_RUN_OUT.set(false);
    answer
}

/// Lengths of the values of one write of so many entries at most.
fn write(random: &mut u64, entries_max: u64) -> Vec<usize> {
    let mut next = |bound: u64| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((*random >> 33) % bound) as usize
    };
    let most = [10, 300, 9_000, 50_000][next(4)];
    (0..=next(entries_max)).map(|_| next(most)).collect()
}

fn key(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// What came of writes.
#[derive(Default)]
struct Outcome {
    /// Writes for which memory had to be reserved.
    reserved: usize,
    entries: usize,
    /// Entries for which it did not suffice.
    short: usize,
}

/// Writes one after the other until the table is about as large as it may be here.
fn fill(factory: &dyn MemtableFactory, random: &mut u64, entries_max: u64, outcome: &mut Outcome) {
    let (mut writer, table) = factory.create();
    let mut number = 0;
    while table.memory_bytes() < 1_200_000 {
        let values: Vec<Vec<u8>> =
            write(random, entries_max).iter().map(|&length| vec![number as u8; length]).collect();
        let long: Vec<usize> =
            values.iter().map(Vec::len).filter(|&length| length > Reservation::LONG_VALUE_BYTES).collect();
        let each = |value: &Vec<u8>| 8 + value.len() + Reservation::OVERHEAD_BYTES;
        let reservation = Reservation {
            bytes: values.iter().map(each).sum(),
            longest_bytes: values.iter().map(each).max().unwrap_or(0),
            long_values: &long,
        };
        let reserve = |writer: &mut Box<dyn MemtableWriter>| writer.reserve(&reservation);
        // Either there is room enough already, or that is said and changes nothing.
        if without_memory(|| reserve(&mut writer)) == Err(Full) {
            assert_eq!(table.entry_count() as u64, number);
            reserve(&mut writer).expect("there is memory again");
            outcome.reserved += 1;
        }
        for value in &values {
            number += 1;
            outcome.entries += 1;
            let mut insert = || writer.insert(&key(number), number, ValueKind::Put, value);
            if without_memory(&mut insert).is_err() {
                outcome.short += 1;
                insert().expect("there is memory again");
            }
        }
        for (offset, value) in values.iter().rev().enumerate() {
            let entry = table.get(&key(number - offset as u64), SEQUENCE_MAX).expect("it was inserted");
            assert_eq!(entry.value, value);
        }
    }
}

#[test]
fn what_is_reserved_needs_no_more_memory_or_hardly_any() {
    let mut random = 7;
    let factories: [Box<dyn MemtableFactory>; 2] =
        [Box::new(BPlusMemtable::with_pool_bytes(0)), Box::new(SkipListMemtable::with_pool_bytes(0))];
    for factory in factories {
        let (mut single, mut several) = (Outcome::default(), Outcome::default());
        for _ in 0..30 {
            fill(&*factory, &mut random, 1, &mut single);
            fill(&*factory, &mut random, 40, &mut several);
        }
        assert!(single.reserved > 60 && several.reserved > 60);
        assert_eq!(single.short, 0, "of {}", single.entries);
        assert!(several.short * 200 < several.entries, "{} of {}", several.short, several.entries);
    }
}

#[test]
fn the_entries_that_a_reservation_counts_need_no_more_memory() {
    let factories: [Box<dyn MemtableFactory>; 2] =
        [Box::new(BPlusMemtable::with_pool_bytes(0)), Box::new(SkipListMemtable::with_pool_bytes(0))];
    for factory in factories {
        let (mut random, mut counted) = (7, 0);
        for value_bytes in [0, 8, 100, 1000, 4000].repeat(6) {
            let (mut writer, table) = factory.create();
            let mut number = 0;
            while table.memory_bytes() < 1_200_000 {
                let bytes = 8 + value_bytes + Reservation::OVERHEAD_BYTES;
                let reservation = Reservation { bytes, longest_bytes: bytes, long_values: &[] };
                let more = writer.reserve(&reservation).expect("there is memory");
                counted += more;
                // Keys at random split the most nodes. Some reservations are used up, some are not.
                for _ in 0..=more.min(write(&mut random, 64).len()) {
                    number += 1;
                    let insert =
                        || writer.insert(&key(number), number, ValueKind::Put, &vec![7; value_bytes]);
                    without_memory(insert).expect("it was reserved");
                }
            }
            assert_eq!(table.entry_count() as u64, number);
        }
        assert!(counted > 50_000, "{counted}");
    }
}
