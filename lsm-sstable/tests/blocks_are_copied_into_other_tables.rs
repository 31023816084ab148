//! A table into which blocks of another one were copied reads like one that was written entry by entry.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{ID, MemoryFs, Owned, open, path, write};
use lsm_core::hash::key_hash;
use lsm_core::{BlockCursor, Cursor, SEQUENCE_MAX};
use lsm_sstable::{
    BloomFilter, Compression, CursorAccess, FixedPrefix, Table, TableId, TableMeta, TableOpen, TableOptions,
    TableWriter,
};
use proptest::prelude::*;

fn options(block_bytes: usize, compression: Compression) -> TableOptions {
    TableOptions {
        block_bytes,
        compression,
        filter: Some(Arc::new(BloomFilter::default())),
        prefix_extractor: Some(Arc::new(FixedPrefix { bytes: 4 })),
        write_buffer_bytes: 3000,
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

/// Compresses to a half.
fn value(number: u32, bytes: usize) -> Vec<u8> {
    let byte = |at: usize| if at.is_multiple_of(2) { b'v' } else { (number as usize * 31 + at * at) as u8 };
    (0..bytes).map(byte).collect()
}

fn settled(numbers: impl IntoIterator<Item = u32>, bytes: usize) -> Vec<Owned> {
    numbers.into_iter().map(|number| Owned::put(key(number), 0, value(number, bytes))).collect()
}

/// Writes `table` and `others`, which hold no key twice, in order into one, copying what blocks `takes` says; returns the
/// meta data and how many blocks were taken.
fn copy(
    fs: &MemoryFs,
    table: &Arc<Table>,
    others: &[Owned],
    options: &TableOptions,
    mut takes: impl FnMut() -> bool,
) -> (TableMeta, usize) {
    let mut writer = TableWriter::create(fs, &path(), TableId(ID.0 + 1), options).unwrap();
    let mut others = others.iter().peekable();
    let mut cursor = table.cursor(CursorAccess::Sequential);
    let mut copied = 0;
    cursor.first();
    while let Some(entry) = cursor.entry() {
        while let Some(other) = others.next_if(|other| *other.key < *entry.key) {
            writer.add(other.entry()).unwrap();
        }
        if let Some(block) = cursor.table_block()
            && others.peek().is_none_or(|other| *other.key > *block.last_key())
            && takes()
            && writer.add_block(&block).unwrap()
        {
            copied += 1;
            let bytes: usize = block.entries().map(|entry| entry.key.len() + entry.value.len()).sum();
            assert_eq!(cursor.skip_block(), bytes as u64);
            continue;
        }
        writer.add(entry).unwrap();
        cursor.next();
    }
    assert!(cursor.error().is_none());
    for other in others {
        writer.add(other.entry()).unwrap();
    }
    (writer.finish().unwrap(), copied)
}

fn compression() -> impl Strategy<Value = Compression> {
    let plain_or_lz4 = prop_oneof![Just(Compression::None), Just(Compression::Lz4)];
    #[cfg(feature = "zstd")]
    let plain_or_lz4 = prop_oneof![2 => plain_or_lz4, 1 => Just(Compression::Zstd { level: 1 })];
    plain_or_lz4
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_copy_reads_like_its_source(
        numbers in prop::collection::btree_map(0..4000_u32, (0..30_u64, prop_oneof![8 => 0..200_usize, 1 => 0..5000_usize]), 0..300),
        others in prop::collection::btree_map(0..4000_u32, 1..50_u64, 0..20),
        blocks in (prop_oneof![Just(300_usize), Just(1000)], prop_oneof![Just(300_usize), Just(1000)]),
        compressions in (compression(), compression()),
        refusals in any::<u64>(),
    ) {
        // One entry in thirty still has its sequence number.
        let source: Vec<_> = numbers
            .iter()
            .map(|(&number, &(age, bytes))| Owned::put(key(number), u64::from(age == 29), value(number, bytes)))
            .collect();
        let others: Vec<_> = others
            .iter()
            .filter(|(number, _)| !numbers.contains_key(number))
            .map(|(&number, &sequence)| Owned::put(key(number), sequence, value(number, 20)))
            .collect();
        let (from, into, plain) = (MemoryFs::default(), MemoryFs::default(), MemoryFs::default());
        write(&from, &source, &options(blocks.0, compressions.0)).unwrap();
        let options = options(blocks.1, compressions.1);
        let mut turn = 0;
        let takes = || {
            turn += 1;
            refusals >> (turn % 64) & 1 == 0
        };
        let (meta, copied) = copy(&into, &open(&from, None).unwrap(), &others, &options, takes);
        prop_assert!(copied == 0 || compressions.0.name() == compressions.1.name());

        let merged: BTreeMap<_, _> = source.iter().chain(&others).map(|entry| (entry.key.clone(), entry)).collect();
        let merged: Vec<Owned> = merged.into_values().cloned().collect();
        let expected = write(&plain, &merged, &options).unwrap();
        prop_assert_eq!((&meta.smallest, &meta.largest), (&expected.smallest, &expected.largest));
        prop_assert_eq!(
            (meta.entries, meta.smallest_sequence, meta.largest_sequence),
            (expected.entries, expected.smallest_sequence, expected.largest_sequence)
        );
        prop_assert_eq!(
            (meta.raw_key_bytes, meta.raw_value_bytes),
            (expected.raw_key_bytes, expected.raw_value_bytes)
        );
        let open_with = |fs: &MemoryFs| {
            let open = TableOpen { prefix_extractor: options.prefix_extractor.clone(), ..TableOpen::default() };
            Table::open(fs, &path(), None, &open).unwrap()
        };
        let (table, plain) = (open_with(&into), open_with(&plain));
        prop_assert!(table.verify().is_ok());
        let (properties, expected) = (table.properties(), plain.properties());
        prop_assert_eq!(properties.distinct_keys, expected.distinct_keys);
        prop_assert_eq!(properties.largest_entry_bytes, expected.largest_entry_bytes);
        let mut cursor = table.cursor(CursorAccess::Cached);
        cursor.first();
        for entry in &merged {
            prop_assert_eq!(cursor.entry().map(Owned::from), Some(entry.clone()));
            cursor.next();
            let found = table.get(&entry.key, key_hash(&entry.key), SEQUENCE_MAX).unwrap();
            prop_assert_eq!(found.map(|found| found.value.to_vec()), Some(entry.value.clone()));
            prop_assert!(table.may_contain_prefix(&entry.key[..4]));
        }
        prop_assert!(cursor.entry().is_none() && cursor.error().is_none());
    }
}

/// Whether values of so many bytes are copied from a table with these options into one with those.
fn is_copied(bytes: usize, from: &TableOptions, into: &TableOptions) -> bool {
    let (source, target) = (MemoryFs::default(), MemoryFs::default());
    let written = write(&source, &settled(0..500, bytes), from).unwrap();
    let table = open(&source, None).unwrap();
    let blocks = table.properties().data_blocks;
    let (meta, copied) = copy(&target, &table, &[], into, || true);
    // The last block may have any size.
    let is_copied = copied > 1;
    assert!(!is_copied || (copied as u64 >= blocks - 1 && meta.file_bytes == written.file_bytes));
    is_copied
}

#[test]
fn blocks_are_copied_where_they_look_as_if_written_there() {
    let (lz4, plain) = (Compression::Lz4, Compression::None);
    assert!(is_copied(100, &options(4096, lz4), &options(4096, lz4)));
    assert!(is_copied(100, &options(4096, plain), &options(4096, plain)));
    // Blocks of one row each, larger than asked for.
    assert!(is_copied(20_000, &options(4096, lz4), &options(4096, lz4)));
    assert!(!is_copied(100, &options(4096, lz4), &options(4096, plain)));
    assert!(!is_copied(100, &options(4096, plain), &options(4096, lz4)));
    assert!(!is_copied(100, &options(1024, lz4), &options(4096, lz4)));
    assert!(!is_copied(100, &options(16_384, lz4), &options(4096, lz4)));
}

#[test]
fn a_block_is_shown_at_its_first_entry() {
    let fs = MemoryFs::default();
    let mut entries = settled(0..200, 100);
    entries[150].sequence = 7;
    write(&fs, &entries, &options(1000, Compression::Lz4)).unwrap();
    let table = open(&fs, None).unwrap();
    let mut cursor = table.cursor(CursorAccess::Sequential);
    assert!(cursor.table_block().is_none() && cursor.skip_block() == 0);
    cursor.first();
    let rows = cursor.block().unwrap().entries as usize;
    assert!((8..10).contains(&rows));
    assert_eq!(cursor.block().unwrap().last_key, key(rows as u32 - 1));
    cursor.next();
    assert!(cursor.table_block().is_none());
    cursor.seek(&key(rows as u32), SEQUENCE_MAX);
    assert_eq!(cursor.table_block().unwrap().first_key(), key(rows as u32));
    cursor.skip_block();
    assert_eq!(cursor.entry().unwrap().key, key(2 * rows as u32));
    // Its entries are not all without sequence number.
    let before = entries[..150].len() / rows * rows;
    cursor.seek(&key(before as u32), SEQUENCE_MAX);
    assert!(cursor.entry().is_some() && cursor.table_block().is_none());
    // The last block has nothing behind it.
    cursor.last();
    while cursor.table_block().is_none() {
        cursor.prev();
    }
    cursor.skip_block();
    assert!(cursor.entry().is_none() && cursor.error().is_none());
}

#[test]
fn a_block_out_of_order_is_refused() {
    let (source, target) = (MemoryFs::default(), MemoryFs::default());
    write(&source, &settled(0..200, 100), &options(1000, Compression::Lz4)).unwrap();
    let mut cursor = open(&source, None).unwrap().cursor(CursorAccess::Sequential);
    cursor.first();
    let options = options(1000, Compression::Lz4);
    let mut writer = TableWriter::create(&target, &path(), ID, &options).unwrap();
    writer.add(Owned::put(key(5), 0, value(5, 700)).entry()).unwrap();
    let refused = writer.add_block(&cursor.table_block().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("out of order"), "{refused}");
}
