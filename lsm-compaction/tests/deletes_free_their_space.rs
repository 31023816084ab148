//! What is deleted leaves the simulated disk while nothing else is written, at a price that is known.

use lsm_compaction::simulator::{KeyDistribution, Workload, simulate};
use lsm_compaction::{
    CompactionPolicy, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions, SizeTiered, SizeTieredOptions,
};

const MEMTABLE_BYTES: u64 = 4 << 20;

/// Each policy as it is by default, and one that does not look at what tombstones hide.
fn policies() -> [[Box<dyn CompactionPolicy>; 2]; 3] {
    let (base_bytes, target_table_bytes) = (4 * MEMTABLE_BYTES, MEMTABLE_BYTES);
    let leveled = LeveledOptions { base_bytes, target_table_bytes, ..LeveledOptions::default() };
    let lazy = LazyLeveledOptions { base_bytes, target_table_bytes, ..LazyLeveledOptions::default() };
    let tiered = SizeTieredOptions { target_table_bytes, ..SizeTieredOptions::default() };
    let hidden_percent_max = 101;
    [
        [
            Box::new(Leveled::new(leveled)),
            Box::new(Leveled::new(LeveledOptions { hidden_percent_max, ..leveled })),
        ],
        [
            Box::new(LazyLeveled::new(lazy)),
            Box::new(LazyLeveled::new(LazyLeveledOptions { hidden_percent_max, ..lazy })),
        ],
        [
            Box::new(SizeTiered::new(tiered)),
            Box::new(SizeTiered::new(SizeTieredOptions { hidden_percent_max, ..tiered })),
        ],
    ]
}

fn workload(value_bytes: u64, distribution: KeyDistribution, deleted_at_end: f64) -> Workload {
    let keys = (2 << 30) / (16 + value_bytes);
    Workload {
        keys,
        distribution,
        value_bytes,
        bytes_written: keys * (16 + value_bytes) * 3 / 2,
        memtable_bytes: MEMTABLE_BYTES,
        deleted_at_end,
        ..Workload::default()
    }
}

#[test]
fn nine_tenths_of_what_is_deleted_at_once_is_free_when_the_tree_rests() {
    for (value_bytes, distribution) in [
        (100, KeyDistribution::Uniform),
        (1000, KeyDistribution::Uniform),
        (100, KeyDistribution::Sequential),
    ] {
        for share in [0.2, 0.6, 0.95] {
            for [policy, blind] in policies() {
                // Less is but a part of what the others spend on garbage in any case.
                if share < 0.5 && policy.name() != "leveled" {
                    continue;
                }
                let loaded = simulate(&*policy, &workload(value_bytes, distribution, 0.0));
                let deleted = simulate(&*policy, &workload(value_bytes, distribution, share));
                let blind = simulate(&*blind, &workload(value_bytes, distribution, share));
                let name = format!("{} {value_bytes} {distribution:?} {share}", policy.name());
                assert_eq!((&loaded.stopped, &deleted.stopped), (&None, &None), "{name}");
                let dead = (loaded.bytes_live - deleted.bytes_live) as f64;
                let freed = loaded.bytes_on_disk as f64 - deleted.bytes_on_disk as f64;
                println!(
                    "{name}: {:.2} of the dead is free, write amplification {:.2} instead of {:.2}",
                    freed / dead,
                    deleted.write_amplification,
                    blind.write_amplification
                );
                assert!(freed >= 0.9 * dead, "{name}: {freed} of {dead} were freed\n{deleted}");
                let price = deleted.write_amplification / blind.write_amplification;
                assert!(price <= 2.6, "{name}: {price} times the write amplification");
            }
        }
    }
}
