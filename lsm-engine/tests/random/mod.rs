use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use lsm_engine::compaction_policies::{
    CompactionPolicy, Fifo, FifoOptions, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions,
    SizeTiered, SizeTieredOptions,
};
use lsm_engine::{BuiltInMerge, Compression, FixedPrefix, KeyspaceOptions};

use crate::reads::{Bytes, Model};

/// The merge operator of all keyspaces.
pub(crate) fn lists() -> BuiltInMerge {
    BuiltInMerge::append(",")
}

/// What a merge makes of a model.
pub(crate) fn merge(model: &mut Model, key: Bytes, operand: &[u8]) {
    let value = match model.get(&key) {
        Some(value) => [value, operand].join(&b','),
        None => operand.to_vec(),
    };
    model.insert(key, value);
}

/// Runs `LSM_SEEDS` seeds, starting with `LSM_SEED`. Returns how many.
pub(crate) fn each_seed(count: u64, run: impl Fn(u64)) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("LSM_SEED").unwrap_or(0);
    let count = number("LSM_SEEDS").unwrap_or(count);
    for seed in first..first + count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("LSM_SEED={seed} LSM_SEEDS=1 repeats this");
            resume_unwind(panic);
        }
    }
    count
}

/// `SplitMix64`.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    /// Mostly one of a few hundred keys with a common prefix, so that they get many versions. Sometimes an odd key.
    pub(crate) fn key(&mut self) -> Bytes {
        match self.below(12) {
            0 => (0..self.below(3)).map(|_| [0, b'k', b'l', 0xff][self.below(4)]).collect(),
            1 => format!("key-with-a-long-common-prefix{:02}", self.below(30)).into_bytes(),
            _ => format!("key{:03}", self.below(200)).into_bytes(),
        }
    }

    /// Mostly a few bytes, sometimes up to the given length.
    pub(crate) fn value(&mut self, bytes_max: usize) -> Bytes {
        let bytes = if self.one_in(14) { self.below(bytes_max) } else { self.below(50) };
        let first = self.next() as u8;
        (0..bytes).map(|at| first.wrapping_add((at * at) as u8)).collect()
    }

    pub(crate) fn range(&mut self) -> (Bytes, Bytes) {
        let start = self.key();
        let end = if self.one_in(2) {
            self.key()
        } else {
            let mut end = start.clone();
            end.push(b'5');
            end
        };
        (start.clone().min(end.clone()), start.max(end))
    }

    /// Tables and levels so small that a few hundred writes fill several.
    pub(crate) fn keyspace_options(&mut self) -> KeyspaceOptions {
        let mut options = KeyspaceOptions::new()
            .block_bytes(256 << self.below(3))
            .compaction(self.policy())
            .merge_operator(Arc::new(lists()));
        if self.one_in(2) {
            options = options.prefix_extractor(Arc::new(FixedPrefix { bytes: 3 + self.below(3) }));
        }
        if self.one_in(2) {
            options = options.compression(Compression::None);
        }
        if self.one_in(4) {
            options = options.filter_bits_per_key(0.0);
        }
        options
    }

    pub(crate) fn policy(&mut self) -> Arc<dyn CompactionPolicy> {
        let target_table_bytes = 500 + self.below(2500) as u64;
        let hidden_percent_max = [1, 20, 101][self.below(3)];
        match self.below(4) {
            0 => Arc::new(SizeTiered::new(SizeTieredOptions {
                runs_max: 2 + self.below(4),
                target_table_bytes,
                hidden_percent_max,
                ..SizeTieredOptions::default()
            })),
            1 => Arc::new(LazyLeveled::new(LazyLeveledOptions {
                level_count: 3 + self.below(3),
                level0_runs_max: 2 + self.below(3),
                base_bytes: 4000,
                runs_max: 2 + self.below(3),
                target_table_bytes,
                compaction_bytes_max: 20_000,
                hidden_percent_max,
                ..LazyLeveledOptions::default()
            })),
            // No history lasts that long.
            2 if self.one_in(3) => Arc::new(Fifo::new(FifoOptions {
                time_to_live_micros: 100 * 24 * 3_600_000_000,
                ..FifoOptions::default()
            })),
            _ => Arc::new(Leveled::new(LeveledOptions {
                level_count: 3 + self.below(4),
                level0_runs_max: 1 + self.below(4),
                base_bytes: 4000,
                fanout: 2 + self.below(3) as u64,
                target_table_bytes,
                compaction_bytes_max: 20_000,
                tombstone_age_micros_max: if self.one_in(2) { 3_000 } else { u64::MAX },
                hidden_percent_max,
                ..LeveledOptions::default()
            })),
        }
    }
}
