//! Asking the processor for memory before it is needed.

/// Asks for all cache lines of `bytes`; does nothing where that cannot be said.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    let start = bytes.as_ptr().addr();
    for address in (start & !63..start + bytes.len()).step_by(64) {
        prefetch_address(address);
    }
}

/// Asks for the cache line at an address, which may be any.
#[inline]
pub(crate) fn prefetch_address(address: usize) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    // SAFETY: a prefetch reads nothing that could be observed and ignores bad addresses.
    #[expect(unsafe_code, reason = "there is no safe call for it")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address));
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
    let _ = address;
}
