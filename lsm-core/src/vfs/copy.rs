//! A second name for a file or, where that is not possible, a second file with the same bytes.

use std::io;
use std::path::Path;

use super::file::{Access, VfsFile};
use super::file_system::Vfs;

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// How a file got to its second place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// By a hard link: both names are one file, so nobody may write to it any more.
    Linked,
    /// By a copy of so many bytes, which are durable. Its name is not, before its directory is synced.
    Copied(u64),
}

/// Links `from` to `to`, which must be free, or copies it where the file system does not link: on another file system,
/// on one without hard links, and where the kernel refuses to link files of other users.
///
/// Neither way makes the name durable: sync the directory of `to`. A failed copy leaves no file.
pub fn link_or_copy(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<Placed> {
    if try_link(vfs, from, to)? { Ok(Placed::Linked) } else { copy_file(vfs, from, to).map(Placed::Copied) }
}

/// Links `from` to `to`, which must be free. `false` where the file system does not link, as [`link_or_copy`] has it: for
/// whoever copies in a way of its own.
pub fn try_link(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<bool> {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    match vfs.hard_link(from, to) {
        Ok(()) => Ok(true),
        // These say something about links, and not about the file or the names.
        Err(error)
            if matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Copies all bytes of `from` to a new file, and syncs it. Returns how many there are. A failure leaves no file.
///
/// The name is durable after a sync of its directory.
pub fn copy_file(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<u64> {
    let source = vfs.open_read(from)?;
    let target = vfs.create_new(to)?;
    copy_bytes(&*source, &*target).inspect_err(|_| {
        // What counts is the failure that led here.
        let _ = vfs.remove_file(to);
    })
}

fn copy_bytes(source: &dyn VfsFile, target: &dyn VfsFile) -> io::Result<u64> {
    source.advise(Access::Sequential);
    let bytes = source.len()?;
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(bytes).unwrap_or(COPY_BYTES))];
    let mut offset = 0;
    while offset < bytes {
        let count = buffer.len().min(usize::try_from(bytes - offset).unwrap_or(buffer.len()));
        source.read_exact_at(&mut buffer[..count], offset)?;
        target.write_at(&buffer[..count], offset)?;
        offset += count as u64;
    }
    target.sync_data()?;
    Ok(bytes)
}
