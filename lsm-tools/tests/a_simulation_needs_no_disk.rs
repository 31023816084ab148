//! `simulate` plays policies on metadata alone.

mod common;

use common::lsm;

#[test]
fn policies_are_compared_under_one_workload() {
    let arguments = ["simulate", "leveled", "size-tiered", "--keys", "2M", "--memtable", "4M", "--json"];
    let first = lsm(arguments).stdout();
    let reports: Vec<serde_json::Value> =
        first.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect();
    let names: Vec<_> = reports.iter().map(|report| report["policy"].as_str().unwrap_or_default()).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[0], "leveled");
    let amplification = |index: usize| reports[index]["write_amplification"].as_f64().expect("a number");
    assert!(amplification(0) > amplification(1), "leveled rewrites more: {first}");
    assert_eq!(lsm(arguments).stdout(), first, "the same command prints the same");
}

#[test]
fn a_report_is_readable_and_bad_numbers_are_refused() {
    let report = lsm(["simulate", "--keys", "1M", "--memtable", "4M", "--distribution", "zipf"]).stdout();
    assert!(report.contains("leveled") && report.contains("amplification"), "{report}");
    for arguments in
        [["simulate", "--keys", "many"], ["simulate", "--deletes", "2"], ["simulate", "--memtable", "x"]]
    {
        lsm(arguments).failure(2);
    }
    lsm(["simulate", "nosuchpolicy"]).failure(2);
}
