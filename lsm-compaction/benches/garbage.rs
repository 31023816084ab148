//! The cost of the garbage rules over that of the merge alone, for 100,000 rows from four sources.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lsm_compaction::{CompactionStream, GarbageRules};
use lsm_core::range_tombstone::{FragmentedRangeTombstones, RangeTombstone};
use lsm_core::{Cursor, MergingCursor};
use lsm_dev::Rows;

const ROW_COUNT: u64 = 100_000;

fn key(number: u64) -> [u8; Rows::KEY_BYTES] {
    let mut key = [b'k'; Rows::KEY_BYTES];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// Four sources of 25,000 rows; a key has `versions` of them.
fn sources(versions: u64) -> Vec<Rows> {
    (0..4)
        .map(|source| {
            let mut rows: Vec<([u8; Rows::KEY_BYTES], u64)> = (0..ROW_COUNT / 4)
                .map(|row| (key((row * 4 + source) / versions), 1 + row * 4 + source))
                .collect();
            rows.sort_by_key(|(key, sequence)| (*key, std::cmp::Reverse(*sequence)));
            let mut source = Rows::default();
            for (key, sequence) in rows {
                source.push(key, sequence);
            }
            source
        })
        .collect()
}

fn garbage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("garbage");
    group.throughput(Throughput::Elements(ROW_COUNT)).sample_size(20);
    let tombstones: Vec<_> = (0..1000_u64)
        .map(|number| RangeTombstone {
            start: (&(number << 54).to_be_bytes()).into(),
            end: (&((number << 54) + (1 << 53)).to_be_bytes()).into(),
            sequence: number * 100,
        })
        .collect();
    let tombstones = Arc::new(FragmentedRangeTombstones::new(tombstones));
    let none = Arc::new(FragmentedRangeTombstones::empty());
    let bottom = || GarbageRules {
        snapshots: vec![ROW_COUNT + 1],
        bottommost: true,
        zero_sequences: true,
        ..GarbageRules::default()
    };
    let middle = || GarbageRules { snapshots: vec![ROW_COUNT / 2, ROW_COUNT + 1], ..GarbageRules::default() };
    for versions in [1, 4] {
        group.bench_function(BenchmarkId::new("merge alone", versions), |b| {
            let mut merged = MergingCursor::new(sources(versions));
            b.iter(|| {
                let mut bytes = 0;
                merged.first();
                while let Some(entry) = merged.entry() {
                    bytes += entry.key.len() + entry.value.len();
                    merged.next();
                }
                black_box(bytes)
            });
        });
        let cases = [
            ("bottommost", bottom(), &none),
            ("middle, one snapshot", middle(), &none),
            ("middle, 1000 range tombstones", middle(), &tombstones),
        ];
        for (name, rules, tombstones) in cases {
            group.bench_function(BenchmarkId::new(name, versions), |b| {
                let rows = sources(versions);
                b.iter(|| {
                    let merged = MergingCursor::new(rows.clone());
                    let mut stream = CompactionStream::new(merged, Arc::clone(tombstones), rules.clone());
                    let mut bytes = 0;
                    while let Some(entry) = stream.next().expect("memory does not fail") {
                        bytes += entry.key.len() + entry.value.len();
                    }
                    black_box(bytes)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, garbage);
criterion_main!(benches);
