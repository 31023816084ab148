//! Looking up and adding range tombstones.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lsm_core::range_tombstone::{FragmentedRangeTombstones, RangeTombstone, RangeTombstoneSet};
use lsm_core::{SEQUENCE_MAX, Slice};

fn key(number: u32) -> [u8; 16] {
    let mut key = *b"user000000000000";
    key[4..8].copy_from_slice(&number.to_be_bytes());
    key
}

/// Short ranges all over, now and then a long one.
fn tombstones(count: u32) -> Vec<RangeTombstone> {
    (1..=count)
        .map(|sequence| {
            let start = sequence.wrapping_mul(2_654_435_769);
            let end = start.saturating_add(if sequence % 100 == 0 { 1 << 24 } else { 1 << 12 });
            let (start, end) = (Slice::from(&key(start)), Slice::from(&key(end)));
            RangeTombstone { start, end, sequence: sequence.into() }
        })
        .collect()
}

fn range_tombstones(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("range tombstones");
    for count in [0, 10, 1000, 100_000] {
        let list = FragmentedRangeTombstones::new(tombstones(count));
        let set = RangeTombstoneSet::new();
        for tombstone in tombstones(count) {
            set.insert(tombstone).expect("in order");
        }
        println!("{count} tombstones: list {} bytes, set {} bytes", list.memory_bytes(), set.memory_bytes());
        let mut number = 1_u32;
        group.bench_function(BenchmarkId::new("covering_sequence, fragmented", count), |b| {
            b.iter(|| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                black_box(list.covering_sequence(&key(number), SEQUENCE_MAX))
            });
        });
        group.bench_function(BenchmarkId::new("covering_sequence, set", count), |b| {
            b.iter(|| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                black_box(set.covering_sequence(&key(number), SEQUENCE_MAX))
            });
        });
        group.bench_function(BenchmarkId::new("covering_sequence of old, set", count), |b| {
            b.iter(|| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                black_box(set.covering_sequence(&key(number), u64::from(count / 2)))
            });
        });
    }
    for count in [1000, 100_000] {
        group.throughput(Throughput::Elements(count.into())).sample_size(10);
        group.bench_function(BenchmarkId::new("insert, set", count), |b| {
            b.iter_batched(
                || tombstones(count),
                |tombstones| {
                    let set = RangeTombstoneSet::new();
                    for tombstone in tombstones {
                        set.insert(tombstone).expect("in order");
                    }
                    set
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, range_tombstones);
criterion_main!(benches);
