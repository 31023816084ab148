//! With the feature `metrics`: metrics are published through the facade, with the names of the Prometheus text.
#![cfg(feature = "metrics")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lsm_engine::Options;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder,
};

/// Keeps the values of counters and gauges, and the names that were described.
#[derive(Default)]
struct Kept {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    described: Mutex<BTreeMap<String, String>>,
}

fn name(key: &Key) -> String {
    let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    format!("{} {}", key.name(), labels.join(","))
}

impl Kept {
    fn describe(&self, key: &KeyName, help: &SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), help.to_string());
    }

    fn counter(&self, name: &str) -> u64 {
        self.counters.lock().unwrap()[name].load(Ordering::Relaxed)
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.gauges.lock().unwrap()[name].load(Ordering::Relaxed))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, &help);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&key, &help);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("{} is a histogram", key.as_str());
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.counters.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(self.gauges.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("{key} is a histogram")
    }
}

#[test]
fn metrics_are_published_with_the_names_and_values_of_the_prometheus_text() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).statistics(true).open(directory.path()).unwrap();
    for key in 0..100_u8 {
        db.put([key], "value").unwrap();
    }
    db.flush().unwrap();
    let (recorder, metrics) = (Kept::default(), db.metrics());
    with_local_recorder(&recorder, || metrics.publish(&[("database", "users")]));

    assert_eq!(recorder.counter("lsm_visible_sequence database=users"), 100);
    assert_eq!(recorder.counter("lsm_operation_seconds_count database=users,operation=put"), 100);
    let p99 = recorder.gauge("lsm_operation_quantile_seconds database=users,operation=put,quantile=0.99");
    assert!((p99 - metrics.operations.put.p99().as_secs_f64()).abs() < 1e-9 && p99 > 0.0);
    let bytes = recorder.gauge("lsm_level_bytes database=users,keyspace=default,level=0");
    assert!((bytes - metrics.keyspaces[0].levels[0].bytes as f64).abs() < 0.5 && bytes > 0.0);
    let stalled = recorder.gauge("lsm_stall_seconds_total database=users,reason=sync");
    assert!((stalled * 1e6 - metrics.stall_sync_micros as f64).abs() < 0.5);

    // Everything in the text is there, and described.
    let described = recorder.described.lock().unwrap();
    for line in metrics.to_prometheus().lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        if name.ends_with("_bucket") {
            continue;
        }
        assert!(described.contains_key(name), "{name}");
        let published = |kept: &Mutex<BTreeMap<String, _>>| {
            kept.lock().unwrap().keys().any(|key: &String| key.split(' ').next() == Some(name))
        };
        assert!(published(&recorder.counters) || published(&recorder.gauges), "{name}");
    }
    db.close().unwrap();
}
