//! Metrics: what was done is counted once and where it belongs, and the Prometheus text says the same.

#![expect(clippy::float_cmp, reason = "the numbers are whole")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lsm_core::{SequenceNumber, ValueKind};
use lsm_dev::{EnvLayer, Layer};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Durability, KeyspaceOptions, Metrics, Options, WaitReason, WriteBatch};
use lsm_memtable::{BPlusMemtable, Full, MemtableFactory, MemtableReader, MemtableWriter, Reservation};

fn open(statistics: bool) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new())).statistics(statistics);
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    (env, db)
}

fn close(env: &SimEnv, db: Db) {
    db.close().unwrap();
    env.drop_jobs();
}

/// Does some of everything, and leaves tables in two levels.
fn work(db: &Db) {
    for round in 0..6 {
        for key in 0..200_u32 {
            db.put(key.to_be_bytes(), vec![round; 300]).unwrap();
        }
        db.flush().unwrap();
    }
    db.compact_range::<&[u8]>(..).unwrap();
    db.wait_for_compactions().unwrap();
    db.put(7_u32.to_be_bytes(), "newer").unwrap();
    db.put(300_u32.to_be_bytes(), "further").unwrap();
    db.flush().unwrap();
    db.put_with("synced", "value", Durability::Sync).unwrap();
    db.delete("nothing").unwrap();
    db.delete_range("x".."y").unwrap();
    let mut batch = WriteBatch::new();
    batch.put("a", "1").put("b", "2").delete("c");
    db.write(batch).unwrap();
}

#[test]
fn calls_are_measured_once_each_and_only_if_that_is_asked_for() {
    for on in [true, false] {
        let (env, db) = open(on);
        work(&db);
        for key in ["synced", "absent"] {
            db.get(key).unwrap();
            db.contains_key(key).unwrap();
            db.snapshot().unwrap().get(key).unwrap();
        }
        db.multi_get(["a", "b", "c"]).unwrap();
        // One end of an iterator seeks once. A cursor seeks each time that it is told to.
        assert_eq!(db.range("a".."c").count(), 2);
        assert_eq!(db.prefix("a").next_back().unwrap().unwrap().0, "a");
        let mut cursor = db.cursor().unwrap();
        cursor.seek("a").unwrap();
        cursor.next().unwrap();
        cursor.seek_for_prev("b").unwrap();
        cursor.prev().unwrap();
        let counts: BTreeMap<_, _> =
            db.metrics().operations.iter().map(|(name, latency)| (name, latency.count())).collect();
        let expected = [
            ("batch", 1),
            ("delete", 1),
            ("delete_range", 1),
            ("get", 9),
            ("merge", 0),
            ("put", 6 * 200 + 3),
            ("seek", 4),
        ];
        let expected = expected.map(|(name, count)| (name, if on { count } else { 0 }));
        assert_eq!(counts, BTreeMap::from(expected));
        close(&env, db);
    }
}

#[test]
fn background_work_and_waits_are_always_measured_and_levels_add_up() {
    let (env, db) = open(false);
    work(&db);
    db.put_with("synced", "again", Durability::Sync).unwrap();
    let metrics = db.metrics();
    assert_eq!(metrics.background.flush.count(), metrics.flushes);
    assert!(metrics.compactions > 0);
    assert_eq!(metrics.background.compaction.count(), metrics.compactions);
    assert!(metrics.background.manifest_edit.count() >= metrics.flushes + metrics.compactions);
    assert!(metrics.background.log_sync.count() > 0);
    let levels = || metrics.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
    assert_eq!(levels().map(|level| level.compactions).sum::<u64>(), metrics.compactions);
    assert_eq!(levels().map(|level| level.compaction_bytes_in).sum::<u64>(), metrics.compaction_bytes_in);
    assert_eq!(levels().map(|level| level.compaction_bytes_out).sum::<u64>(), metrics.compaction_bytes_out);
    let level_0 = &metrics.keyspaces[0].levels[0];
    assert_eq!(
        (level_0.compactions, level_0.compaction_bytes_out),
        (0, 0),
        "nothing was merged into level 0"
    );

    let waited: BTreeMap<_, _> =
        metrics.waits.iter().map(|wait| (format!("{:?}", wait.why), wait.latency.clone())).collect();
    assert_eq!(waited["LogSync"].count(), 2);
    assert_eq!(waited["LogSync"].sum(), Duration::from_micros(metrics.stall_sync_micros));
    assert!(waited["Flush"].count() >= 7);
    assert_eq!(waited["Memory"].count(), 0);
    close(&env, db);
}

