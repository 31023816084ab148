//! Random tables, read in every way, beside a sorted vector of the same entries.

mod common;

use std::sync::{Arc, LazyLock};

use common::{MemoryFs, Owned, open_both, path, write};
use lsm_core::hash::key_hash;
use lsm_core::{Cursor, SEQUENCE_MAX, ValueKind, key};
use lsm_sstable::{BlockCache, BloomFilter, Compression, CursorAccess, Table, TableOptions};
use proptest::prelude::*;

fn key_strategy() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        // Few distinct keys, so many versions.
        prop::collection::vec(b'a'..=b'c', 0..4),
        // Long common prefixes, and ties in the first bytes after them.
        (prop::collection::vec(b'a'..=b'b', 0..3), 0_u8..3).prop_map(|(tail, group)| {
            [b"a-rather-long-prefix/".as_slice(), &[group], b"\0\0\0\0\0\0\0\0", &tail].concat()
        }),
        prop::collection::vec(any::<u8>(), 0..12),
        prop::collection::vec(any::<u8>(), 120..300),
    ]
}

fn value_strategy() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        4 => (any::<u8>(), 0_usize..600).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 0_usize..80_000).prop_map(|(byte, len)| vec![byte; len]),
        1 => prop::collection::vec(any::<u8>(), 3000..6000),
    ]
}

fn kind_strategy() -> impl Strategy<Value = ValueKind> {
    prop_oneof![6 => Just(ValueKind::Put), 1 => Just(ValueKind::Delete), 1 => Just(ValueKind::Merge)]
}

fn sequence_strategy() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0_u64..20, 1 => 0..SEQUENCE_MAX]
}

fn entries_strategy() -> impl Strategy<Value = Vec<Owned>> {
    let entry = (key_strategy(), sequence_strategy(), kind_strategy(), value_strategy())
        .prop_map(|(key, sequence, kind, value)| Owned { key, sequence, kind, value });
    prop::collection::vec(entry, 0..150).prop_map(|mut entries| {
        entries.sort_by(|a, b| key::compare(&a.key, a.sequence, &b.key, b.sequence));
        entries.dedup_by(|a, b| a.key == b.key && a.sequence == b.sequence);
        entries
    })
}

fn options_strategy() -> impl Strategy<Value = TableOptions> {
    let compressions = prop_oneof![Just(Compression::None), Just(Compression::Lz4)];
    #[cfg(feature = "zstd")]
    let compressions = prop_oneof![2 => compressions, 1 => Just(Compression::Zstd { level: 1 })];
    (prop_oneof![Just(256_usize), Just(1000), Just(4096), Just(1 << 17)], compressions, any::<bool>())
        .prop_map(|(block_bytes, compression, has_filter)| TableOptions {
            block_bytes,
            compression,
            filter: has_filter.then(|| Arc::new(BloomFilter::default()) as _),
            write_buffer_bytes: 3000,
            ..TableOptions::default()
        })
}

fn cache_strategy() -> impl Strategy<Value = Option<Arc<BlockCache>>> {
    prop_oneof![Just(None), Just(Some(6000)), Just(Some(1 << 24))]
        .prop_map(|bytes| bytes.map(BlockCache::new))
}

/// Position of the first entry at or after an internal key.
fn lower_bound(entries: &[Owned], key: &[u8], sequence: u64) -> usize {
    entries.partition_point(|entry| key::compare(&entry.key, entry.sequence, key, sequence).is_lt())
}

fn check_get(table: &Table, entries: &[Owned], key: &[u8], sequence: u64) -> Result<(), TestCaseError> {
    let expected = entries.get(lower_bound(entries, key, sequence)).filter(|entry| entry.key == key);
    let found = table.get(key, key_hash(key), sequence).unwrap();
    let found = found.map(|value| (value.sequence, value.kind, value.value.to_vec()));
    prop_assert_eq!(found, expected.map(|entry| (entry.sequence, entry.kind, entry.value.clone())));
    Ok(())
}

