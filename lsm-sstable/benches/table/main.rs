//! One table of a million entries: 16 random key bytes, 100 value bytes half of which LZ4 removes.
//!
//! Where a time is for the whole table, one millisecond of it is one nanosecond an entry.

mod write_only_fs;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use lsm_core::hash::key_hash;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_core::{Cursor, Entry, SEQUENCE_MAX, ValueKind};
use lsm_dev::Layer;
use lsm_sstable::{
    BlockCache, BloomFilter, Compression, CursorAccess, FilterPolicy, Table, TableId, TableMeta, TableOpen,
    TableOptions, TableWriter,
};
use write_only_fs::WriteOnlyFs;

const ENTRIES: u64 = 1_000_000;
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 100;

/// The mixing step of `SplitMix64`.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&scramble(number).to_be_bytes());
    key[8..].copy_from_slice(&scramble(!number).to_be_bytes());
    key
}

fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for (chunk, salt) in value[..50].chunks_mut(8).zip(0_u64..) {
        chunk.copy_from_slice(&scramble(number << 8 | salt).to_le_bytes()[..chunk.len()]);
    }
    value.copy_within(..50, 50);
    value
}

struct Data {
    keys: Vec<[u8; KEY_BYTES]>,
    values: Vec<[u8; VALUE_BYTES]>,
}

impl Data {
    fn new() -> Self {
        let mut keys: Vec<_> = (0..ENTRIES).map(key).collect();
        keys.sort_unstable();
        Self { keys, values: (0..ENTRIES).map(value).collect() }
    }

    fn write(&self, vfs: &dyn Vfs, path: &Path, compression: Compression, sequence: u64) -> TableMeta {
        let options = TableOptions { compression, ..TableOptions::default() };
        let mut writer = TableWriter::create(vfs, path, TableId(u128::from(scramble(7))), &options).unwrap();
        for (number, (key, value)) in (0_u64..).zip(self.keys.iter().zip(&self.values)) {
            // Sequence numbers of a memtable: a random permutation, more or less.
            let sequence = if sequence == 0 { 0 } else { sequence + scramble(number) % ENTRIES };
            writer.add(Entry { key, sequence, kind: ValueKind::Put, value }).unwrap();
        }
        writer.finish().unwrap()
    }
}

