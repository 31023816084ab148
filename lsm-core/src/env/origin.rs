//! Whether this process is still the one in which something was made.

use std::fmt;

#[cfg(any(target_os = "linux", target_os = "android"))]
use memmap2::MmapMut;
#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::mm::{Advice, madvise};

/// Remembers the process that made it.
pub(super) struct Origin {
    process: u32,
    /// Begins with a 1, which the kernel turns into 0 in a child: a look at it costs less than asking for the number of
    /// the process. `None` if the kernel is older than 4.14.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    page: Option<MmapMut>,
}

impl Origin {
    pub(super) fn here() -> Self {
        Self {
            process: std::process::id(),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            page: page().ok(),
        }
    }

    /// Whether this is another process: a child of it, by `fork`.
    #[inline]
    pub(super) fn is_elsewhere(&self) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(page) = &self.page {
            return page[0] == 0;
        }
        std::process::id() != self.process
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[expect(
    unsafe_code,
    reason = "advice to the kernel; asking for the process instead is a system call for each write"
)]
fn page() -> std::io::Result<MmapMut> {
    let mut page = MmapMut::map_anon(1)?;
    // SAFETY: the range is the map, which is private and nobody else's, and the advice does nothing to it in this
    // process. In a child it reads as zeros, which are valid bytes.
    unsafe { madvise(page.as_mut_ptr().cast(), page.len(), Advice::LinuxWipeOnFork)? };
    page[0] = 1;
    Ok(page)
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)
    }
}
