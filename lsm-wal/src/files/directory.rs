//! The names of a log's files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Error, Result};

use crate::format::segment::{self, HeaderState, SegmentHeader};
use crate::report::RecoveryReport;

/// What the name of a segment ends with, after its number of at least six digits.
pub const SEGMENT_SUFFIX: &str = ".wal";
/// What the name of a window ends with, after the number of the first segment that uses it.
pub const WINDOW_SUFFIX: &str = ".window";
/// What the name of a segment ends with that recovery has not finished.
pub const UNFINISHED_SUFFIX: &str = ".wal.tmp";
/// What is appended to the name of a segment that was set aside because it holds something that is not part of the
/// log; see [`set_aside_dropped`]. Nothing reads it.
pub const DROPPED_SUFFIX: &str = ".dropped";

/// Numbers of files are below this, so that counting on never wraps. A file named higher is not ours.
const NUMBER_END: u64 = 1 << 60;
/// How many segments are kept that earlier openings set aside.
const DROPPED_KEPT_MAX: usize = 4;

/// What a file of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFile {
    Segment(u64),
    Window(u64),
    Unfinished(u64),
}

impl LogFile {
    /// The kind and number that a file name stands for.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, suffix) = name.split_at_checked(digits)?;
        let number = digits.parse().ok()?;
        let file = match suffix {
            SEGMENT_SUFFIX => Self::Segment(number),
            WINDOW_SUFFIX => Self::Window(number),
            UNFINISHED_SUFFIX => Self::Unfinished(number),
            _ => return None,
        };
        // One number, one name: "7.wal" is not ours.
        (number < NUMBER_END && file.name() == name).then_some(file)
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Segment(number) => format!("{number:06}{SEGMENT_SUFFIX}"),
            Self::Window(number) => format!("{number:06}{WINDOW_SUFFIX}"),
            Self::Unfinished(number) => format!("{number:06}{UNFINISHED_SUFFIX}"),
        }
    }

    pub(crate) fn number(self) -> u64 {
        let (Self::Segment(number) | Self::Window(number) | Self::Unfinished(number)) = self;
        number
    }

    pub(crate) fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.name())
    }
}

/// Fails unless a file of this number would be found again.
pub(crate) fn check_number(number: u64) -> Result<()> {
    if number < NUMBER_END {
        return Ok(());
    }
    Err(Error::invalid(format!("the numbers of log files are used up: they end before {NUMBER_END}")))
}

/// The files of the log in a directory, by number.
pub(crate) fn list(vfs: &dyn Vfs, directory: &Path) -> Result<Vec<LogFile>> {
    let names = list_names(vfs, directory)?;
    let mut files: Vec<LogFile> = names.iter().filter_map(|name| LogFile::parse(name)).collect();
    files.sort_by_key(|file| file.number());
    Ok(files)
}

fn list_names(vfs: &dyn Vfs, directory: &Path) -> Result<Vec<String>> {
    vfs.read_dir(directory).map_err(|error| Error::io("list the directory", directory, error))
}

pub(crate) fn remove(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

pub(crate) fn sync(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    vfs.sync_dir(directory).map_err(|error| Error::io("sync the directory", directory, error))
}

/// Opens a file that may be removed meanwhile, as a spare is that was not needed.
pub(crate) fn open_if_there(vfs: &dyn Vfs, path: &Path) -> Result<Option<Arc<dyn VfsFile>>> {
    match vfs.open_read(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// The header of a segment; `None` if it is gone.
pub(crate) fn read_header(vfs: &dyn Vfs, path: &Path) -> Result<Option<HeaderState>> {
    let Some(file) = open_if_there(vfs, path)? else { return Ok(None) };
    let mut bytes = [0; segment::HEADER_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path, error)),
        }
    }
    Ok(Some(SegmentHeader::decode(&bytes[..filled])))
}

