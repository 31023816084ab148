//! Records survive the way out and in again, in every format, compressed or not.

mod common;

use std::io::Write;

use common::{Directory, lsm, lsm_with_input};

/// Keys and values with everything that could break a line-oriented format.
fn nasty_records() -> String {
    let all_bytes = (0..=255).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let mut lines = [
        "\t".to_owned(),               // an empty key and an empty value
        "00\t".to_owned(),             // a zero byte
        "09\t0a0d".to_owned(),         // tab; line feed, carriage return
        "5c\t5c6e".to_owned(),         // a backslash; a backslash and an n
        "efbbbf\t22".to_owned(),       // a byte-order mark; a quote
        "f09f9880\te282ac".to_owned(), // characters of four and three bytes
        format!("ff\t{all_bytes}"),
        format!("fffe\t{}", "ab".repeat(100_000)),
    ];
    lines.sort();
    lines.join("\n") + "\n"
}

#[test]
fn every_format_round_trips() {
    let directory = Directory::new();
    let original = nasty_records();
    let source = directory.arg("source");
    lsm_with_input(["load", &source, "-", "--input-format", "hex"], original.as_bytes()).stdout();
    assert_eq!(lsm(["scan", &source, "--format", "hex"]).stdout(), original);

    for format in ["text", "json", "hex"] {
        let exported = lsm(["scan", &source, "--format", format]).stdout();
        assert_eq!(exported.lines().count(), 8, "{format}: one record is one line");
        let copy = directory.arg(format);
        lsm_with_input(["load", &copy, "-", "--input-format", format], exported.as_bytes()).stdout();
        assert_eq!(lsm(["scan", &copy, "--format", "hex"]).stdout(), original, "{format}");
    }
}

#[test]
fn what_scan_prints_in_reverse_is_the_same_backwards() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm_with_input(["load", &db, "-", "--input-format", "hex"], nasty_records().as_bytes()).stdout();
    let forwards = lsm(["scan", &db]).stdout();
    let backwards = lsm(["scan", &db, "--reverse"]).stdout();
    assert_eq!(forwards.lines().rev().collect::<Vec<_>>(), backwards.lines().collect::<Vec<_>>());
}

#[test]
fn compressed_files_are_told_by_their_first_bytes() {
    let directory = Directory::new();
    let text = "b\t2\na\t1\n";
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);

    for (name, bytes) in [("a.tsv.gz", &gzip), ("a.tsv.zst", &zstd), ("misnamed.tsv", &gzip)] {
        let file = directory.write(name, bytes);
        let db = directory.arg(&format!("{name}.db"));
        lsm(["load", &db, &file]).stdout();
        assert_eq!(lsm(["scan", &db]).stdout(), "a\t1\nb\t2\n", "{name}");

        let db = directory.arg(&format!("{name}.stdin.db"));
        lsm_with_input(["load", &db, "-"], bytes).stdout();
        assert_eq!(lsm(["scan", &db]).stdout(), "a\t1\nb\t2\n", "{name} by standard input");
    }
}

#[test]
fn csv_and_json_files_are_told_by_their_names() {
    let directory = Directory::new();
    let csv = directory.write("people.csv", "name,email\n\"Doe, Jane\",jane@example.org\n");
    let db = directory.arg("csv");
    lsm(["load", &db, &csv, "--key-column", "email", "--value-column", "name"]).stdout();
    assert_eq!(lsm(["scan", &db]).stdout(), "jane@example.org\tDoe, Jane\n");
    lsm(["load", &db, &csv]).stdout();
    assert_eq!(lsm(["get", &db, "name"]).stdout(), "email\n", "without --header every row is a record");

    let json = directory.write("people.jsonl", "{\"key\":\"a\",\"value_hex\":\"00ff\"}\n");
    let db = directory.arg("json");
    lsm(["load", &db, &json]).stdout();
    assert_eq!(lsm(["scan", &db]).stdout(), "a\t\\x00\\xff\n");
    assert_eq!(lsm(["scan", &db, "--format", "json"]).stdout(), "{\"key\":\"a\",\"value_hex\":\"00ff\"}\n");
}

#[test]
fn values_go_in_and_out_byte_for_byte() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm_with_input(["put", &db, "text"], "line one\nline two\tüber".as_bytes()).stdout();
    assert_eq!(lsm(["get", &db, "text"]).stdout(), "line one\\nline two\\tüber\n");
    assert_eq!(lsm(["get", &db, "text", "--raw"]).stdout(), "line one\nline two\tüber");
    assert_eq!(
        lsm(["get", &db, "text", "--format", "json"]).stdout(),
        "{\"value\":\"line one\\nline two\\tüber\"}\n"
    );

    lsm(["put", &db, "--hex", "00ff", "0102"]).stdout();
    assert_eq!(lsm(["get", &db, r"\x00\xff", "--format", "hex"]).stdout(), "0102\n");
    lsm(["put", &db, "", "an empty key is a key"]).stdout();
    assert_eq!(lsm(["get", &db, ""]).stdout(), "an empty key is a key\n");
    lsm(["put", &db, "--", "-key", "-value"]).stdout();
    assert_eq!(lsm(["get", &db, "--", "-key"]).stdout(), "-value\n");
}

/// Short lines take many times their length in memory, and long ones nearly all that a batch may: neither makes a batch
/// that the database refuses.
#[test]
fn batches_are_cut_to_what_the_memory_takes() {
    use std::fmt::Write;

    let directory = Directory::new();
    let db = directory.arg("db");
    let mut lines = String::new();
    for number in 0..20_000 {
        writeln!(lines, "{number:05}\t").unwrap();
        if number % 5_000 == 0 {
            writeln!(lines, "{number:05}long\t{}", "v".repeat(500_000)).unwrap();
        }
    }
    let arguments = ["load", &db, "-", "--memory", "2M", "--batch", "1000000"];
    let loaded = lsm_with_input(arguments, lines.as_bytes()).stdout();
    assert!(loaded.starts_with("20004 lines committed"), "{loaded}");
    assert_eq!(lsm(["count", &db]).stdout().trim(), "20004");
}
