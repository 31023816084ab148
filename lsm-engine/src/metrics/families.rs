//! All metrics by name, as monitoring systems want them: families of samples with labels.

use std::time::Duration;

use super::{KeyspaceMetrics, Latency, LevelMetrics, Metrics, TransactionMetrics};

/// A figure of a level.
type OfLevel = fn(&LevelMetrics) -> u64;

/// A figure of a keyspace.
type OfKeyspace = fn(&KeyspaceMetrics) -> u64;

/// What the values of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number that only grows while the database is open.
    Counter,
    /// A number that may go up and down.
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'m> {
    Count(u64),
    Seconds(f64),
    Latency(&'m Latency),
}

pub(super) type Label<'m> = (&'static str, &'m str);

#[derive(Clone, Debug)]
pub(super) struct Sample<'m> {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value<'m>,
}

/// Samples of one name.
#[derive(Clone, Debug)]
pub(super) struct Family<'m> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample<'m>>,
}

/// The quantiles that are given beside a histogram. The last one is the longest duration.
pub(super) const QUANTILES: [(&str, f64); 4] = [("0.5", 0.5), ("0.99", 0.99), ("0.999", 0.999), ("1", 1.0)];

/// The families that were begun.
struct Families<'m>(Vec<Family<'m>>);

impl<'m> Families<'m> {
    /// Begins a family.
    fn begin(&mut self, kind: Kind, name: &'static str, help: &'static str) -> &mut Vec<Sample<'m>> {
        let samples = Vec::new();
        let index = self.0.len();
        self.0.push(Family { name, help, kind, samples });
        &mut self.0[index].samples
    }

    /// A family of one number without labels.
    fn one(&mut self, kind: Kind, name: &'static str, help: &'static str, value: u64) {
        self.begin(kind, name, help).push(count(&[], value));
    }

    /// A family of durations, and the family of their quantiles.
    fn latencies(
        &mut self,
        names: (&'static str, &'static str),
        help: &'static str,
        label: &'static str,
        latencies: impl Iterator<Item = (&'static str, &'m Latency)> + Clone,
    ) {
        let samples = self.begin(Kind::Histogram, names.0, help);
        samples.extend(latencies.clone().map(|(name, latency)| Sample {
            labels: vec![(label, name.to_owned())],
            value: Value::Latency(latency),
        }));
        let help = "Quantiles of the durations since the database was opened, at most a sixteenth too long. \
                    Quantile 1 is the longest.";
        let samples = self.begin(Kind::Gauge, names.1, help);
        for (name, latency) in latencies {
            let quantile = |&(quantile, part): &(&str, f64)| {
                seconds(&[(label, name), ("quantile", quantile)], latency.quantile(part).as_secs_f64())
            };
            samples.extend(QUANTILES.iter().map(quantile));
        }
    }
}

fn sample<'m>(labels: &[Label<'_>], value: Value<'m>) -> Sample<'m> {
    Sample { labels: labels.iter().map(|&(name, value)| (name, value.to_owned())).collect(), value }
}

fn count<'m>(labels: &[Label<'_>], count: u64) -> Sample<'m> {
    sample(labels, Value::Count(count))
}

fn seconds<'m>(labels: &[Label<'_>], seconds: f64) -> Sample<'m> {
    sample(labels, Value::Seconds(seconds))
}