/// Renames the segments of a directory that hold what a report says was dropped, so that nobody takes them for a part
/// of the log, and returns their new paths. Zeros at their end, which were allocated for more records, are cut off.
/// Durable when it returns. Of those that were set aside before, only the newest four stay.
///
/// [`Wal::open`](crate::Wal::open) does it; an engine that reads a log and begins another calls it each time, once it
/// needs nothing more of the old one, and before [`remove_segments_below`].
pub fn set_aside_dropped(vfs: &dyn Vfs, directory: &Path, report: &RecoveryReport) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<&Path> = report.dropped.iter().map(|dropped| &*dropped.path).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut set_aside = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !matches!(LogFile::parse(name), Some(LogFile::Segment(_))) {
            continue;
        }
        let aside = path.with_file_name(name.to_owned() + DROPPED_SUFFIX);
        vfs.rename(path, &aside).map_err(|error| Error::io("set aside", path, error))?;
        // A longer file says no less.
        let _kept = trim_zeros(vfs, &aside);
        set_aside.push(aside);
    }
    if !set_aside.is_empty() {
        sync(vfs, directory)?;
    }
    remove_old_dropped(vfs, directory, &set_aside)?;
    Ok(set_aside)
}

/// Removes what earlier openings set aside, but for the newest: each crash may leave one, and nobody may ever look.
fn remove_old_dropped(vfs: &dyn Vfs, directory: &Path, new: &[PathBuf]) -> Result<()> {
    let mut old: Vec<u64> = list_names(vfs, directory)?
        .iter()
        .filter_map(|name| match LogFile::parse(name.strip_suffix(DROPPED_SUFFIX)?)? {
            LogFile::Segment(number) => {
                Some(number).filter(|&number| !new.contains(&dropped(directory, number)))
            }
            LogFile::Window(_) | LogFile::Unfinished(_) => None,
        })
        .collect();
    old.sort_unstable();
    let surplus = old.len().saturating_sub(DROPPED_KEPT_MAX);
    old.iter().take(surplus).try_for_each(|&number| remove(vfs, &dropped(directory, number)))
}

fn dropped(directory: &Path, number: u64) -> PathBuf {
    directory.join(LogFile::Segment(number).name() + DROPPED_SUFFIX)
}

fn trim_zeros(vfs: &dyn Vfs, path: &Path) -> std::io::Result<()> {
    let file = vfs.open_write(path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut end = file.len()?;
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let part = &mut buffer[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(last) = part.iter().rposition(|&byte| byte != 0) {
            end = start + last as u64 + 1;
            break;
        }
        end = start;
    }
    file.set_len(end)?;
    file.sync_data()
}

/// Removes all of the log's files with numbers below `segment`, for an engine whose manifest no longer needs
/// them and is durable. Windows that a remaining segment still uses stay, so that this may be called while the
/// log is being written.
pub fn remove_segments_below(vfs: &dyn Vfs, directory: &Path, segment: u64) -> Result<()> {
    let files = list(vfs, directory)?;
    let mut windows = Vec::new();
    for &file in &files {
        if let LogFile::Segment(number) = file
            && number >= segment
            && let Some(HeaderState::Valid(header)) = read_header(vfs, &file.path(directory))?
        {
            windows.push(header.window);
        }
    }
    let mut removed = false;
    for file in files.into_iter().take_while(|file| file.number() < segment) {
        if matches!(file, LogFile::Window(number) if windows.contains(&number)) {
            continue;
        }
        remove(vfs, &file.path(directory))?;
        removed = true;
    }
    if removed { sync(vfs, directory) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_correspond_one_to_one() {
        let last = LogFile::Segment(NUMBER_END - 1);
        for file in [LogFile::Segment(7), LogFile::Window(1_234_567), LogFile::Unfinished(0), last] {
            assert_eq!(LogFile::parse(&file.name()), Some(file));
        }
        let others = [
            "7.wal",
            "000007.sst",
            "wal",
            "",
            "000007.wal.dropped",
            "1152921504606846976.wal",
            "18446744073709551615.wal",
            "99999999999999999999.wal",
            "é.wal",
        ];
        for other in others {
            assert_eq!(LogFile::parse(other), None, "{other}");
        }
    }
}
