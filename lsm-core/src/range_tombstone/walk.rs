use super::fragmented::{Fragment, FragmentedRangeTombstones};

/// A walk over a list along ascending keys: finds each key's fragment by one comparison while the keys stay in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FragmentWalk {
    /// The first interval that can contain the next key.
    next: usize,
    /// Whether the keys have reached that interval: then they can only leave it at its end.
    is_inside: bool,
}

impl FragmentWalk {
    /// The fragment of `tombstones` that contains `key`. The list is always the same, and no key is below the one
    /// before.
    #[inline]
    pub fn advance<'a>(
        &mut self,
        tombstones: &'a FragmentedRangeTombstones,
        key: &[u8],
    ) -> Option<Fragment<'a>> {
        if self.next >= tombstones.sequence_ends.len() {
            return None;
        }
        if tombstones.boundary_is_up_to(self.next + 1, key) {
            self.next = tombstones.boundaries_up_to(key) - 1;
            self.is_inside = true;
        } else if !self.is_inside {
            self.is_inside = tombstones.boundary_is_up_to(self.next, key);
            if !self.is_inside {
                return None;
            }
        }
        tombstones.fragment(self.next)
    }
}
