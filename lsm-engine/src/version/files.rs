//! Names of the files in a database directory.

use std::path::{Path, PathBuf};

use lsm_core::vfs::Vfs;
use lsm_wal::{SEGMENT_SUFFIX, WINDOW_SUFFIX};

use crate::error::{Error, Result};

/// Points at the manifest in use.
pub(crate) const CURRENT: &str = "CURRENT";
/// Becomes `CURRENT` by a rename.
pub(crate) const CURRENT_NEXT: &str = "CURRENT.next";
/// Bytes of the disk that are held back for the way out of a full one.
pub(crate) const RESERVE: &str = "RESERVE";
/// Locked while a process has the database open; never unlinked.
pub(crate) const LOCK: &str = "LOCK";

/// Numbers of files and runs are below this, so that counting on never wraps. A file named higher is not ours.
pub(crate) const NUMBER_END: u64 = 1 << 60;

/// A file that belongs to a database, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Table(u64),
    Manifest(u64),
    /// The log names its own files; see `lsm-wal`.
    Log(u64),
    Current,
    CurrentNext,
    Reserve,
    Lock,
}

/// What a name says, `None` for a file that is not ours.
pub(crate) fn parse(name: &str) -> Option<FileKind> {
    match name {
        CURRENT => return Some(FileKind::Current),
        CURRENT_NEXT => return Some(FileKind::CurrentNext),
        RESERVE => return Some(FileKind::Reserve),
        LOCK => return Some(FileKind::Lock),
        _ => {}
    }
    if let Some(number) = name.strip_prefix("MANIFEST-") {
        return parse_number(number).map(FileKind::Manifest);
    }
    let (stem, suffix) = name.split_once('.')?;
    let number = parse_number(stem)?;
    match suffix {
        "sst" => Some(FileKind::Table(number)),
        _ if [SEGMENT_SUFFIX, WINDOW_SUFFIX].iter().any(|known| known.strip_prefix('.') == Some(suffix)) => {
            Some(FileKind::Log(number))
        }
        _ => None,
    }
}

/// Only the spelling that we write ourselves counts: `+7`, `007x` and the like belong to somebody else.
fn parse_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number < NUMBER_END && text == format!("{number:06}")).then_some(number)
}

pub(crate) fn table(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}.sst"))
}

pub(crate) fn manifest(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("MANIFEST-{number:06}"))
}

/// Names in a database directory.
pub(crate) fn list(vfs: &dyn Vfs, directory: &Path) -> Result<Vec<String>> {
    vfs.read_dir(directory).map_err(|error| Error::io("list", directory, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_and_strangers_are_left_alone() {
        let directory = Path::new("d");
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        for number in [0, 7, 999_999, 1_000_000, NUMBER_END - 1] {
            assert_eq!(parse(&name(table(directory, number))), Some(FileKind::Table(number)));
            assert_eq!(parse(&name(manifest(directory, number))), Some(FileKind::Manifest(number)));
        }
        for stranger in [
            "7.sst",
            "18446744073709551615.sst",
            "+00007.sst",
            "000007.sst.bak",
            "MANIFEST-",
            "notes.txt",
            "000007",
            ".sst",
        ] {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }
}
