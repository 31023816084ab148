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
        let mut page = Self::of_small_pages()?;
        page.advise();
        Some(page)
    }

    /// The same in pages of the usual size, for whom it does not pay to wait for all of a huge one at the first touch:
    /// zeroing it takes 0.1 ms, and finding it several where memory is fragmented.
    pub fn of_small_pages() -> Option<Self> {
        let map = MmapOptions::new().len(Self::BYTES).map_anon().ok()?;
        if map.as_ptr().align_offset(Self::BYTES) == 0 {
            return Some(Self { map, skip: 0 });
        }
        // Twice the address space contains an aligned page; the rest is never touched, so it costs nothing.
        drop(map);
        let map = MmapOptions::new().len(2 * Self::BYTES).map_anon().ok()?;
        let skip = map.as_ptr().align_offset(Self::BYTES);
        Some(Self { map, skip })
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
        let page = |number| if number < 2 { HugePage::new() } else { HugePage::of_small_pages() };
        let mut pages: Vec<HugePage> = (0..4).map(|number| page(number).expect("memory")).collect();
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
