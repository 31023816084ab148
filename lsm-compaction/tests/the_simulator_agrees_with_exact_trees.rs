//! Small workloads played twice: by the simulator with expected numbers, and on a tree with real keys.

mod tree;

use lsm_compaction::simulator::{KeyDistribution, Report, Workload, simulate};
use lsm_compaction::{
    CompactionPolicy, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions, SizeTiered, SizeTieredOptions,
};
use lsm_dev::Random;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tree::{Garbage, Tree};

const KEYS: u64 = 12_000;
const MEMTABLE: u64 = 400;
const TABLE_BYTES: u64 = 100;

fn policies() -> Vec<Box<dyn CompactionPolicy>> {
    vec![
        Box::new(Leveled::new(LeveledOptions {
            base_bytes: 4 * MEMTABLE,
            target_table_bytes: TABLE_BYTES,
            compaction_bytes_max: 25 * TABLE_BYTES,
            tombstone_percent_max: 101,
            ..LeveledOptions::default()
        })),
        Box::new(LazyLeveled::new(LazyLeveledOptions {
            base_bytes: 4 * MEMTABLE,
            runs_max: 4,
            target_table_bytes: TABLE_BYTES,
            compaction_bytes_max: 25 * TABLE_BYTES,
            ..LazyLeveledOptions::default()
        })),
        Box::new(SizeTiered::new(SizeTieredOptions {
            target_table_bytes: TABLE_BYTES,
            ..SizeTieredOptions::default()
        })),
    ]
}

/// `true` with this probability.
fn chance(random: &mut Random, share: f64) -> bool {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64 <= share && share > 0.0
}

/// The keys that a workload writes, one after the other.
struct Writes {
    random: Random,
    workload: Workload,
    /// All keys in the order of insertion, and of falling popularity within `ranks`.
    order: Vec<u16>,
    rank_of: Vec<u64>,
    inserted: usize,
    cumulative: Vec<f64>,
    by_rank: Vec<u16>,
    puts: u64,
    deletes: u64,
}

impl Writes {
    fn new(workload: &Workload, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut order: Vec<u16> = (0..workload.keys).map(|key| u16::try_from(key).unwrap()).collect();
        let mut shuffle = |keys: &mut Vec<u16>| {
            for index in (1..keys.len()).rev() {
                keys.swap(index, random.below(index + 1));
            }
        };
        let mut by_rank = order.clone();
        if workload.distribution != KeyDistribution::Sequential {
            shuffle(&mut order);
            shuffle(&mut by_rank);
        }
        let exponent = match workload.distribution {
            KeyDistribution::Zipf { exponent } => exponent,
            _ => 0.0,
        };
        let mut sum = 0.0;
        let weight = |rank: u64| (rank as f64).powf(-exponent);
        let cumulative = (1..=workload.keys).map(|rank| {
            sum += weight(rank);
            sum
        });
        let cumulative = cumulative.collect();
        let mut rank_of = vec![0; by_rank.len()];
        for (index, key) in order.iter().enumerate() {
            rank_of[usize::from(*key)] = index as u64;
        }
        Self {
            random,
            workload: workload.clone(),
            order,
            rank_of,
            inserted: 0,
            cumulative,
            by_rank,
            puts: 0,
            deletes: 0,
        }
    }

    fn existing(&mut self) -> u16 {
        loop {
            let total = *self.cumulative.last().unwrap();
            let point = (self.random.next() >> 11) as f64 / (1_u64 << 53) as f64 * total;
            let rank = self.cumulative.partition_point(|sum| *sum <= point).min(self.by_rank.len() - 1);
            let key = self.by_rank[rank];
            if self.rank_of[usize::from(key)] < self.inserted as u64 {
                return key;
            }
        }
    }