#[test]
fn reads_count_for_the_level_that_answers_them_and_filters_for_what_they_spare() {
    let (env, db) = open(true);
    work(&db);
    let before = db.metrics().keyspaces[0].levels.clone();
    assert!(before.len() >= 2);
    // In a table of level 0, in a deeper level, in the memtable, nowhere.
    for key in [7_u32, 300] {
        assert!(db.contains_key(key.to_be_bytes()).unwrap());
    }
    for key in 100..110_u32 {
        assert!(db.contains_key(key.to_be_bytes()).unwrap());
    }
    assert!(db.contains_key("synced").unwrap());
    for key in 0..100_u32 {
        assert!(!db.contains_key([&(key + 50).to_be_bytes()[..], b"?"].concat()).unwrap());
    }
    let after = db.metrics().keyspaces[0].levels.clone();
    let reads: Vec<u64> =
        after.iter().zip(&before).map(|(after, before)| after.reads - before.reads).collect();
    assert_eq!((reads[0], reads.iter().sum()), (2, 12), "{reads:?}");
    // Ten keys and a hundred absent ones lie in the range of the table of level 0, which has neither; the absent ones lie
    // in that of a deeper one, too.
    let asked = |level: &lsm_engine::LevelMetrics| level.filter_negatives + level.filter_false_positives;
    assert_eq!(asked(&after[0]) - asked(&before[0]), 110);
    let deeper = |levels: &[lsm_engine::LevelMetrics]| levels[1..].iter().map(asked).sum::<u64>();
    assert_eq!(deeper(&after) - deeper(&before), 100);
    let false_positives: u64 = after.iter().map(|level| level.filter_false_positives).sum();
    assert!(false_positives < 30, "{false_positives}");
    close(&env, db);
}

/// A memtable whose inserts and lookups take three milliseconds of simulated time.
#[derive(Clone)]
struct Slow(Arc<SimEnv>);

struct SlowWriter(Box<dyn MemtableWriter>, Slow);

struct SlowReader(Arc<dyn MemtableReader>, Slow);

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slow")
    }
}

impl MemtableFactory for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = BPlusMemtable::default().create();
        (Box::new(SlowWriter(writer, self.clone())), Arc::new(SlowReader(reader, self.clone())))
    }
}

impl MemtableWriter for SlowWriter {
    fn insert(&mut self, key: &[u8], at: SequenceNumber, kind: ValueKind, value: &[u8]) -> Result<(), Full> {
        self.1.0.advance(3000);
        self.0.insert(key, at, kind, value)
    }

    fn reserve(&mut self, coming: &Reservation<'_>) -> Result<usize, Full> {
        self.0.reserve(coming)
    }
}

