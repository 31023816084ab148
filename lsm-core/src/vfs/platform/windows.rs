//! Windows.

use std::fs::File;
use std::io;
use std::os::windows::fs::FileExt;
use std::path::Path;

use crate::vfs::file::Access;

/// `ERROR_TOO_MANY_OPEN_FILES`.
pub(in crate::vfs) const TOO_MANY_OPEN_FILES: &[i32] = &[4];

pub(in crate::vfs) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(buffer, offset)
}

pub(in crate::vfs) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(bytes, offset)
}

/// NTFS reserves the clusters of a file that is extended, sparse files apart, so extending is all there is to do.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
pub(in crate::vfs) fn allocate(_file: &File, _bytes: u64) -> io::Result<bool> {
    Ok(false)
}

/// NTFS writes to clusters where they are.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
pub(in crate::vfs) fn keeps_blocks(_file: &File) -> io::Result<bool> {
    Ok(true)
}

pub(in crate::vfs) fn start_writeback(_file: &File, _offset: u64, _bytes: u64) {}

pub(in crate::vfs) fn advise(_file: &File, _access: Access) {}

/// NTFS journals names; there is nothing to flush by hand.
#[expect(clippy::disallowed_methods, reason = "below PosixFs")]
pub(in crate::vfs) fn sync_dir(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

pub(in crate::vfs) fn free_bytes(_path: &Path) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(in crate::vfs) fn raise_open_files_limit() -> Option<u64> {
    None
}
