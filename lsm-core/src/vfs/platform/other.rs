//! Any other system: the standard library alone.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use parking_lot::Mutex;

use crate::vfs::file::Access;

pub(in crate::vfs) const TOO_MANY_OPEN_FILES: &[i32] = &[];

/// A file has one position, and calls come from several threads.
static POSITION: Mutex<()> = Mutex::new(());

pub(in crate::vfs) fn read_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let _guard = POSITION.lock();
    file.seek(SeekFrom::Start(offset))?;
    file.read(buffer)
}

pub(in crate::vfs) fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let _guard = POSITION.lock();
    file.seek(SeekFrom::Start(offset))?;
    file.write(bytes)
}

#[expect(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
pub(in crate::vfs) fn allocate(_file: &File, _bytes: u64) -> io::Result<bool> {
    Ok(false)
}

#[expect(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
pub(in crate::vfs) fn keeps_blocks(_file: &File) -> io::Result<bool> {
    Ok(false)
}

pub(in crate::vfs) fn start_writeback(_file: &File, _offset: u64, _bytes: u64) {}

pub(in crate::vfs) fn advise(_file: &File, _access: Access) {}

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