impl MemtableReader for SlowReader {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<lsm_core::Entry<'_>> {
        self.1.0.advance(3000);
        self.0.get(key, sequence)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn lsm_core::Cursor + Send> {
        Arc::clone(&self.0).cursor()
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    fn entry_count(&self) -> usize {
        self.0.entry_count()
    }
}

#[test]
fn latencies_are_the_time_that_calls_took() {
    let (env, db) = open(true);
    let memtable = KeyspaceOptions::new().memtable(Arc::new(Slow(Arc::clone(&env))));
    let slow = db.keyspace("slow", memtable).unwrap();
    for key in 0..10_u8 {
        slow.put([key], "value").unwrap();
        db.put([key], "value").unwrap();
    }
    assert!(slow.contains_key([3]).unwrap());
    let operations = db.metrics().operations;
    let millis = |millis| Duration::from_millis(millis);
    assert!(operations.put.sum() >= millis(30) && operations.put.sum() < millis(31));
    assert!(operations.put.p50() < millis(1), "half of the puts were fast: {:?}", operations.put);
    assert!(operations.put.p99() >= millis(3) && operations.put.p99() < millis(4));
    assert!(operations.get.max() >= millis(3) && operations.get.max() < millis(4));
    close(&env, db);
}

/// Counts looks at the clock.
struct Watched(SimEnv, AtomicU64);

impl EnvLayer for Watched {
    fn below(&self) -> &dyn Env {
        &self.0
    }

    fn monotonic_micros(&self) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.monotonic_micros()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.monotonic_nanos()
    }
}

#[test]
fn calls_that_are_not_measured_do_not_look_at_the_clock() {
    for on in [false, true] {
        let env = Arc::new(Layer(Watched(SimEnv::new(1), AtomicU64::new(0))));
        let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new())).statistics(on);
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        // The log notes when its first record was written.
        db.put("first", "value").unwrap();
        let before = env.0.1.load(Ordering::Relaxed);
        let mut cursor = db.cursor().unwrap();
        for key in 0..100_u8 {
            db.put([key], "value").unwrap();
            db.get([key]).unwrap();
            cursor.seek([key]).unwrap();
            cursor.next().unwrap();
        }
        let looks = env.0.1.load(Ordering::Relaxed) - before;
        assert_eq!(looks, if on { 2 * 300 } else { 0 });
        drop((cursor, db));
        env.0.0.drop_jobs();
    }
}

/// The value of each sample, by name and labels.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Reads Prometheus text, strictly.
fn parse(text: &str) -> (BTreeMap<String, String>, Samples) {
    let is_name = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_')
            && chars.all(|char| char.is_ascii_alphanumeric() || char == '_')
    };
    let (mut types, mut helped, mut samples) = (BTreeMap::new(), BTreeSet::new(), Samples::new());
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
            assert!(helped.insert(name.to_owned()), "{name} has two helps");
            name.clone_into(&mut family);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} has two types");
            continue;
        }
        let end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(end);
        assert!(is_name(name), "{line}");
        let suffix = name.strip_prefix(&family).expect("samples follow the head of their family");
        let suffixes: &[&str] =
            if types[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        let mut labels = BTreeMap::new();
        if let Some(mut inner) = rest.strip_prefix('{') {
            while !inner.starts_with('}') {
                let (label, quoted) = inner.split_once("=\"").unwrap();
                assert!(is_name(label), "{line}");
                let (mut value, mut chars) = (String::new(), quoted.char_indices());
                let end = loop {
                    match chars.next().unwrap() {
                        (at, '"') => break at + 1,
                        (_, '\\') => value.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            char @ ('"' | '\\') => char,
                            other => panic!("\\{other} in {line}"),
                        }),
                        (_, char) => value.push(char),
                    }
                };
                assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
                inner = &quoted[end..];
                inner = inner.strip_prefix(',').unwrap_or(inner);
            }
            rest = &inner[1..];
        }
        let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
        assert!(samples.insert((name.to_owned(), labels), value).is_none(), "{line} comes twice");
    }
    (types, samples)
}

