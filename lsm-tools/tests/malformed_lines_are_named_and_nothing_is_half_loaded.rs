//! What `load` does with input that is not as it must be.

mod common;

use common::{Directory, lsm, lsm_with_input};

fn lines(count: usize) -> String {
    (1..=count).map(|number| format!("key{number:06}\tvalue\n")).collect::<Vec<_>>().concat()
}

#[test]
fn a_malformed_line_stops_the_load_and_its_batch_is_not_written() {
    let directory = Directory::new();
    let db = directory.arg("db");
    let file = directory.write("lines.tsv", lines(25) + "no tab\n" + &lines(40));
    let outcome = lsm(["load", &db, &file, "--batch", "10"]);
    assert!(outcome.stdout.starts_with("20 lines committed in "), "{outcome:?}");
    let message = outcome.failure(2);
    assert!(message.contains("lines.tsv: line 26: no tab between key and value"), "{message}");
    assert_eq!(lsm(["count", &db]).stdout(), "20\n");
}

#[test]
fn skip_bad_passes_over_malformed_lines_and_counts_them() {
    let directory = Directory::new();
    let db = directory.arg("db");
    let input = format!("a\t1\nbad\nb\t\\q\n{}\t3\nc\t4\n", "k".repeat(65_536));
    let stdout = lsm_with_input(["load", &db, "-", "--skip-bad"], input.as_bytes()).stdout();
    assert!(stdout.starts_with("2 lines committed in "), "{stdout}");
    assert!(stdout.contains("3 malformed lines skipped; the first is line 2: no tab"), "{stdout}");
    assert_eq!(lsm(["scan", &db]).stdout(), "a\t1\nc\t4\n");
    let stdout = lsm_with_input(["load", &db, "-", "--skip-bad"], b"bad\n").stdout();
    assert!(stdout.contains("1 malformed line skipped; the first is line 1: no tab"), "{stdout}");
}

#[test]
fn malformed_lines_of_each_format_are_explained() {
    let directory = Directory::new();
    let long_key = "k".repeat(65_536);
    for (format, input, expected) in [
        ("text", "a\\d\t1\n".to_owned(), r"line 1: \d is no escape"),
        (
            "text",
            format!("a\t1\n{long_key}\t1\n"),
            "line 2: the key has 65536 bytes; the longest allowed has 65535",
        ),
        ("hex", "abc\t00\n".to_owned(), "line 1: 3 hex digits"),
        ("json", "{\"key\":\"a\"}\n".to_owned(), "line 1: no \"value\" and no \"value_hex\""),
        ("json", "{}\nnot json\n".to_owned(), "line 1: no \"key\""),
        ("csv", "a,1\nb\n".to_owned(), "line 2: 1 column(s), at least 2 needed"),
        ("csv", "\"a,1\n".to_owned(), "line 1: a quote is opened and never closed"),
    ] {
        let db = directory.arg("db");
        let message =
            lsm_with_input(["load", &db, "-", "--input-format", format], input.as_bytes()).failure(2);
        assert!(message.contains(expected), "{format}: {message}");
        assert_eq!(lsm(["count", &db]).stdout(), "0\n");
    }
}

#[test]
fn a_column_that_the_header_lacks_is_an_error_even_when_bad_lines_are_skipped() {
    let directory = Directory::new();
    let (db, file) = (directory.arg("db"), directory.write("a.csv", "id,name\n1,2\n"));
    let message = lsm(["load", &db, &file, "--key-column", "nope", "--skip-bad"]).failure(2);
    assert!(message.contains("the header has no column \"nope\""), "{message}");
}

#[test]
fn a_line_longer_than_the_memory_is_malformed_and_not_read_into_it() {
    let directory = Directory::new();
    let db = directory.arg("db");
    let huge = format!("a\t1\nhuge\t{}\nb\t2\n", "x".repeat(9 << 20));
    let arguments = ["load", &db, "-", "--memory", "8M", "--skip-bad"];
    let stdout = lsm_with_input(arguments, huge.as_bytes()).stdout();
    assert!(stdout.contains("line 2: the line is longer than 8388608 bytes"), "{stdout}");
    let large = format!("c\t{}\n", "x".repeat(3 << 20));
    let message = lsm_with_input(["load", &db, "-", "--memory", "8M"], large.as_bytes()).failure(2);
    assert!(message.contains("raise --memory"), "{message}");
    assert_eq!(lsm(["scan", &db, "--keys"]).stdout(), "a\nb\n");
}

