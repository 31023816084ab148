//! All tables side by side with `BTreeMap` and `crossbeam-skiplist`: 550,000 entries, 16-byte keys, 100-byte values.
//!
//! A measured iteration is the whole work on all entries; divide by their number to get one operation. On Linux it is
//! the processor time of the thread that counts, so that neighbours on the machine disturb less.
#![expect(clippy::disallowed_methods, reason = "benchmarks measure time")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use crossbeam_skiplist::SkipMap;
use lsm_core::{SEQUENCE_MAX, ValueKind};
use lsm_dev::Random;
use lsm_memtable::{BPlusMemtable, MemtableFactory, ReferenceMemtable, SkipListMemtable};

const ENTRIES: u64 = 550_000;
const VALUE: [u8; 100] = [7; 100];

type Key = [u8; 16];

/// Time that this thread was running, in steps of a scheduler's tick, or time on the clock where that is not told.
struct ThreadTime;

impl ThreadTime {
    fn now() -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let nanos = std::fs::read_to_string("/proc/thread-self/schedstat")
            .ok()
            .and_then(|stat| stat.split_ascii_whitespace().next()?.parse().ok());
        nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
    }
}

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now().saturating_sub(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        const { &WallTime }.formatter()
    }
}

fn random_keys(seed: u64) -> Vec<Key> {
    let mut random = Random(seed);
    let mut key = || {
        let (high, low) = (random.next(), random.next());
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    };
    (0..ENTRIES).map(|_| key()).collect()
}

fn sequential_keys() -> Vec<Key> {
    (0..ENTRIES)
        .map(|number| {
            let mut key = Key::default();
            key.copy_from_slice(format!("{number:016}").as_bytes());
            key
        })
        .collect()
}

fn shuffled(keys: &[Key]) -> Vec<Key> {
    let mut keys = keys.to_vec();
    let mut random = Random(3);
    for end in (1..keys.len()).rev() {
        keys.swap(end, random.next() as usize % (end + 1));
    }
    keys
}

/// How to read a filled structure. The functions return a number of bytes, so that nothing is optimised away.
struct Reads<'a> {
    get: &'a dyn Fn(&Key) -> usize,
    walk: &'a dyn Fn() -> usize,
}

