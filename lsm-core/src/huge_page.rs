//! Memory in huge pages. Where cache misses are the cost, so are misses of the address translation: with pages of
//! 2 MiB there are hardly any.

use memmap2::{MmapMut, MmapOptions};

/// Zeroed memory of the size of one huge page, aligned to it, at a fixed address. That it is one is advice only:
/// without huge pages everything works, more slowly.
#[derive(Debug)]
pub struct HugePage {
    map: MmapMut,
    /// Where the aligned page starts in the map.
    skip: usize,
}

impl HugePage {
    /// Length and alignment: one huge page of the platforms that have them.
    pub const BYTES: usize = 2 << 20;

    /// `None` if there is no memory.
    pub fn new() -> Option<Self> {
        let map = MmapOptions::new().len(Self::BYTES).map_anon().ok()?;
        let mut page = if map.as_ptr().align_offset(Self::BYTES) == 0 {
            Self { map, skip: 0 }
        } else {
            // Twice the address space contains an aligned page; the rest is never touched, so it costs nothing.
            drop(map);
            let map = MmapOptions::new().len(2 * Self::BYTES).map_anon().ok()?;
            let skip = map.as_ptr().align_offset(Self::BYTES);
            Self { map, skip }
        };
        page.advise();
        Some(page)
    }

    #[cfg(target_os = "linux")]
    fn advise(&mut self) {
        let _refused = self.map.advise_range(memmap2::Advice::HugePage, self.skip, Self::BYTES);
    }

    #[cfg(not(target_os = "linux"))]
    fn advise(&mut self) {}

    /// The memory.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.map[self.skip..][..Self::BYTES]
    }

    /// Where the memory starts; stays the same when the page is moved.
    pub fn address(&mut self) -> *mut u8 {
        self.bytes().as_mut_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_page_is_aligned_to_its_length_and_zero() {
        let mut pages: Vec<HugePage> = (0..4).map(|_| HugePage::new().expect("memory")).collect();
        for page in &mut pages {
            let address = page.address();
            assert_eq!(address.align_offset(HugePage::BYTES), 0);
            assert_eq!(page.bytes().len(), HugePage::BYTES);
            assert!(page.bytes().iter().step_by(4096).all(|&byte| byte == 0));
            page.bytes().fill(1);
            assert_eq!(page.address(), address);
        }
    }
}
