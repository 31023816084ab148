//! `simulate`: compaction policies against a workload, without a disk.

use clap::{Args, ValueEnum};
use lsm_compaction::simulator::{KeyDistribution, Report, Workload, simulate};
use lsm_compaction::{CompactionPolicy, Fifo, LazyLeveled, Leveled, SizeTiered};
use serde_json::{Value, json};

use crate::exit::Result;
use crate::output::Output;
use crate::size::{parse_bytes, parse_count};
use crate::tree;

/// How often all data is written if nothing else is asked for.
const PASSES: u64 = 5;

/// Simulate compaction policies under a workload, without a disk
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm simulate          # three policies, 100 million keys, written five times
  lsm simulate leveled --keys 1G --value-bytes 400
  lsm simulate lazy-leveled --keys 1T --memtable 16G --written 300T
  lsm simulate leveled size-tiered --distribution zipf --json

A table is simulated as an interval of keys with an expected number of keys, so that a trillion keys take \
time but little memory. The same command always prints the same. Numbers of keys take K, M, G and T in powers \
of 1000, sizes in powers of 1024.")]
pub(crate) struct Simulate {
    /// Which policies
    #[arg(value_enum, default_values_t = [Policy::Leveled, Policy::SizeTiered, Policy::LazyLeveled])]
    policies: Vec<Policy>,
    /// Distinct keys
    #[arg(long, value_name = "N", default_value = "100M", value_parser = parse_count)]
    keys: u64,
    /// Size of a key
    #[arg(long, value_name = "SIZE", default_value = "16", value_parser = parse_bytes)]
    key_bytes: u64,
    /// Size of a value
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_bytes)]
    value_bytes: u64,
    /// Keys and values written in total; five times the data if not given
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    written: Option<u64>,
    /// Share of the writes that overwrite existing keys while there are new keys to write, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    overwrites: f64,
    /// Share of the writes that delete existing keys, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    deletes: f64,
    /// Which keys are written
    #[arg(long, value_enum, default_value = "uniform")]
    distribution: Distribution,
    /// How skewed zipf is: 0 is uniform, 1 is steep
    #[arg(long, value_name = "S", default_value_t = 0.99, value_parser = parse_positive)]
    exponent: f64,
    /// Size of the keys and values in a memtable
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_memtable)]
    memtable: u64,
    /// Filter bits per key, 0 for no filters
    #[arg(long, value_name = "BITS", default_value_t = 10.0, value_parser = parse_positive)]
    filter_bits: f64,
    /// Print one JSON object per policy
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Policy {
    Leveled,
    SizeTiered,
    LazyLeveled,
    Fifo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Distribution {
    /// All existing keys with the same probability.
    Uniform,
    /// Some keys far more often than others.
    Zipf,
    /// In ascending order, starting over at the end.
    Sequential,
}

impl Policy {
    fn make(self) -> Box<dyn CompactionPolicy> {
        match self {
            Self::Leveled => Box::new(Leveled::default()),
            Self::SizeTiered => Box::new(SizeTiered::default()),
            Self::LazyLeveled => Box::new(LazyLeveled::default()),
            Self::Fifo => Box::new(Fifo::default()),
        }
    }
}

impl Simulate {
    pub(crate) fn run(self) -> Result<()> {
        let workload = self.workload();
        let mut out = Output::stdout();
        for (number, policy) in self.policies.iter().enumerate() {
            let report = simulate(&*policy.make(), &workload);
            if self.json {
                out.line(format_args!("{}", as_json(&report)))?;
            } else {
                if number > 0 {
                    out.line(format_args!(""))?;
                }
                out.line(format_args!("{}", report.to_string().trim_end()))?;
            }
            out.flush()?;
        }
        Ok(())
    }

    fn workload(&self) -> Workload {
        let data_bytes = self.keys.saturating_mul(self.key_bytes.saturating_add(self.value_bytes));
        Workload {
            keys: self.keys,
            distribution: match self.distribution {
                Distribution::Uniform => KeyDistribution::Uniform,
                Distribution::Zipf => KeyDistribution::Zipf { exponent: self.exponent },
                Distribution::Sequential => KeyDistribution::Sequential,
            },
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            overwrite_share: self.overwrites,
            delete_share: self.deletes,
            bytes_written: self.written.unwrap_or(data_bytes.saturating_mul(PASSES)),
            memtable_bytes: self.memtable,
            filter_bits_per_key: self.filter_bits,
            ..Workload::default()
        }
    }
}

fn parse_share(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a number from 0 to 1".to_owned()),
    }
}

fn parse_positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=f64::MAX).contains(&number) => Ok(number),
        _ => Err("give a number, 0 or more".to_owned()),
    }
}

fn parse_memtable(text: &str) -> std::result::Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("a memtable holds at least one byte".to_owned()),
        bytes => Ok(bytes),
    }
}

fn as_json(report: &Report) -> Value {
    let levels: Vec<_> = report
        .levels
        .iter()
        .map(|level| {
            let besides = json!({
                "merges": level.merges,
                "bytes_read": level.bytes_read,
                "bytes_written": level.bytes_written,
            });
            tree::level_as_json(level.runs as u64, level.tables as u64, level.bytes, besides)
        })
        .collect();
    json!({
        "policy": report.policy,
        "write_amplification": report.write_amplification,
        "runs_per_get": report.runs_per_get,
        "blocks_per_get": report.blocks_per_get,
        "blocks_per_miss": report.blocks_per_miss,
        "runs": report.runs,
        "space_amplification_peak": report.space_amplification_peak,
        "space_amplification": report.space_amplification,
        "bytes_written": report.bytes_written,
        "bytes_live": report.bytes_live,
        "bytes_on_disk": report.bytes_on_disk,
        "bytes_peak": report.bytes_peak,
        "flushes": report.flushes,
        "merges": report.merges,
        "moves": report.moves,
        "drops": report.drops,
        "largest_merge_bytes": report.largest_merge_bytes,
        "levels": levels,
        "stopped": report.stopped,
    })
}