    fn next(&mut self) -> (u16, bool) {
        let delete = chance(&mut self.random, self.workload.delete_share);
        if self.workload.distribution == KeyDistribution::Sequential {
            self.deletes = self.deletes.max(self.puts.saturating_sub(self.workload.keys));
            let counter = if delete && self.deletes < self.puts { &mut self.deletes } else { &mut self.puts };
            let key = self.order[usize::try_from(*counter % self.workload.keys).unwrap()];
            *counter += 1;
            return (key, delete);
        }
        let insert =
            !chance(&mut self.random, self.workload.overwrite_share / (1.0 - self.workload.delete_share));
        if self.inserted == 0 || !delete && insert && self.inserted < self.order.len() {
            self.inserted += 1;
            return (self.order[self.inserted - 1], false);
        }
        (self.existing(), delete)
    }
}

struct Exact {
    write_amplification: f64,
    bytes_peak: f64,
    live_bytes: f64,
}

fn play(policy: &dyn CompactionPolicy, workload: &Workload, seed: u64) -> Exact {
    let mut tree = Tree::new(policy.level_count(), Garbage::Collect, false);
    let mut writes = Writes::new(workload, seed);
    let mut peak = 0;
    for _ in 0..workload.bytes_written / workload.memtable_bytes {
        let batch: Vec<_> = (0..workload.memtable_bytes).map(|_| writes.next()).collect();
        tree.flush(&batch, u64::MAX);
        while let Some(compaction) = policy.pick(&tree.shape) {
            let (before, written) = (tree.shape.bytes(), tree.written_bytes);
            tree.start(compaction);
            tree.finish(0);
            peak = peak.max(before + tree.written_bytes - written);
        }
    }
    tree.check();
    Exact {
        write_amplification: tree.written_bytes as f64 / workload.bytes_written as f64,
        bytes_peak: peak as f64,
        live_bytes: tree.live_keys() as f64,
    }
}

fn workload(distribution: KeyDistribution, overwrites: f64, deletes: f64, tenths: u64) -> Workload {
    Workload {
        keys: KEYS,
        distribution,
        // One byte a write, as in the exact tree.
        key_bytes: 1,
        value_bytes: 0,
        overwrite_share: overwrites,
        delete_share: deletes,
        bytes_written: KEYS * tenths / 10 / MEMTABLE * MEMTABLE,
        memtable_bytes: MEMTABLE,
        ..Workload::default()
    }
}

fn compare(workload: &Workload, seed: u64) -> Result<(), TestCaseError> {
    for policy in policies() {
        let report: Report = simulate(&*policy, workload);
        prop_assert_eq!(&report.stopped, &None);
        prop_assert_eq!(&report, &simulate(&*policy, workload), "the same every time");
        let exact = play(&*policy, workload, seed);
        let close = |name: &str, simulated: f64, exact: f64, tolerance: f64| {
            prop_assert!(
                (simulated - exact).abs() <= tolerance * exact.max(1.0),
                "{} of {}: simulated {simulated:.3}, exact {exact:.3}",
                name,
                policy.name()
            );
            Ok(())
        };
        // How the tables of several runs happen to lie beside each other matters most to pieces of tiers.
        let tolerance = if policy.name() == "lazy-leveled" { 0.3 } else { 0.25 };
        close("write amplification", report.write_amplification, exact.write_amplification, tolerance)?;
        close("live bytes", report.bytes_live as f64, exact.live_bytes, 0.03)?;
        // Whether one more merge of everything comes before the end is a matter of luck.
        let tolerance = if policy.name() == "size-tiered" { 0.4 } else { 0.25 };
        close("most bytes on disk", report.bytes_peak as f64, exact.bytes_peak, tolerance)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 5,
        max_shrink_iters: 4,
        // Expectations hold on average: a fixed seed, so that no unlucky case fails a run now and then.
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn on_write_amplification_live_and_total_bytes(
        distribution in prop_oneof![
            2 => Just(KeyDistribution::Uniform),
            2 => (0.3..1.2_f64).prop_map(|exponent| KeyDistribution::Zipf { exponent }),
            1 => Just(KeyDistribution::Sequential),
        ],
        overwrites in 0.0..0.6_f64,
        deletes in prop_oneof![Just(0.0), 0.0..0.3_f64],
        tenths in 30..60_u64,
        seed in any::<u64>(),
    ) {
        compare(&workload(distribution, overwrites, deletes, tenths), seed)?;
    }
}