/// Gets every entry, at sequence numbers around its own.
fn check_gets(table: &Table, entries: &[Owned]) -> Result<(), TestCaseError> {
    for entry in entries {
        for sequence in
            [0, entry.sequence.saturating_sub(1), entry.sequence, entry.sequence + 1, SEQUENCE_MAX]
        {
            check_get(table, entries, &entry.key, sequence.min(SEQUENCE_MAX))?;
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    First,
    Last,
    Next(usize),
    Prev(usize),
    Seek(Vec<u8>, u64),
    SeekForPrev(Vec<u8>, u64),
    /// To an entry that exists, or one sequence number off.
    SeekNear(prop::sample::Index, i64, bool),
}

fn step_strategy() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::First),
        1 => Just(Step::Last),
        3 => (1_usize..40).prop_map(Step::Next),
        3 => (1_usize..40).prop_map(Step::Prev),
        2 => (key_strategy(), sequence_strategy()).prop_map(|(key, sequence)| Step::Seek(key, sequence)),
        2 => (key_strategy(), sequence_strategy()).prop_map(|(key, sequence)| Step::SeekForPrev(key, sequence)),
        4 => (any::<prop::sample::Index>(), -1_i64..2, any::<bool>())
            .prop_map(|(index, off, back)| Step::SeekNear(index, off, back)),
    ]
}

fn check_walk(
    table: &Arc<Table>,
    entries: &[Owned],
    access: CursorAccess,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut cursor = table.cursor(access);
    let mut at: Option<usize> = None;
    prop_assert!(cursor.entry().is_none());
    cursor.next();
    cursor.prev();
    prop_assert!(cursor.entry().is_none());
    let exists = |at: usize| (at < entries.len()).then_some(at);
    let at_or_before = |key: &[u8], sequence: u64| {
        entries
            .partition_point(|entry| key::compare(&entry.key, entry.sequence, key, sequence).is_le())
            .checked_sub(1)
    };
    for step in steps {
        let mut times = 1;
        match step {
            Step::Next(count) | Step::Prev(count) => times = *count,
            _ => {}
        }
        for _ in 0..times {
            match step {
                Step::First => {
                    cursor.first();
                    at = exists(0);
                }
                Step::Last => {
                    cursor.last();
                    at = entries.len().checked_sub(1);
                }
                Step::Next(_) => {
                    cursor.next();
                    at = at.and_then(|at| exists(at + 1));
                }
                Step::Prev(_) => {
                    cursor.prev();
                    at = at.and_then(|at| at.checked_sub(1));
                }
                Step::Seek(key, sequence) => {
                    cursor.seek(key, *sequence);
                    at = exists(lower_bound(entries, key, *sequence));
                }
                Step::SeekForPrev(key, sequence) => {
                    cursor.seek_for_prev(key, *sequence);
                    at = at_or_before(key, *sequence);
                }
                Step::SeekNear(index, off, back) => {
                    if entries.is_empty() {
                        continue;
                    }
                    let entry = index.get(entries);
                    let sequence = entry.sequence.saturating_add_signed(*off).min(SEQUENCE_MAX);
                    if *back {
                        cursor.seek_for_prev(&entry.key, sequence);
                        at = at_or_before(&entry.key, sequence);
                    } else {
                        cursor.seek(&entry.key, sequence);
                        at = exists(lower_bound(entries, &entry.key, sequence));
                    }
                }
            }
            prop_assert!(cursor.error().is_none());
            prop_assert_eq!(
                cursor.entry().map(Owned::from),
                at.map(|at| entries[at].clone()),
                "after {:?}",
                step
            );
        }
    }
    Ok(())
}

/// Enough blocks for an index of many pages; a fifth of them hold versions of one key.
fn entries_over_many_blocks() -> Vec<Owned> {
    let put = |key: String, sequence: u64| Owned::put(key, sequence, vec![b'v'; 100]);
    let mut entries: Vec<Owned> = (0..4000_u64).map(|n| put(format!("key/{:05}", 3 * n), n)).collect();
    entries.extend((0..2000_u64).rev().map(|n| put("key/05000+".into(), 3 * n)));
    entries.extend((0..2000_u64).rev().map(|n| put(format!("other {}", n / 700), n)));
    entries.sort_by(|a, b| key::compare(&a.key, a.sequence, &b.key, b.sequence));
    entries
}

