//! Merging in-memory sources: this loser tree beside `BinaryHeap`. Figures are per 100,000 rows.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lsm_core::{Cursor, MergingCursor};
use lsm_dev::Rows;

const ROW_COUNT: usize = 100_000;

/// What a heap compares: keys, smallest on top.
struct Peer(Rows);

impl Ord for Peer {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0.entry(), other.0.entry()) {
            (Some(left), Some(right)) => right.compare(left.key, left.sequence),
            (left, right) => left.is_some().cmp(&right.is_some()),
        }
    }
}
impl PartialOrd for Peer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Peer {}

/// Deals sorted rows out over sources: `shares[i]` of the sum goes to source `i`, at random.
fn deal(shares: &[u32], prefix: &[u8]) -> Vec<Rows> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut keys: Vec<u64> = (0..ROW_COUNT).map(|_| random()).collect();
    keys.sort_unstable();
    let total: u32 = shares.iter().sum();
    let mut sources = vec![Rows::default(); shares.len()];
    for key in keys {
        let mut ticket = (random() % u64::from(total)) as u32;
        let mut source = 0;
        while ticket >= shares[source] {
            ticket -= shares[source];
            source += 1;
        }
        let mut row = [7; Rows::KEY_BYTES];
        row[..prefix.len()].copy_from_slice(prefix);
        row[prefix.len()..prefix.len() + 8].copy_from_slice(&key.to_be_bytes());
        sources[source].push(row, 1);
    }
    sources
}

fn walk(cursor: &mut impl Cursor) -> u64 {
    let mut sum = 0;
    cursor.first();
    while let Some(entry) = cursor.entry() {
        sum += u64::from(entry.key[0]) + u64::from(entry.value[50]);
        cursor.next();
    }
    sum
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(ROW_COUNT as u64)).sample_size(20);
    let shapes: [(&str, &[u32]); 8] = [
        ("1", &[1]),
        ("2", &[1; 2]),
        ("3", &[1; 3]),
        ("4", &[1; 4]),
        ("8", &[1; 8]),
        ("16", &[1; 16]),
        ("3 of 1-9-90 percent", &[1, 9, 90]),
        ("8 of a tree", &[1, 1, 1, 1, 1, 10, 100, 1000]),
    ];
    for (name, shares) in shapes {
        let sources = deal(shares, b"");
        let mut cursor = MergingCursor::new(sources.clone());
        group.bench_function(BenchmarkId::new("loser tree", name), |b| {
            b.iter(|| black_box(walk(&mut cursor)));
        });
        let prefixed = deal(shares, b"user123");
        let mut cursor = MergingCursor::with_prefix(prefixed.clone(), b"user123");
        group.bench_function(BenchmarkId::new("loser tree, prefix", name), |b| {
            b.iter(|| black_box(walk(&mut cursor)));
        });
        let mut boxed: MergingCursor<Box<dyn Cursor>> = MergingCursor::new(
            sources.clone().into_iter().map(|source| Box::new(source) as Box<dyn Cursor>).collect(),
        );
        group.bench_function(BenchmarkId::new("loser tree, dyn", name), |b| {
            b.iter(|| black_box(walk(&mut boxed)));
        });
        group.bench_function(BenchmarkId::new("binary heap", name), |b| {
            b.iter_batched(
                || sources.clone().into_iter().map(Peer).collect::<BinaryHeap<_>>(),
                |mut heap| {
                    let mut sum = 0;
                    while let Some(mut top) = heap.peek_mut() {
                        let Some(entry) = top.0.entry() else {
                            break;
                        };
                        sum += u64::from(entry.key[0]) + u64::from(entry.value[50]);
                        top.0.next();
                    }
                    black_box(sum)
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
