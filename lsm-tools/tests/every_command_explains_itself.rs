//! Help, version and shell completions.

mod common;

use common::lsm;

const COMMANDS: &[&str] = &[
    "demo",
    "load",
    "ingest",
    "get",
    "put",
    "delete",
    "scan",
    "count",
    "stats",
    "dump",
    "events",
    "changes",
    "verify",
    "compact",
    "checkpoint",
    "backup",
    "simulate",
    "completions",
];

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let help = lsm(["--help"]).stdout();
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in:\n{help}");
    }
    assert!(help.contains("0 done, 1 not found, 2 usage, 3 corruption, 4 I/O or lock"), "{help}");
    assert!(!help.contains("demo-writer"), "the demo's child is hidden");
}

#[test]
fn every_command_has_examples() {
    for command in COMMANDS {
        for help in [lsm([command, "--help"]).stdout(), lsm(["help", command]).stdout()] {
            assert!(help.contains("Examples:\n  lsm "), "{command}:\n{help}");
        }
    }
}

#[test]
fn help_fits_terminals_of_any_usual_width() {
    for command in COMMANDS {
        let text = |columns: &str| {
            let output = common::command(["help", command]).env("COLUMNS", columns).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        for columns in ["80", "100"] {
            let help = text(columns);
            let width = columns.parse().unwrap();
            assert!(help.lines().all(|line| line.chars().count() <= width), "{command}:\n{help}");
            // Examples are not broken, or they could not be copied; and prose fills its lines.
            let (_, rest) = help.split_once("Examples:\n").unwrap();
            let (examples, prose) = rest.split_once("\n\n").unwrap_or((rest, ""));
            assert!(examples.trim_end().lines().all(|line| line.contains("lsm ")), "{command}:\n{help}");
            let lines: Vec<_> = prose.lines().map(|line| line.chars().count()).collect();
            let full = lines.iter().rev().skip(1).all(|&line| line + 20 > width);
            assert!(full, "{command}:\n{help}");
        }
    }
}

#[test]
fn without_a_command_there_is_help_and_exit_code_2() {
    let outcome = lsm([] as [&str; 0]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("Usage: lsm"), "{outcome:?}");
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(lsm(["--version"]).stdout(), format!("lsm {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = lsm(["completions", shell]).stdout();
        assert!(script.contains("scan"), "{shell}");
    }
    lsm(["completions", "nosuchshell"]).failure(2);
}