#[test]
fn a_damaged_compressed_file_is_corruption_and_what_came_before_counts() {
    use std::io::Write;
    let directory = Directory::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(lines(100_000).as_bytes()).unwrap();
    let mut bytes = encoder.finish().unwrap();
    bytes.truncate(bytes.len() / 2);
    let (db, file) = (directory.arg("db"), directory.write("cut.tsv.gz", bytes));
    let outcome = lsm(["load", &db, &file]);
    let committed: u64 = outcome.stdout.split(' ').next().unwrap().parse().unwrap();
    let message = outcome.failure(3);
    assert!(message.contains("cut.tsv.gz: the compressed data is damaged"), "{message}");
    assert!(committed > 0 && committed.is_multiple_of(1000), "{committed}");
    assert_eq!(lsm(["count", &db]).stdout(), format!("{committed}\n"));
    // A magic number and nothing more.
    for (name, bytes) in [("cut.gz", &[0x1f, 0x8b][..]), ("cut.zst", &[0x28, 0xb5, 0x2f, 0xfd])] {
        let message = lsm(["load", &db, &directory.write(name, bytes)]).failure(3);
        assert!(message.contains(name) && !message.contains("Error {"), "{message}");
    }
}

#[test]
fn a_missing_input_makes_no_database() {
    let directory = Directory::new();
    let db = directory.arg("db");
    let message = lsm(["load", &db, &directory.arg("missing.tsv")]).failure(4);
    assert!(message.contains("missing.tsv"), "{message}");
    assert!(!directory.path("db").exists());
    let message = lsm(["load", &db, &directory.arg("")]).failure(4);
    assert!(message.contains("is a directory"), "{message}");
    assert!(!directory.path("db").exists());
}

#[test]
fn an_option_of_another_format_is_refused() {
    let directory = Directory::new();
    let db = directory.arg("db");
    for (options, named) in [
        (["--key-column", "email", "--batch", "9"].as_slice(), "--key-column"),
        (&["--value-column", "name"], "--value-column"),
        (&["--header"], "--header"),
        (&["--no-escapes", "--format", "csv"], "--no-escapes"),
    ] {
        let message = lsm_with_input([["load", &db, "-"].as_slice(), options].concat(), b"a\tb\n").failure(2);
        assert!(message.contains(named) && message.contains("--input-format"), "{message}");
    }
    assert!(!std::path::Path::new(&db).exists(), "nothing was made");
}

#[test]
fn a_sorted_load_is_all_or_nothing() {
    let directory = Directory::new();
    let db = directory.arg("db");
    let file = directory.write("lines.tsv", lines(25_000) + "key000001\tvalue\n");
    let outcome = lsm(["load", &db, &file, "--sorted"]);
    assert!(outcome.stdout.starts_with("0 lines committed in "), "{outcome:?}");
    let message = outcome.failure(2);
    let why = "line 25001: key \"key000001\" does not come after \"key025000\", the key before it";
    assert!(message.contains(why), "{message}");
    assert_eq!(lsm(["count", &db]).stdout(), "0\n");
    let file = directory.write("lines.tsv", lines(25_000) + "no tab\n");
    lsm(["load", &db, &file, "--sorted"]).failure(2);
    assert_eq!(lsm(["count", &db]).stdout(), "0\n");
    let stdout = lsm(["load", &db, &file, "--sorted", "--skip-bad"]).stdout();
    assert!(stdout.starts_with("25000 lines committed in "), "{stdout}");
    assert_eq!(lsm(["count", &db]).stdout(), "25000\n");
    assert_eq!(lsm(["get", &db, "key012345"]).stdout(), "value\n");
    assert!(lsm(["verify", &db]).stdout().contains("ok"));
}
