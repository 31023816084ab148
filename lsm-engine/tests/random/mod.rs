use std::sync::Arc;

pub(crate) use lsm_dev::{Random, each_seed};
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

/// What random histories draw.
pub(crate) trait Draw {
    /// Mostly one of a few hundred keys with a common prefix, so that they get many versions. Sometimes an odd key.
    fn key(&mut self) -> Bytes;

    /// Mostly a few bytes, sometimes up to the given length.
    fn value(&mut self, bytes_max: usize) -> Bytes;

    fn range(&mut self) -> (Bytes, Bytes);

    /// Tables and levels so small that a few hundred writes fill several.
    fn keyspace_options(&mut self) -> KeyspaceOptions;

    fn policy(&mut self) -> Arc<dyn CompactionPolicy>;
}

impl Draw for Random {
    fn key(&mut self) -> Bytes {
        match self.below(12) {
            0 => (0..self.below(3)).map(|_| [0, b'k', b'l', 0xff][self.below(4)]).collect(),
            1 => format!("key-with-a-long-common-prefix{:02}", self.below(30)).into_bytes(),
            _ => format!("key{:03}", self.below(200)).into_bytes(),
        }
    }

    fn value(&mut self, bytes_max: usize) -> Bytes {
        let bytes = if self.one_in(14) { self.below(bytes_max) } else { self.below(50) };
        let first = self.next() as u8;
        (0..bytes).map(|at| first.wrapping_add((at * at) as u8)).collect()
    }

    fn range(&mut self) -> (Bytes, Bytes) {
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

    fn keyspace_options(&mut self) -> KeyspaceOptions {
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

    fn policy(&mut self) -> Arc<dyn CompactionPolicy> {
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
