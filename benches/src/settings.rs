//! The settings that all engines share.

use clap::{Args, ValueEnum};

/// What every engine is set to, and how much is done. The same for all of them in one comparison.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Keys that are loaded, and reads of each read workload (seeks: a quarter of it)
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(16..))]
    pub(crate) num: u32,

    /// Keys in the database whose opening and closing are timed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(16..))]
    pub(crate) open_num: u32,

    /// Synced writes of one thread; eight threads do four times as many together
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(8..))]
    pub(crate) sync_num: u32,

    /// Bytes of a value, half of which compress away
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(16..=134_217_728))]
    pub(crate) value_bytes: u32,

    /// Values of so many bytes or more go to blob files, in the engines that have them (lsm, RocksDB); 0 for none
    #[arg(long, default_value_t = 0)]
    pub(crate) blobs_from: u32,

    /// MiB at which a memtable becomes immutable; four of them may fill memory (fjall: five, fixed)
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) memtable_mib: u32,

    /// MiB of cached blocks
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) cache_mib: u32,

    /// Bits per key of the Bloom filters, on all levels
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) bloom_bits: u32,

    /// Compression of the last level, where almost all data is; the levels above are plain
    #[arg(long, default_value = "lz4")]
    pub(crate) compression: Compression,

    /// Threads of each engine for flushes and compactions
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) background_threads: u16,

    /// Time one operation in so many for the percentiles; a prime, so that it falls in step with nothing
    #[arg(long, default_value_t = 17, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sample: u32,

    /// Where the order of keys and the content of values come from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// How the last level is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Plain blocks everywhere.
    None,
    /// LZ4 blocks at the last level.
    Lz4,
}

impl Settings {
    /// Bytes at which a memtable becomes immutable.
    pub(crate) fn memtable_bytes(&self) -> u64 {
        u64::from(self.memtable_mib) << 20
    }

    /// Bytes of cached blocks.
    pub(crate) fn cache_bytes(&self) -> u64 {
        u64::from(self.cache_mib) << 20
    }

    /// The command line that gives a child process these settings.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
        };
        [
            ("--num", self.num.to_string()),
            ("--open-num", self.open_num.to_string()),
            ("--sync-num", self.sync_num.to_string()),
            ("--value-bytes", self.value_bytes.to_string()),
            ("--blobs-from", self.blobs_from.to_string()),
            ("--memtable-mib", self.memtable_mib.to_string()),
            ("--cache-mib", self.cache_mib.to_string()),
            ("--bloom-bits", self.bloom_bits.to_string()),
            ("--compression", compression.to_owned()),
            ("--background-threads", self.background_threads.to_string()),
            ("--sample", self.sample.to_string()),
            ("--seed", self.seed.to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }
}
