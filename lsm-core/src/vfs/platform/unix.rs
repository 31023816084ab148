//! Linux, macOS and the BSDs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::vfs::Access;

/// `EMFILE` first.
pub(in crate::vfs) const TOO_MANY_OPEN_FILES: &[i32] =
    &[rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()];

pub(in crate::vfs) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    FileExt::read_at(file, buffer, offset)
}

pub(in crate::vfs) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    FileExt::write_at(file, bytes, offset)
}

/// Reserves blocks and extends the file; `false` if this file system cannot.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_vendor = "apple"))]
pub(in crate::vfs) fn allocate(file: &File, bytes: u64) -> io::Result<bool> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::{Errno, retry_on_intr};

    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        // macOS reserves without extending, and what it reserves is at the end of the file.
        Ok(()) => Ok(!cfg!(target_vendor = "apple")),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_vendor = "apple")))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
pub(in crate::vfs) fn allocate(_file: &File, _bytes: u64) -> io::Result<bool> {
    Ok(false)
}

/// `sync_file_range` is the only call that does this without dropping pages, and rustix does not wrap it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
pub(in crate::vfs) fn start_writeback(file: &File, offset: u64, bytes: u64) {
    use std::os::fd::AsRawFd;

    let (Ok(offset), Ok(bytes)) = (offset.try_into(), bytes.try_into()) else { return };
    // SAFETY: the call takes no pointers. The descriptor is open for as long as `file` is borrowed, and a range
    // that is no part of the file is refused or ignored.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Nothing: the kernel starts by itself after a while.
#[cfg(not(target_os = "linux"))]
pub(in crate::vfs) fn start_writeback(_file: &File, _offset: u64, _bytes: u64) {}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(in crate::vfs) fn advise(file: &File, access: Access) {
    let advice = match access {
        Access::Random => rustix::fs::Advice::Random,
        Access::Sequential => rustix::fs::Advice::Sequential,
    };
    let _ = rustix::fs::fadvise(file, 0, None, advice);
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(in crate::vfs) fn advise(_file: &File, _access: Access) {}

#[expect(clippy::disallowed_methods, reason = "below PosixFs")]
pub(in crate::vfs) fn sync_dir(path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    if !directory.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    directory.sync_all()
}

pub(in crate::vfs) fn free_bytes(path: &Path) -> io::Result<u64> {
    let statistics = rustix::fs::statvfs(path)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

/// The soft limit on open files after raising it to the hard one; `None` if there is none.
pub(in crate::vfs) fn raise_open_files_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// macOS allows no more than `OPEN_MAX`, whatever the hard limit says.
    const OPEN_MAX: u64 = 10_240;

    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current?;
    let hard = limit.maximum.unwrap_or(u64::MAX);
    for wanted in [hard, hard.min(OPEN_MAX)] {
        let raised = Rlimit { current: (wanted != u64::MAX).then_some(wanted), maximum: limit.maximum };
        if wanted > soft && setrlimit(Resource::Nofile, raised).is_ok() {
            return getrlimit(Resource::Nofile).current;
        }
    }
    Some(soft)
}
