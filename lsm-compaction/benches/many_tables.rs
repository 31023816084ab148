//! What it costs to ask a policy about trees of 1,600 to 160,000 tables, of which there is nothing but metadata, and to
//! carry a merge out.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lsm_compaction::{
    CompactionPolicy, Fifo, FifoOptions, LazyLeveled, LazyLeveledOptions, LevelShape, Leveled, RunShape,
    SizeTiered, TableShape, TreeShape, small_tables, validate,
};
use lsm_core::Slice;

const TABLE_BYTES: u64 = 64 << 20;
const TABLES: [u64; 3] = [1_600, 16_000, 160_000];

/// Makes tables with ids of their own, and sizes and bounds that look random but are the same each time.
struct Maker {
    next_id: u64,
    random: u64,
}

impl Maker {
    fn random(&mut self, end: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % end.max(1)
    }

    /// A run of `count` tables side by side all over the key space.
    fn run(&mut self, count: u64, with_tombstones: bool) -> RunShape {
        let width = u64::MAX / count;
        let mut ends: Vec<u64> =
            (1..count).map(|index| index * width - self.random(1 << 31) % (width / 2)).collect();
        ends.push(u64::MAX);
        let mut start = 0;
        let mut tables = Vec::new();
        for end in ends {
            tables.push(Arc::new(TableShape {
                id: 0,
                smallest: key(start),
                largest: key(end - 1),
                bytes: TABLE_BYTES - self.random(TABLE_BYTES / 2),
                entries: 500_000,
                tombstones: if with_tombstones { 1 + self.random(20_000) } else { 0 },
                created_micros: 1_000_000,
                ..TableShape::default()
            }));
            start = end;
        }
        // Ids in an order of their own, as after many merges.
        for _ in 0..count {
            let index = self.random(count) as usize;
            self.next_id += 1;
            Arc::make_mut(&mut tables[index]).id = self.next_id;
        }
        for table in tables.iter_mut().filter(|table| table.id == 0) {
            self.next_id += 1;
            Arc::make_mut(table).id = self.next_id;
        }
        run_of(tables)
    }
}

fn run_of(tables: Vec<Arc<TableShape>>) -> RunShape {
    RunShape::new(tables)
}

fn key(number: u64) -> Slice {
    let mut key = *b"user/00000000000";
    key[5..13].copy_from_slice(&number.to_be_bytes());
    Slice::from(&key)
}

/// A tree of seven levels with one run each, tenfold from level to level, the last but one `percent` full; flushed runs
/// in level 0.
fn leveled(tables: u64, percent: u64, with_tombstones: bool) -> TreeShape {
    let mut maker = Maker { next_id: 0, random: 7 };
    let mut shape = TreeShape::empty(7);
    let policy = Leveled::default();
    shape.levels[6].runs = vec![maker.run(tables * 9 / 10, with_tombstones)];
    let bytes_max = policy.level_bytes_max(&shape);
    for level in (1..6).rev().filter(|level| bytes_max[*level] > 0) {
        let percent = if level == 5 { percent } else { 90 };
        let count = (bytes_max[level] / (TABLE_BYTES * 3 / 4) * percent / 100).max(1);
        shape.levels[level].runs = vec![maker.run(count, with_tombstones)];
    }
    shape.levels[0].runs = (0..3).map(|_| maker.run(1, with_tombstones)).collect();
    shape.now_micros = 2_000_000;
    shape
}

/// Tiers above one last level; the lowest one is `full` or not.
fn lazy_leveled(tables: u64, full: bool) -> TreeShape {
    let mut maker = Maker { next_id: 0, random: 7 };
    let mut shape = TreeShape::empty(7);
    shape.levels[6].runs = vec![maker.run(tables / 2, false)];
    let runs = 8;
    let parts = if full { 2 } else { 8 };
    shape.levels[5].runs = (0..runs).map(|_| maker.run((tables / 2 / runs / parts).max(1), false)).collect();
    shape
}