impl Metrics {
    /// All metrics by name. Durations are in seconds, sizes in bytes.
    pub(super) fn families(&self) -> Vec<Family<'_>> {
        let mut families = Families(Vec::new());
        self.memory_families(&mut families);
        self.log_families(&mut families);
        self.work_families(&mut families);
        self.blob_families(&mut families);
        self.transaction_families(&mut families);
        self.level_families(&mut families);
        let latency = "How long calls took. Empty unless Options::statistics is set.";
        let names = ("lsm_operation_seconds", "lsm_operation_quantile_seconds");
        families.latencies(names, latency, "operation", self.operations.iter());
        let names = ("lsm_wait_seconds", "lsm_wait_quantile_seconds");
        let waits = self.waits.iter().map(|wait| (wait.why.label(), &wait.latency));
        families.latencies(names, "How long callers waited.", "wait", waits);
        let names = ("lsm_background_seconds", "lsm_background_quantile_seconds");
        families.latencies(names, "How long background work took.", "work", self.background.iter());
        let open = families.begin(Kind::Gauge, "lsm_open_seconds", "How long opening the database took.");
        open.push(seconds(&[], self.background.open.as_secs_f64()));
        families.0
    }

    fn memory_families(&self, families: &mut Families<'_>) {
        use Kind::{Counter, Gauge};
        let memory = "Memory that the engine holds, by part. Options::memory bounds the sum.";
        families.begin(Gauge, "lsm_memory_bytes", memory).extend(
            [
                ("active_memtables", self.active_memtable_bytes),
                ("immutable_memtables", self.immutable_memtable_bytes),
                ("pooled_memtables", self.pooled_memtable_bytes),
                ("log_window", self.log_window_bytes),
                ("buffers", self.buffer_bytes),
                ("transactions", self.transaction_bytes),
                ("cache", self.cache_bytes),
                ("tables", self.pinned_bytes),
            ]
            .map(|(part, bytes)| count(&[("part", part)], bytes)),
        );
        if let Some(pool) = &self.memory_pool {
            let memory =
                "Memory of the pool that several databases share, by part. The part used is the sum.";
            families.begin(Gauge, "lsm_memory_pool_bytes", memory).extend(
                [
                    ("used", pool.used_bytes),
                    ("cache", pool.cache_bytes),
                    ("kept_memtables", pool.kept_memtable_bytes),
                ]
                .map(|(part, bytes)| count(&[("part", part)], bytes)),
            );
            families.one(Gauge, "lsm_memory_pool_bytes_max", "The bound of that memory.", pool.bytes);
            families.one(Gauge, "lsm_memory_pool_databases", "Open databases of the pool.", pool.databases);
        }
        let held =
            "Memory of flushed memtables and compacted tables that iterators and snapshots still read.";
        families.begin(Gauge, "lsm_held_bytes", held).extend(
            [("memtables", self.held_memtable_bytes), ("tables", self.held_table_bytes)]
                .map(|(part, bytes)| count(&[("part", part)], bytes)),
        );
        families.one(
            Gauge,
            "lsm_cache_capacity_bytes",
            "Memory that the block cache may use at most.",
            self.cache_capacity_bytes,
        );
        families.one(
            Counter,
            "lsm_cache_hits_total",
            "Blocks that reads found in the cache.",
            self.cache_hits,
        );
        families.one(
            Counter,
            "lsm_cache_misses_total",
            "Blocks that reads took from files.",
            self.cache_misses,
        );
        families.one(
            Counter,
            "lsm_cache_insertions_total",
            "Missed blocks that entered the cache.",
            self.cache_insertions,
        );
        families.one(
            Counter,
            "lsm_cache_evictions_total",
            "Blocks that left the cache for others.",
            self.cache_evictions,
        );
        families.one(Gauge, "lsm_open_files", "Open table files.", self.open_files);
        families.one(Gauge, "lsm_open_files_max", "Limit of open table files.", self.open_files_max);
        families.one(
            Counter,
            "lsm_file_opens_total",
            "Times that a table file was opened, for the first time or again.",
            self.file_opens,
        );
        families.one(Gauge, "lsm_snapshots", "Live snapshots.", self.snapshots);
    }

    fn log_families(&self, families: &mut Families<'_>) {
        use Kind::{Counter, Gauge};
        families.one(
            Counter,
            "lsm_visible_sequence",
            "Sequence number of the last write that readers see.",
            self.visible_sequence,
        );
        families.one(
            Counter,
            "lsm_purged_sequence",
            "What writes up to this sequence number deleted is in no file any more, in keyspaces with a bound.",
            self.purged_sequence,
        );
        let lag = "How long the oldest write has been visible whose garbage may still be in a file; 0 without a bound.";
        let lag_seconds = Duration::from_micros(self.purge_lag_micros).as_secs_f64();
        families.begin(Gauge, "lsm_purge_lag_seconds", lag).push(seconds(&[], lag_seconds));
        families.one(Gauge, "lsm_log_bytes", "Bytes of log that recovery would replay.", self.log_bytes);
        families.one(
            Gauge,
            "lsm_unsynced_log_bytes",
            "Bytes of log that are not synced yet.",
            self.unsynced_log_bytes,
        );
        families.one(
            Gauge,
            "lsm_pinned_log_bytes",
            "Bytes of log that recovery would not replay, kept for change slots, followers and the like.",
            self.pinned_log_bytes,
        );
        families.one(
            Counter,
            "lsm_log_pins_lost",
            "Change slots and the like that kept more of the log than they may, and lost it.",
            self.log_pins_lost,
        );
    }

    fn blob_families(&self, families: &mut Families<'_>) {
        use Kind::{Counter, Gauge};
        families.one(
            Counter,
            "lsm_blob_out_bytes_total",
            "Bytes of blob files written with large values.",
            self.blob_bytes_out,
        );
        families.one(
            Counter,
            "lsm_blob_rewritten_bytes_total",
            "Bytes of blob files written in place of others that had too much garbage.",
            self.blob_bytes_rewritten,
        );
        let blobs: [(&str, &str, OfKeyspace); 3] = [
            ("lsm_blob_files", "Blob files.", |keyspace| keyspace.blob_files),
            ("lsm_blob_bytes", "Bytes of the values in blob files.", |keyspace| keyspace.blob_bytes),
            (
                "lsm_blob_garbage_bytes",
                "Bytes of the values in blob files to which no table points any more.",
                |keyspace| keyspace.blob_garbage_bytes,
            ),
        ];
        for (name, help, figure) in blobs {
            let of = |keyspace: &KeyspaceMetrics| count(&[("keyspace", &keyspace.name)], figure(keyspace));
            families.begin(Gauge, name, help).extend(self.keyspaces.iter().map(of));
        }
    }

    fn work_families(&self, families: &mut Families<'_>) {
        use Kind::{Counter, Gauge};
        families.one(Counter, "lsm_flushes_total", "Runs written to level 0.", self.flushes);
        families.one(
            Counter,
            "lsm_flush_in_bytes_total",
            "Memory of the flushed memtables.",
            self.flush_bytes_in,
        );
        families.one(
            Counter,
            "lsm_flush_out_bytes_total",
            "Bytes of the tables that flushes wrote.",
            self.flush_bytes_out,
        );
        families.one(Counter, "lsm_compactions_total", "Compactions that merged tables.", self.compactions);
        families.one(
            Counter,
            "lsm_compaction_moves_total",
            "Compactions that moved tables to another level without rewriting them.",
            self.moves,
        );
        families.one(Counter, "lsm_ingests_total", "Ingests and bulk loads.", self.ingests);
        let tables = "Tables that ingests and bulk loads brought.";
        families.one(Counter, "lsm_ingested_tables_total", tables, self.ingested_tables);
        let bytes = "Bytes of the tables that ingests and bulk loads brought.";
        families.one(Counter, "lsm_ingested_bytes_total", bytes, self.ingested_bytes);
        families.one(
            Counter,
            "lsm_covered_tables_dropped_total",
            "Tables dropped without a merge because range deletes covered all their keys.",
            self.covered_tables_dropped,
        );
        families.one(
            Counter,
            "lsm_compaction_in_bytes_total",
            "Bytes that compactions read.",
            self.compaction_bytes_in,
        );
        families.one(
            Counter,
            "lsm_compaction_out_bytes_total",
            "Bytes that compactions wrote.",
            self.compaction_bytes_out,
        );
        families.one(
            Counter,
            "lsm_compaction_copied_bytes_total",
            "The part of the bytes that compactions wrote in blocks that were copied unchanged.",
            self.compaction_bytes_copied,
        );
        families.one(
            Counter,
            "lsm_merge_operands_folded_total",
            "Merge operands that flushes and compactions have made part of a newer one or of a put.",
            self.merge_operands_folded,
        );
        families.one(
            Counter,
            "lsm_merges_refused_total",
            "Times that a flush or compaction kept operands because the merge operator refused them or panicked.",
            self.merges_refused,
        );
        families.one(Gauge, "lsm_compactions_running", "Running compactions.", self.compactions_running);
        families.one(
            Gauge,
            "lsm_compaction_debt_bytes",
            "Bytes that compactions still have to rewrite.",
            self.compaction_debt_bytes,
        );
        let stalls = "Time that writers were stalled, by reason.";
        families.begin(Counter, "lsm_stall_seconds_total", stalls).extend(
            [
                ("rate", self.stall_rate_micros),
                ("memory", self.stall_memory_micros),
                ("space", self.stall_space_micros),
                ("lock", self.stall_lock_micros),
                ("sync", self.stall_sync_micros),
                ("write", self.stall_write_micros),
                ("update", self.stall_update_micros),
            ]
            .map(|(reason, micros)| seconds(&[("reason", reason)], micros as f64 / 1e6)),
        );
        families.one(Gauge, "lsm_writers_waiting", "Writers that wait for memory now.", self.writers_waiting);
        families.one(
            Gauge,
            "lsm_background_error",
            "1 if the last flush failed with an error of the operating system, otherwise 0.",
            u64::from(self.background_error.is_some()),
        );
        families.one(
            Gauge,
            "lsm_waiting_for_space",
            "1 if flushes wait for space on the disk, otherwise 0.",
            u64::from(self.waiting_for_space.is_some()),
        );
    }

    fn transaction_families(&self, families: &mut Families<'_>) {
        use Kind::{Counter, Gauge};
        let TransactionMetrics { open, commits, conflicts, lock_waits, lock_timeouts, deadlocks, retries } =
            self.transactions;
        families.one(Gauge, "lsm_transactions", "Open transactions.", open);
        let each = [
            ("lsm_transaction_commits_total", "Commits that succeeded.", commits),
            ("lsm_transaction_conflicts_total", "Transactions in conflict with another writer.", conflicts),
            ("lsm_transaction_lock_waits_total", "Waits for locks of other transactions.", lock_waits),
            ("lsm_transaction_lock_timeouts_total", "Waits for locks that took too long.", lock_timeouts),
            ("lsm_transaction_deadlocks_total", "Deadlocks between transactions.", deadlocks),
            ("lsm_transaction_retries_total", "Transactions that Db::transact ran again.", retries),
        ];
        for (name, help, value) in each {
            families.one(Counter, name, help, value);
        }
    }

    fn level_families(&self, families: &mut Families<'_>) {
        use Kind::{Counter, Gauge};
        let failed = "1 if an error stopped the background work of the keyspace, otherwise 0.";
        families.begin(Gauge, "lsm_keyspace_failed", failed).extend(
            self.keyspaces.iter().map(|keyspace| {
                count(&[("keyspace", &keyspace.name)], u64::from(keyspace.failure.is_some()))
            }),
        );
        let limit = "Rate limit of the writers of a keyspace, while its compactions are behind.";
        families.begin(Gauge, "lsm_write_rate_limit_bytes_per_second", limit).extend(
            self.keyspaces.iter().filter_map(|keyspace| {
                Some(count(&[("keyspace", &keyspace.name)], keyspace.write_rate_limit?))
            }),
        );
        let each: [(Kind, &'static str, &'static str, OfLevel); 15] = [
            (Gauge, "lsm_level_runs", "Sorted runs. A lookup asks at most one table of each.", |l| l.runs),
            (Gauge, "lsm_level_tables", "Tables.", |l| l.tables),
            (
                Gauge,
                "lsm_level_unpinned_tables",
                "Tables whose index and filter stay in the file because memory is short.",
                |l| l.unpinned_tables,
            ),
            (Gauge, "lsm_level_bytes", "Bytes of the table files.", |l| l.bytes),
            (
                Gauge,
                "lsm_level_raw_bytes",
                "Bytes of keys and values before encoding and compression.",
                |l| l.raw_bytes,
            ),
            (Gauge, "lsm_level_entries", "Versions of keys, tombstones included.", |l| l.entries),
            (Gauge, "lsm_level_tombstones", "Point tombstones.", |l| l.tombstones),
            (Gauge, "lsm_level_range_tombstones", "Range tombstones.", |l| l.range_tombstones),
            (Gauge, "lsm_level_merge_operands", "Merge operands.", |l| l.merge_operands),
            (Counter, "lsm_level_compactions_total", "Compactions that wrote to the level.", |l| {
                l.compactions
            }),
            (
                Counter,
                "lsm_level_compaction_in_bytes_total",
                "Bytes that compactions read to write to the level.",
                |l| l.compaction_bytes_in,
            ),
            (
                Counter,
                "lsm_level_compaction_out_bytes_total",
                "Bytes that compactions wrote to the level.",
                |l| l.compaction_bytes_out,
            ),
            (
                Counter,
                "lsm_level_reads_total",
                "Lookups that found their key in the level. 0 unless Options::statistics is set.",
                |l| l.reads,
            ),
            (
                Counter,
                "lsm_level_filter_negatives_total",
                "Tables that a filter spared a lookup. 0 unless Options::statistics is set.",
                |l| l.filter_negatives,
            ),
            (
                Counter,
                "lsm_level_filter_false_positives_total",
                "Tables that a filter let a lookup search in vain. 0 unless Options::statistics is set.",
                |l| l.filter_false_positives,
            ),
        ];
        for (kind, name, help, value) in each {
            let samples = families.begin(kind, name, help);
            for keyspace in &self.keyspaces {
                samples.extend(keyspace.levels.iter().enumerate().map(|(level, metrics)| {
                    let labels = [("keyspace", keyspace.name.as_str()), ("level", &level.to_string())];
                    count(&labels, value(metrics))
                }));
            }
        }
    }
}