/// A structure under measurement.
trait Contestant {
    fn name(&self) -> String;
    /// Time to fill an empty one.
    fn insert(&self, keys: &[Key]) -> Duration;
    /// Fills one, then has its reads measured.
    fn filled(&self, keys: &[Key], measure: &mut dyn FnMut(&Reads<'_>));
}

struct Table {
    name: &'static str,
    factory: Box<dyn MemtableFactory>,
}

impl Contestant for Table {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn insert(&self, keys: &[Key]) -> Duration {
        let (mut writer, reader) = self.factory.create();
        let start = ThreadTime::now();
        for (sequence, key) in (1..).zip(keys) {
            writer.insert(key, sequence, ValueKind::Put, &VALUE).expect("there is room");
        }
        let time = ThreadTime::now().saturating_sub(start);
        black_box(reader.entry_count());
        time
    }

    fn filled(&self, keys: &[Key], measure: &mut dyn FnMut(&Reads<'_>)) {
        let (mut writer, reader) = self.factory.create();
        for (sequence, key) in (1..).zip(keys) {
            writer.insert(key, sequence, ValueKind::Put, &VALUE).expect("there is room");
        }
        let get = |key: &Key| reader.get(key, SEQUENCE_MAX).map_or(0, |entry| entry.value.len());
        let walk = || {
            let mut cursor = Arc::clone(&reader).cursor();
            let mut bytes = 0;
            cursor.first();
            while let Some(entry) = cursor.entry() {
                // As a flush would, look at the bytes.
                bytes += entry.key.len() + usize::from(entry.value[0]);
                cursor.next();
            }
            bytes
        };
        measure(&Reads { get: &get, walk: &walk });
    }
}

/// Without a lock, so with one thread only.
struct StdBTreeMap;

impl StdBTreeMap {
    fn fill(map: &mut BTreeMap<Box<[u8]>, Box<[u8]>>, keys: &[Key]) {
        for key in keys {
            map.insert(Box::from(&key[..]), Box::from(&VALUE[..]));
        }
    }
}

impl Contestant for StdBTreeMap {
    fn name(&self) -> String {
        "std BTreeMap".to_owned()
    }

    fn insert(&self, keys: &[Key]) -> Duration {
        let mut map = BTreeMap::new();
        let start = ThreadTime::now();
        Self::fill(&mut map, keys);
        let time = ThreadTime::now().saturating_sub(start);
        black_box(map.len());
        time
    }

    fn filled(&self, keys: &[Key], measure: &mut dyn FnMut(&Reads<'_>)) {
        let mut map = BTreeMap::new();
        Self::fill(&mut map, keys);
        let get = |key: &Key| map.get(&key[..]).map_or(0, |value| value.len());
        let walk = || map.iter().map(|(key, value)| key.len() + usize::from(value[0])).sum();
        measure(&Reads { get: &get, walk: &walk });
    }
}

struct CrossbeamSkipMap;

impl CrossbeamSkipMap {
    fn fill(map: &SkipMap<Box<[u8]>, Box<[u8]>>, keys: &[Key]) {
        for key in keys {
            map.insert(Box::from(&key[..]), Box::from(&VALUE[..]));
        }
    }
}

impl Contestant for CrossbeamSkipMap {
    fn name(&self) -> String {
        "crossbeam-skiplist".to_owned()
    }

    fn insert(&self, keys: &[Key]) -> Duration {
        let map = SkipMap::new();
        let start = ThreadTime::now();
        Self::fill(&map, keys);
        let time = ThreadTime::now().saturating_sub(start);
        black_box(map.len());
        time
    }

    fn filled(&self, keys: &[Key], measure: &mut dyn FnMut(&Reads<'_>)) {
        let map = SkipMap::new();
        Self::fill(&map, keys);
        let get = |key: &Key| map.get(&key[..]).map_or(0, |entry| entry.value().len());
        let walk = || map.iter().map(|entry| entry.key().len() + usize::from(entry.value()[0])).sum();
        measure(&Reads { get: &get, walk: &walk });
    }
}

fn contestants() -> Vec<Box<dyn Contestant>> {
    // Enough for one table, so that each takes over the memory of the one before.
    let recycled = BPlusMemtable::with_pool_bytes(256 << 20);
    recycled.warm(256 << 20);
    let skiplist = SkipListMemtable::with_pool_bytes(256 << 20);
    skiplist.warm(256 << 20);
    let table = |name, factory| Box::new(Table { name, factory }) as Box<dyn Contestant>;
    vec![
        table("b+ tree", Box::new(recycled)),
        table("b+ tree, fresh memory", Box::new(BPlusMemtable::with_pool_bytes(0))),
        table("skip list", Box::new(skiplist)),
        table("reference", Box::new(ReferenceMemtable)),
        Box::new(StdBTreeMap),
        Box::new(CrossbeamSkipMap),
    ]
}

fn inserts(c: &mut Criterion<ThreadTime>) {
    for (order, keys) in [("random", random_keys(1)), ("sequential", sequential_keys())] {
        let mut group = c.benchmark_group(format!("insert {order}"));
        group.throughput(Throughput::Elements(ENTRIES)).sampling_mode(SamplingMode::Flat).sample_size(10);
        for contestant in contestants() {
            group.bench_function(BenchmarkId::from_parameter(contestant.name()), |b| {
                b.iter_custom(|count| (0..count).map(|_| contestant.insert(&keys)).sum());
            });
        }
    }
}

fn reads(c: &mut Criterion<ThreadTime>) {
    let keys = random_keys(1);
    let hits = shuffled(&keys);
    let misses = random_keys(2);
    for contestant in contestants() {
        contestant.filled(&keys, &mut |Reads { get, walk }| {
            for (what, keys) in [("get", &hits), ("get of absent keys", &misses)] {
                let mut group = c.benchmark_group(what);
                group
                    .throughput(Throughput::Elements(ENTRIES))
                    .sampling_mode(SamplingMode::Flat)
                    .sample_size(10);
                group.bench_function(BenchmarkId::from_parameter(contestant.name()), |b| {
                    b.iter(|| keys.iter().map(get).sum::<usize>());
                });
            }
            let mut group = c.benchmark_group("walk");
            group.throughput(Throughput::Elements(ENTRIES)).sampling_mode(SamplingMode::Flat).sample_size(10);
            group.bench_function(BenchmarkId::from_parameter(contestant.name()), |b| b.iter(walk));
        });
    }
}

criterion_group!(
    name = benches;
    config = Criterion::default().with_measurement(ThreadTime);
    targets = inserts, reads
);
criterion_main!(benches);
