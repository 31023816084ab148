//! What would each policy cost for a workload of mine?
//!
//! ```text
//! cargo run --release -p lsm-compaction --example what_if -- [OPTION=NUMBER]...
//!   keys=100000000   distinct keys            value=100       bytes of a value (keys have 16)
//!   written=58e9     bytes written in all     memtable=64e6   bytes of a memtable
//!   overwrites=0.5   share of overwrites      deletes=0.1     share of deletes
//!   zipf=0.99        skew of the writes       sequential=1    keys in order
//!   deleted=0.9      share of the keys deleted at the end
//!   full=1           print each report in full
//! ```

use lsm_compaction::simulator::{KeyDistribution, Workload, simulate};
use lsm_compaction::{
    CompactionPolicy, Fifo, FifoOptions, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions,
    SizeTiered, SizeTieredOptions,
};

fn main() {
    let mut workload = Workload::default();
    let mut full = false;
    for argument in std::env::args().skip(1) {
        let parsed =
            argument.split_once('=').and_then(|(name, number)| Some((name, number.parse::<f64>().ok()?)));
        let Some((name, number)) = parsed else { return usage(&argument) };
        #[expect(clippy::cast_sign_loss, reason = "the cast saturates, and the simulator takes any number")]
        let whole = number as u64;
        match name {
            "keys" => workload.keys = whole,
            "value" => workload.value_bytes = whole,
            "written" => workload.bytes_written = whole,
            "memtable" => workload.memtable_bytes = whole,
            "overwrites" => workload.overwrite_share = number,
            "deletes" => workload.delete_share = number,
            "deleted" => workload.deleted_at_end = number,
            "zipf" => workload.distribution = KeyDistribution::Zipf { exponent: number },
            "sequential" => workload.distribution = KeyDistribution::Sequential,
            "full" => full = true,
            _ => return usage(&argument),
        }
    }
    let all_bytes = workload.keys * (workload.key_bytes + workload.value_bytes);
    let fifo = Fifo::new(FifoOptions { bytes_max: all_bytes, ..FifoOptions::default() });
    // Level 0 is full after four memtables, whatever their size; tables keep up with very large ones.
    let base_bytes = 4 * workload.memtable_bytes;
    let target_table_bytes = (workload.memtable_bytes / 4).max(64 << 20);
    let compaction_bytes_max = 25 * target_table_bytes;
    let leveled = Leveled::new(LeveledOptions {
        base_bytes,
        target_table_bytes,
        compaction_bytes_max,
        ..LeveledOptions::default()
    });
    let lazy = LazyLeveled::new(LazyLeveledOptions {
        base_bytes,
        target_table_bytes,
        compaction_bytes_max,
        ..LazyLeveledOptions::default()
    });
    let tiered = SizeTiered::new(SizeTieredOptions { target_table_bytes, ..SizeTieredOptions::default() });
    let policies: [&dyn CompactionPolicy; 4] = [&leveled, &lazy, &tiered, &fifo];
    println!("{:<14}{:>8}{:>12}{:>12}{:>9}{:>11}", "", "write", "read", "read", "space", "largest");
    println!(
        "{:<14}{:>8}{:>12}{:>12}{:>9}{:>10}",
        "policy", "amp.", "runs/get", "runs/scan", "amp.", "merge"
    );
    for policy in policies {
        let report = simulate(policy, &workload);
        println!(
            "{:<14}{:>8.2}{:>12.2}{:>12.1}{:>9.2}{:>8.1} GB",
            report.policy,
            report.write_amplification,
            report.runs_per_get,
            report.runs,
            report.space_amplification_peak,
            report.largest_merge_bytes as f64 / 1e9
        );
        if full {
            println!("\n{report}");
        }
    }
}

fn usage(argument: &str) {
    eprintln!("cannot read {argument}: expected NAME=NUMBER with a name from the head of this example");
    std::process::exit(2);
}