fn check_histograms(types: &BTreeMap<String, String>, samples: &Samples) {
    let histograms: Vec<_> = types.iter().filter(|(_, kind)| *kind == "histogram").collect();
    assert_eq!(histograms.len(), 3);
    for (name, _) in histograms {
        let mut series: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for ((sample, labels), value) in samples {
            if *sample == format!("{name}_bucket") {
                let mut labels = labels.clone();
                let bound = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
                series.entry(labels).or_default().push((bound, *value));
            }
        }
        assert!(!series.is_empty(), "{name}");
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name} {labels:?}: {buckets:?}");
            let count = samples[&(format!("{name}_count"), labels.clone())];
            let sum = samples[&(format!("{name}_sum"), labels.clone())];
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
            let at_most: f64 = buckets
                .iter()
                .scan(0.0, |before, &(bound, count)| Some((bound, count - std::mem::replace(before, count))))
                .filter(|(_, count)| *count > 0.0)
                .map(|(bound, count)| bound * count)
                .sum();
            assert!(sum <= at_most * 1.000_001, "{name} {labels:?}: {sum} of {at_most}");
        }
    }
}

fn value(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    *samples.get(&(name.to_owned(), labels)).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_prometheus_text_parses_and_says_what_the_metrics_say() {
    let (env, db) = open(true);
    let odd = "an \"odd\"\\name\nof two lines";
    let keyspace = db.keyspace(odd, KeyspaceOptions::new()).unwrap();
    keyspace.put("key", "value").unwrap();
    work(&db);
    db.get("synced").unwrap();
    let metrics: Metrics = db.metrics();
    let (types, samples) = parse(&metrics.to_prometheus());
    check_histograms(&types, &samples);
    let of = |name: &str, labels: &[(&str, &str)]| value(&samples, name, labels);
    assert_eq!(of("lsm_visible_sequence", &[]), metrics.visible_sequence as f64);
    assert_eq!(of("lsm_flushes_total", &[]), metrics.flushes as f64);
    assert_eq!(of("lsm_compaction_out_bytes_total", &[]), metrics.compaction_bytes_out as f64);
    let memory: f64 =
        samples.iter().filter(|((name, _), _)| name == "lsm_memory_bytes").map(|(_, value)| value).sum();
    assert_eq!(memory, metrics.memory_bytes() as f64);
    assert_eq!(of("lsm_keyspace_failed", &[("keyspace", odd)]), 0.0);
    for keyspace in &metrics.keyspaces {
        for (number, level) in keyspace.levels.iter().enumerate() {
            let labels = [("keyspace", keyspace.name.as_str()), ("level", &number.to_string())];
            assert_eq!(of("lsm_level_bytes", &labels), level.bytes as f64);
            assert_eq!(of("lsm_level_reads_total", &labels), level.reads as f64);
        }
    }
    let put = [("operation", "put")];
    assert_eq!(of("lsm_operation_seconds_count", &put), metrics.operations.put.count() as f64);
    let p99 = [("operation", "put"), ("quantile", "0.99")];
    let said = of("lsm_operation_quantile_seconds", &p99);
    assert!((said - metrics.operations.put.p99().as_secs_f64()).abs() < 1e-12);
    assert_eq!(of("lsm_wait_seconds_count", &[("wait", "log_sync")]), 1.0);
    assert_eq!(of("lsm_background_seconds_count", &[("work", "flush")]), metrics.flushes as f64);
    assert!(metrics.waits.iter().any(|wait| wait.why == WaitReason::LogSync));
    close(&env, db);
    drop(keyspace);
    env.drop_jobs();
}

#[test]
fn threads_lose_no_count() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(16 << 20).statistics(true).open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..20_u8 {
            let db = &db;
            scope.spawn(move || {
                for number in 0..200_u8 {
                    db.put([thread, number], "value").unwrap();
                    db.get([thread, number]).unwrap().unwrap();
                }
            });
        }
    });
    let Metrics { operations, background, .. } = db.metrics();
    assert_eq!((operations.put.count(), operations.get.count()), (4000, 4000));
    assert!(operations.get.p50() > Duration::ZERO && operations.put.p50() > Duration::ZERO);
    assert!(background.open > Duration::ZERO);
    db.close().unwrap();
}