#[test]
fn every_entry_of_an_index_of_many_pages_is_found_and_walked_over() {
    let entries = entries_over_many_blocks();
    let fs = MemoryFs::default();
    write(&fs, &entries, &TableOptions { block_bytes: 256, ..TableOptions::default() }).unwrap();
    for table in open_both(&fs, None).unwrap() {
        assert!(table.properties().data_blocks > 3000);
        check_gets(&table, &entries).unwrap();
        for access in [CursorAccess::Cached, CursorAccess::Sequential] {
            let count = entries.len() + 10;
            let steps = [Step::First, Step::Next(count), Step::Last, Step::Prev(count)];
            check_walk(&table, &entries, access, &steps).unwrap();
        }
        table.verify().unwrap();
    }
}

#[test]
fn a_scan_reads_each_page_of_an_index_once() {
    let fs = MemoryFs::default();
    write(&fs, &entries_over_many_blocks(), &TableOptions { block_bytes: 256, ..TableOptions::default() })
        .unwrap();
    let tables = open_both(&fs, None).unwrap();
    let bytes = fs.bytes(&path());
    let index_bytes = u64::from_le_bytes(bytes[bytes.len() - 104..][..8].try_into().unwrap());
    let pages = usize::try_from(index_bytes / 1024 + 1).unwrap();
    let reads = |table: &Arc<Table>, access, forward| {
        let before = fs.reads(&path());
        let mut cursor = table.cursor(access);
        if forward {
            cursor.first();
        } else {
            cursor.last();
        }
        while cursor.entry().is_some() {
            if forward { cursor.next() } else { cursor.prev() }
        }
        fs.reads(&path()) - before
    };
    // What the first question alone costs.
    assert_eq!(tables.each_ref().map(|table| table.split_keys(2).len()), [1, 1]);
    for access in [CursorAccess::Cached, CursorAccess::Sequential] {
        for forward in [true, false] {
            let [pinned, unpinned] = tables.each_ref().map(|table| reads(table, access, forward));
            // A window of the data ends with the page that says where its blocks are.
            assert!((pages..=2 * pages + pinned).contains(&unpinned), "{unpinned} {pinned} {pages}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn cursors_cross_the_pages_of_an_index(steps in prop::collection::vec(step_strategy(), 1..40)) {
        static TABLES: LazyLock<(Vec<Owned>, [Arc<Table>; 2])> = LazyLock::new(|| {
            let fs = MemoryFs::default();
            let entries = entries_over_many_blocks();
            write(&fs, &entries, &TableOptions { block_bytes: 256, ..TableOptions::default() }).unwrap();
            let tables = open_both(&fs, None).unwrap();
            (entries, tables)
        });
        let (entries, tables) = &*TABLES;
        for table in tables {
            check_walk(table, entries, CursorAccess::Cached, &steps)?;
            check_walk(table, entries, CursorAccess::Sequential, &steps)?;
        }
    }

    #[test]
    fn gets_at_any_sequence_number_agree(
        entries in entries_strategy(),
        options in options_strategy(),
        cache in cache_strategy(),
        probes in prop::collection::vec((key_strategy(), sequence_strategy()), 0..50),
    ) {
        let fs = MemoryFs::default();
        let meta = write(&fs, &entries, &options).unwrap();
        prop_assert_eq!(meta.entries, entries.len() as u64);
        let tables = open_both(&fs, cache.as_ref()).unwrap();
        for table in &tables {
            prop_assert_eq!(table.meta(), &meta);
            for (key, sequence) in &probes {
                check_get(table, &entries, key, *sequence)?;
            }
            check_gets(table, &entries)?;
        }
        if let Some(cache) = cache {
            prop_assert!(cache.used_bytes() <= cache.capacity_bytes());
            drop(tables);
            prop_assert_eq!(cache.used_bytes(), 0);
        }
    }

    #[test]
    fn cursors_walk_both_ways_and_seek_anywhere(
        entries in entries_strategy(),
        options in options_strategy(),
        cache in cache_strategy(),
        steps in prop::collection::vec(step_strategy(), 1..40),
    ) {
        let fs = MemoryFs::default();
        write(&fs, &entries, &options).unwrap();
        for table in open_both(&fs, cache.as_ref()).unwrap() {
            check_walk(&table, &entries, CursorAccess::Cached, &steps)?;
            check_walk(&table, &entries, CursorAccess::Sequential, &steps)?;
        }
    }
}