fn build(group: &mut BenchmarkGroup<'_, WallTime>, data: &Data, directory: &Path) {
    let path = directory.join("built.sst");
    for (name, compression) in [("none", Compression::None), ("lz4", Compression::Lz4)] {
        for (how, vfs, sequence) in [
            ("to nowhere", &Layer(WriteOnlyFs::Discard) as &dyn Vfs, 1000),
            ("to the page cache", &Layer(WriteOnlyFs::PageCache), 1000),
            ("synced", &PosixFs, 1000),
            ("synced, bottom", &PosixFs, 0),
        ] {
            group.bench_function(format!("build {name}, {how}"), |bencher| {
                bencher.iter_batched(
                    || drop(PosixFs.remove_file(&path)),
                    |()| data.write(vfs, &path, compression, sequence),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

fn open(path: &Path, cache: Option<Arc<BlockCache>>) -> Arc<Table> {
    Table::open(&PosixFs, path, cache, &TableOpen::default()).unwrap()
}

/// Gets one random present key after the other, each chosen by what the one before found.
fn get(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, table: &Table) {
    let mut number = 1_u64;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            // Made, not loaded: a cold array of keys would be a cache miss of its own.
            let key = key(number % ENTRIES);
            let found = table.get(&key, key_hash(&key), SEQUENCE_MAX).unwrap().unwrap();
            number = scramble(number ^ u64::from(found.value[0]));
        });
    });
}

fn reads(group: &mut BenchmarkGroup<'_, WallTime>, data: &Data, files: &[(&str, PathBuf)]) {
    for (name, path) in files {
        let cache = BlockCache::new(256 << 20);
        let table = open(path, Some(Arc::clone(&cache)));
        for key in &data.keys {
            table.get(key, key_hash(key), SEQUENCE_MAX).unwrap().unwrap();
        }
        get(group, &format!("get, {name}, all cached"), &table);
        let small = BlockCache::new(cache.used_bytes() * 45 / 100);
        let table45 = open(path, Some(small));
        for number in 0..4 * ENTRIES {
            let key = &data.keys[(scramble(number) % ENTRIES) as usize];
            table45.get(key, key_hash(key), SEQUENCE_MAX).unwrap().unwrap();
        }
        get(group, &format!("get, {name}, 45 % cached"), &table45);
        get(group, &format!("get, {name}, no cache"), &open(path, None));
        get_absent(group, &format!("get absent, {name}"), &table);
        seek(group, &format!("seek and 10 entries, {name}, all cached"), &table);
        let uncached = open(path, None);
        seek(group, &format!("seek and 10 entries, {name}, no cache"), &uncached);
        group.bench_function(format!("open, {name}"), |bencher| {
            bencher.iter(|| black_box(open(path, Some(Arc::clone(&cache)))));
        });
    }
}

/// Reads all entries and touches the first byte of each value.
fn walk(cursor: &mut impl Cursor, forward: bool) -> u64 {
    let mut sum = 0;
    if forward {
        cursor.first();
    } else {
        cursor.last();
    }
    while let Some(entry) = cursor.entry() {
        sum += u64::from(entry.value[0]) + entry.sequence;
        if forward {
            cursor.next();
        } else {
            cursor.prev();
        }
    }
    assert!(cursor.error().is_none());
    sum
}

fn scans(group: &mut BenchmarkGroup<'_, WallTime>, data: &Data, files: &[(&str, PathBuf)]) {
    for (name, path) in files {
        let table = open(path, Some(BlockCache::new(256 << 20)));
        for (how, access) in
            [("sequential", CursorAccess::Sequential), ("cached access, no cache", CursorAccess::Cached)]
        {
            let mut cursor = table.cursor(access);
            group.bench_function(format!("scan, {name}, {how}"), |bencher| {
                bencher.iter(|| walk(&mut cursor, true));
            });
        }
        let mut cursor = table.cursor(CursorAccess::Sequential);
        group.bench_function(format!("scan backwards, {name}, sequential"), |bencher| {
            bencher.iter(|| walk(&mut cursor, false));
        });
        for key in &data.keys {
            table.get(key, key_hash(key), SEQUENCE_MAX).unwrap().unwrap();
        }
        let mut cursor = table.cursor(CursorAccess::Cached);
        group.bench_function(format!("scan, {name}, all cached"), |bencher| {
            bencher.iter(|| walk(&mut cursor, true));
        });
        group.bench_function(format!("scan backwards, {name}, all cached"), |bencher| {
            bencher.iter(|| walk(&mut cursor, false));
        });
    }
}

/// Reads of a table whose index and filter are not in memory. Everything comes from the page cache.
fn unpinned(group: &mut BenchmarkGroup<'_, WallTime>, files: &[(&str, PathBuf)]) {
    for (name, path) in files {
        let how = TableOpen { pinned_bytes_max: 0, ..TableOpen::default() };
        let table = Table::open(&PosixFs, path, None, &how).unwrap();
        println!("{name}, unpinned: {} bytes of memory", table.pinned_bytes());
        get(group, &format!("get, {name}, unpinned"), &table);
        get_absent(group, &format!("get absent, {name}, unpinned"), &table);
        seek(group, &format!("seek and 10 entries, {name}, unpinned"), &table);
        group.bench_function(format!("open, {name}, unpinned"), |bencher| {
            bencher.iter(|| black_box(Table::open(&PosixFs, path, None, &how).unwrap()));
        });
        let mut cursor = table.cursor(CursorAccess::Sequential);
        group.bench_function(format!("scan of 1 M entries, {name}, unpinned, sequential"), |bencher| {
            bencher.iter(|| walk(&mut cursor, true));
        });
    }
}

fn get_absent(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, table: &Table) {
    let mut number = ENTRIES;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            number += 1;
            let key = key(number);
            black_box(table.get(&key, key_hash(&key), SEQUENCE_MAX).unwrap())
        });
    });
}

fn seek(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, table: &Arc<Table>) {
    let mut number = ENTRIES;
    let mut cursor = table.cursor(CursorAccess::Cached);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            number = scramble(number);
            cursor.seek(&key(number % ENTRIES), SEQUENCE_MAX);
            for _ in 0..10 {
                black_box(cursor.entry());
                cursor.next();
            }
        });
    });
}

fn filters(group: &mut BenchmarkGroup<'_, WallTime>) {
    let policy = BloomFilter::default();
    let hashes: Vec<u64> = (0..ENTRIES).map(scramble).collect();
    group.bench_function("filter build, 1 M keys", |bencher| bencher.iter(|| policy.build(&hashes)));
    let filter = policy.build(&hashes);
    let mut number = ENTRIES;
    group.bench_function("filter, absent", |bencher| {
        bencher.iter(|| {
            number += 1;
            policy.may_contain(&filter, scramble(number))
        });
    });
}

fn benches(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let data = Data::new();
    let files = [("none", Compression::None), ("lz4", Compression::Lz4)].map(|(name, compression)| {
        let path = directory.path().join(format!("{name}.sst"));
        let meta = data.write(&PosixFs, &path, compression, 1000);
        println!("{name}: {:.1} bytes an entry", meta.file_bytes as f64 / ENTRIES as f64);
        (name, path)
    });

    let mut group = criterion.benchmark_group("table");
    reads(&mut group, &data, &files);
    unpinned(&mut group, &files);
    filters(&mut group);
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES));
    scans(&mut group, &data, &files);
    build(&mut group, &data, directory.path());
    group.finish();
}

criterion_group!(group, benches);
criterion_main!(group);
