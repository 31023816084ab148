/// What is written to a simulated store.
///
/// Writes go to fresh keys, each inserted once, as long as there are any; the shares below say how many go to
/// keys that exist already. Once all keys are there, every write goes to an existing one. To load a store and then
/// overwrite it twice: no shares, and three times the bytes of all keys as
/// [`bytes_written`](Workload::bytes_written).
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Distinct keys. Default 100 million.
    pub keys: u64,
    /// Which keys are written. Default uniform.
    pub distribution: KeyDistribution,
    /// Size of a key in bytes. Default 16.
    pub key_bytes: u64,
    /// Size of a value in bytes. Default 100.
    pub value_bytes: u64,
    /// Share of the writes that overwrite existing keys although fresh ones are left, 0 to 1. Default 0.
    pub overwrite_share: f64,
    /// Share of the writes that delete existing keys, 0 to 1. Default 0.
    pub delete_share: f64,
    /// Share of the keys that are deleted when all else is written, 0 to 1; those that are not live then, too. In the
    /// order of keys, the oldest. Default 0.
    pub deleted_at_end: f64,
    /// Keys and values written in all, without [`deleted_at_end`](Workload::deleted_at_end), in bytes. Default 58 GB: every key about five times.
    pub bytes_written: u64,
    /// Keys and values that a memtable holds, every version counted, in bytes. Default 64 MiB.
    pub memtable_bytes: u64,
    /// Filter bits per key, for the cost of reads; 0 for none. Default 10.
    pub filter_bits_per_key: f64,
    /// How fast the clock runs: bytes written per second. Matters to policies that look at ages. Default 64 MiB.
    pub bytes_per_second: u64,
}

/// Which keys are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyDistribution {
    /// Fresh keys in random order; existing keys all alike.
    Uniform,
    /// Fresh keys in random order; the existing key of rank `r` in proportion to `1 / r^exponent`, wherever in the
    /// key space it may be. YCSB has 0.99.
    Zipf {
        /// How skewed: 0 is uniform, 1 is steep. Taken to be within 0 and 4.
        exponent: f64,
    },
    /// Keys in ascending order, starting over at the end; deletes follow behind in the same order, as in a queue.
    Sequential,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            keys: 100_000_000,
            distribution: KeyDistribution::Uniform,
            key_bytes: 16,
            value_bytes: 100,
            overwrite_share: 0.0,
            delete_share: 0.0,
            deleted_at_end: 0.0,
            bytes_written: 58_000_000_000,
            memtable_bytes: 64 << 20,
            filter_bits_per_key: 10.0,
            bytes_per_second: 64 << 20,
        }
    }
}

impl Workload {
    /// Values out of range as the nearest ones that mean something.
    pub(super) fn clamped(&self) -> Self {
        let share = |share: f64| if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        let delete_share = share(self.delete_share);
        let distribution = match self.distribution {
            KeyDistribution::Zipf { exponent } if exponent.is_nan() || exponent <= 0.0 => {
                KeyDistribution::Uniform
            }
            KeyDistribution::Zipf { exponent } => KeyDistribution::Zipf { exponent: exponent.min(4.0) },
            other => other,
        };
        let key_bytes = self.key_bytes.clamp(1, 65_535);
        let value_bytes = self.value_bytes.min(u64::from(u32::MAX));
        Self {
            keys: self.keys.clamp(1, 1 << 50),
            distribution,
            key_bytes,
            value_bytes,
            overwrite_share: share(self.overwrite_share).min(1.0 - delete_share),
            delete_share,
            deleted_at_end: share(self.deleted_at_end),
            bytes_written: self.bytes_written,
            memtable_bytes: self.memtable_bytes.max(key_bytes + value_bytes),
            filter_bits_per_key: if self.filter_bits_per_key.is_nan() {
                0.0
            } else {
                self.filter_bits_per_key.clamp(0.0, 64.0)
            },
            bytes_per_second: self.bytes_per_second.max(1),
        }
    }

    pub(super) fn flushes(&self) -> u64 {
        self.bytes_written.div_ceil(self.memtable_bytes)
    }

    pub(super) fn bytes_of_flush(&self, flush: u64) -> f64 {
        self.memtable_bytes.min(self.bytes_written - flush * self.memtable_bytes) as f64
    }

    /// The bytes of each flush of deletes at the end.
    pub(super) fn deletes_at_end(&self) -> impl Iterator<Item = f64> + use<> {
        let writes = match self.distribution {
            KeyDistribution::Sequential => self.deleted_at_end,
            // Drawn at random, some keys are drawn again; beyond this share it would take for ever.
            _ => -(1.0 - self.deleted_at_end.min(0.999)).ln(),
        };
        let memtable_bytes = self.memtable_bytes as f64;
        let mut left = writes * self.keys as f64 * self.key_bytes as f64;
        std::iter::from_fn(move || {
            let bytes = left.min(memtable_bytes);
            left -= bytes;
            (bytes > 0.0).then_some(bytes)
        })
    }

    pub(super) fn put_bytes(&self) -> f64 {
        (self.key_bytes + self.value_bytes) as f64
    }

    /// Mean size of a write.
    pub(super) fn write_bytes(&self) -> f64 {
        self.put_bytes() - self.delete_share * self.value_bytes as f64
    }
}
