//! `stats --prometheus`: the metrics of a database as text that a collector reads.

mod common;

use common::{Directory, lsm, lsm_with_input};

#[test]
fn stats_say_the_shape_of_each_keyspace_to_prometheus() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm_with_input(["load", &db, "-"], b"apple\t1\nbanana\t2\ncherry\t3\n").stdout();
    lsm_with_input(["load", &db, "-", "--keyspace", "an \"odd\" one"], b"leek\t7\n").stdout();
    lsm(["compact", &db]).stdout();
    lsm(["compact", &db, "--keyspace", "an \"odd\" one"]).stdout();

    let text = lsm(["stats", &db, "--prometheus"]).stdout();
    let value = |series: &str| {
        let samples = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let values: Vec<u64> = samples.map(|value| value.parse().unwrap()).collect();
        assert_eq!(values.len(), 1, "{series} in {text}");
        values[0]
    };
    let entries = |keyspace: &str| -> u64 {
        let all = format!("lsm_level_entries{{keyspace=\"{keyspace}\",level=");
        let samples = text.lines().filter(|line| line.starts_with(&all));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!(entries("default"), 3);
    assert_eq!(entries("an \\\"odd\\\" one"), 1);
    assert_eq!(value("lsm_keyspace_failed{keyspace=\"default\"}"), 0);
    assert_eq!(value("lsm_visible_sequence"), 4);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with("lsm_") && value.parse::<f64>().is_ok(), "{line}");
    }
    for family in ["lsm_operation_seconds", "lsm_wait_seconds", "lsm_background_seconds"] {
        assert!(text.contains(&format!("\n# TYPE {family} histogram\n")), "{family}");
    }
    lsm(["stats", &db, "--prometheus", "--json"]).failure(2);
}
