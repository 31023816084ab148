//! Linux, macOS and the BSDs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::vfs::file::Access;

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

/// Whether blocks of a file that were written and synced stay its own, so that a store into a map of them never needs
/// more: where a full disk could refuse that, the process dies of a signal.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(in crate::vfs) fn keeps_blocks(file: &File) -> io::Result<bool> {
    let statistics = rustix::io::retry_on_intr(|| rustix::fs::fstatfs(file))?;
    // The field is of any width and sign, from system to system; magic numbers have 32 bits.
    let magic = i128::from(statistics.f_type) & i128::from(u32::MAX);
    Ok(u32::try_from(magic).is_ok_and(overwrites_in_place))
}

/// APFS and ZFS copy on write, and what tells them from others is a name.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every platform")]
pub(in crate::vfs) fn keeps_blocks(_file: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether the file system with this magic number writes to blocks of a file where they are. Those that are not known
/// to count as ones that do not: btrfs, bcachefs, ZFS, F2FS and NILFS copy; NFS, SMB, Ceph and FUSE leave it to somebody
/// else; and overlayfs does not say what is below it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn overwrites_in_place(magic: u32) -> bool {
    const EXT: u32 = 0xef53;
    const XFS: u32 = 0x5846_5342;
    const JFS: u32 = 0x3153_464a;
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    matches!(magic, EXT | XFS | JFS | TMPFS | RAMFS)
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

/// The soft limit on open files after raising it towards the hard one; `None` if there is none.
pub(in crate::vfs) fn raise_open_files_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// Enough for anybody. Children inherit the limit, and some programs close every number below it.
    const ENOUGH: u64 = 1 << 19;
    /// macOS allows no more than `OPEN_MAX`, whatever the hard limit says.
    const OPEN_MAX: u64 = 10_240;

    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current?;
    let enough = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    for wanted in [enough, enough.min(OPEN_MAX)] {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if wanted > soft && setrlimit(Resource::Nofile, raised).is_ok() {
            return getrlimit(Resource::Nofile).current;
        }
    }
    Some(soft)
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::overwrites_in_place;

    #[test]
    fn only_file_systems_that_write_in_place_are_mapped() {
        for (name, magic) in [("ext4", 0xef53), ("XFS", 0x5846_5342), ("tmpfs", 0x0102_1994)] {
            assert!(overwrites_in_place(magic), "{name}");
        }
        for (name, magic) in [
            ("btrfs", 0x9123_683e),
            ("bcachefs", 0xca45_1a4e),
            ("ZFS", 0x2fc1_2fc1),
            ("F2FS", 0xf2f5_2010),
            ("NILFS", 0x3434),
            ("overlayfs", 0x794c_7630),
            ("NFS", 0x6969),
            ("SMB", 0x517b),
            ("CIFS", 0xff53_4d42),
            ("SMB 2", 0xfe53_4d42),
            ("Ceph", 0x00c3_6400),
            ("9p", 0x0102_1997),
            ("FUSE", 0x6573_5546),
            ("eCryptfs", 0xf15f),
            ("one that is not known", 0x1234_5678),
        ] {
            assert!(!overwrites_in_place(magic), "{name}");
        }
    }
}