/// Runs that double in size.
fn size_tiered(tables: u64) -> TreeShape {
    let mut maker = Maker { next_id: 0, random: 7 };
    let mut shape = TreeShape::empty(3);
    shape.levels[2].runs = vec![maker.run(tables / 2, true)];
    shape.levels[1].runs = (2..7).rev().map(|level| maker.run((tables >> level).max(1), true)).collect();
    shape
}

fn fifo(tables: u64) -> TreeShape {
    let mut maker = Maker { next_id: 0, random: 7 };
    let runs = (0..tables).map(|_| maker.run(1, false)).collect();
    TreeShape { levels: vec![LevelShape { runs }], ..TreeShape::default() }
}

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    let fifo_policy = Fifo::new(FifoOptions { bytes_max: u64::MAX, ..FifoOptions::default() });
    let lazy = LazyLeveled::new(LazyLeveledOptions {
        compaction_bytes_max: 1600 << 20,
        ..LazyLeveledOptions::default()
    });
    for tables in TABLES {
        let cases: [(&str, &dyn CompactionPolicy, TreeShape, bool); 7] = [
            ("leveled, at rest", &Leveled::default(), leveled(tables, 90, false), false),
            ("leveled, at rest, with tombstones", &Leveled::default(), leveled(tables, 90, true), false),
            ("leveled, a level too full", &Leveled::default(), leveled(tables, 120, false), true),
            ("lazy-leveled, at rest", &lazy, lazy_leveled(tables, false), false),
            ("lazy-leveled, a tier too full", &lazy, lazy_leveled(tables, true), true),
            ("size-tiered, at rest, with tombstones", &SizeTiered::default(), size_tiered(tables), false),
            ("fifo, at rest", &fifo_policy, fifo(tables), false),
        ];
        for (name, policy, shape, picks) in cases {
            assert_eq!(policy.pick(&shape).is_some(), picks, "{name}, {tables} tables");
            group.bench_with_input(BenchmarkId::new(name, tables), &shape, |bencher, shape| {
                bencher.iter(|| black_box(policy.pick(shape)));
            });
            group.bench_with_input(
                BenchmarkId::new(format!("debt of {name}"), tables),
                &shape,
                |bencher, shape| {
                    bencher.iter(|| black_box(policy.debt_bytes(shape)));
                },
            );
        }
    }
    group.finish();
}

fn around_picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("around");
    for tables in TABLES {
        let shape = leveled(tables, 120, false);
        let compaction = Leveled::default().pick(&shape).expect("a level is too full");
        group.bench_with_input(BenchmarkId::new("validate a pick", tables), &shape, |bencher, shape| {
            bencher.iter(|| validate(black_box(shape), &compaction).is_ok());
        });
        group.bench_with_input(
            BenchmarkId::new("look for small tables", tables),
            &shape,
            |bencher, shape| {
                bencher.iter(|| small_tables(black_box(shape), |bytes, _| bytes <= TABLE_BYTES));
            },
        );
        let outputs: Vec<_> =
            compaction.input_tables(&shape).iter().map(|input| Arc::clone(input.table)).collect();
        group.bench_with_input(
            BenchmarkId::new("the shape after a merge", tables),
            &shape,
            |bencher, shape| {
                bencher.iter(|| {
                    let mut shape = shape.clone();
                    shape.apply(&compaction, outputs.clone());
                    shape
                });
            },
        );
        let mut flushed = TreeShape::empty(7);
        let mut maker = Maker { next_id: 1 << 40, random: 9 };
        flushed.levels[0].runs = vec![maker.run(1, false)];
        group.bench_with_input(
            BenchmarkId::new("the shape after a flush", tables),
            &shape,
            |bencher, shape| {
                bencher.iter(|| {
                    let mut shape = shape.clone();
                    shape.levels[0].runs.insert(0, flushed.levels[0].runs[0].clone());
                    shape
                });
            },
        );
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(std::time::Duration::from_millis(200)).measurement_time(std::time::Duration::from_millis(600));
    targets = picks, around_picks
}
criterion_main!(benches);
