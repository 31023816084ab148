//! Names of the files in a database directory.

use std::path::{Path, PathBuf};

use lsm_core::vfs::Vfs;
use lsm_wal::{SEGMENT_SUFFIX, WINDOW_SUFFIX};

use crate::error::{Error, Result};

/// Names the current manifest.
pub(crate) const CURRENT: &str = "CURRENT";
/// Becomes `CURRENT` by a rename.
pub(crate) const CURRENT_NEXT: &str = "CURRENT.next";
/// The disk reserve.
pub(crate) const RESERVE: &str = "RESERVE";
/// The lock file, locked while a process has the database open. It is never unlinked.
pub(crate) const LOCK: &str = "LOCK";

/// The lock file of a directory that a checkpoint or restore is filling. A database does not have it for long.
pub(crate) const STAGING: &str = "STAGING";

/// Numbers of files and runs are below this, so that counters never wrap. Files with higher numbers are not ours.
pub(crate) const NUMBER_END: u64 = 1 << 60;

/// The number of followers that a database can have at the same time: each has a slot for its lease.
pub(crate) const LEASE_SLOT_COUNT: u8 = 32;

/// The kind of a database file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Table(u64),
    /// A file with large values.
    Blob(u64),
    Manifest(u64),
    /// The log names its own files; see `lsm-wal`.
    Log(u64),
    Current,
    CurrentNext,
    Reserve,
    Lock,
    Staging,
    /// A file of the flight recorder.
    Events(u64),
    /// The lease of a follower.
    Lease(u8),
}

/// The kind of the file with this name; `None` if it is not a file of a database.
pub(crate) fn parse(name: &str) -> Option<FileKind> {
    match name {
        CURRENT => return Some(FileKind::Current),
        CURRENT_NEXT => return Some(FileKind::CurrentNext),
        RESERVE => return Some(FileKind::Reserve),
        LOCK => return Some(FileKind::Lock),
        STAGING => return Some(FileKind::Staging),
        _ => {}
    }
    if let Some(number) = name.strip_prefix("MANIFEST-") {
        return parse_number(number).map(FileKind::Manifest);
    }
    if let Some(number) = name.strip_prefix("EVENTS-") {
        return parse_number(number).map(FileKind::Events);
    }
    if let Some(slot) = name.strip_prefix("FOLLOWER-") {
        let number: u8 = slot.parse().ok()?;
        return (number < LEASE_SLOT_COUNT && slot == format!("{number:02}"))
            .then_some(FileKind::Lease(number));
    }
    let (stem, suffix) = name.split_once('.')?;
    let number = parse_number(stem)?;
    match suffix {
        "sst" => Some(FileKind::Table(number)),
        "blob" => Some(FileKind::Blob(number)),
        _ if [SEGMENT_SUFFIX, WINDOW_SUFFIX].iter().any(|known| known.strip_prefix('.') == Some(suffix)) => {
            Some(FileKind::Log(number))
        }
        _ => None,
    }
}

/// Parses a number only in the form that the engine writes. Files named `+7` or `007x` are not ours.
fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number < NUMBER_END && text == format!("{number:06}")).then_some(number)
}

pub(crate) fn table(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}.sst"))
}

pub(crate) fn blob(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}.blob"))
}

pub(crate) fn manifest(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("MANIFEST-{number:06}"))
}

/// A segment of the log; see `lsm-wal`.
pub(crate) fn segment(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}{SEGMENT_SUFFIX}"))
}

pub(crate) fn events(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("EVENTS-{number:06}"))
}

pub(crate) fn lease(directory: &Path, slot: u8) -> PathBuf {
    directory.join(format!("FOLLOWER-{slot:02}"))
}

/// The numbers of the files of the flight recorder, ascending.
pub(crate) fn event_numbers(vfs: &dyn Vfs, directory: &Path) -> Result<Vec<u64>> {
    let number = |name: &String| match parse(name)? {
        FileKind::Events(number) => Some(number),
        _ => None,
    };
    let mut numbers: Vec<u64> = list(vfs, directory)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The names of all files in a database directory.
pub(crate) fn list(vfs: &dyn Vfs, directory: &Path) -> Result<Vec<String>> {
    vfs.read_dir(directory).map_err(|error| Error::io("list", directory, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_parsed_and_foreign_names_are_not() {
        let directory = Path::new("d");
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        for number in [0, 7, 999_999, 1_000_000, NUMBER_END - 1] {
            assert_eq!(parse(&name(table(directory, number))), Some(FileKind::Table(number)));
            assert_eq!(parse(&name(blob(directory, number))), Some(FileKind::Blob(number)));
            assert_eq!(parse(&name(manifest(directory, number))), Some(FileKind::Manifest(number)));
            assert_eq!(parse(&name(events(directory, number))), Some(FileKind::Events(number)));
        }
        for slot in 0..LEASE_SLOT_COUNT {
            assert_eq!(parse(&name(lease(directory, slot))), Some(FileKind::Lease(slot)));
        }
        for stranger in [
            "FOLLOWER-",
            "FOLLOWER-7",
            "FOLLOWER-+7",
            "FOLLOWER-32",
            "FOLLOWER-007",
            "7.sst",
            "18446744073709551615.sst",
            "+00007.sst",
            "000007.sst.bak",
            "MANIFEST-",
            "EVENTS-",
            "notes.txt",
            "000007",
            ".sst",
        ] {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }
}
