use lsm_core::key::{self, common_prefix_bytes};

/// Fence pointers: the smallest keys of the tables of a run, for a binary search that does not touch the tables. They
/// hold eight bytes of each key, after the common prefix, side by side. With whole keys each step would cost a cache
/// miss.
#[derive(Debug)]
pub(crate) struct FencePointers {
    prefix: Box<[u8]>,
    heads: Box<[u64]>,
}

impl FencePointers {
    /// `keys` are in ascending order and may contain duplicates.
    pub(crate) fn new<'k>(keys: impl DoubleEndedIterator<Item = &'k [u8]> + Clone) -> Self {
        let first = keys.clone().next().unwrap_or_default();
        let last = keys.clone().next_back().unwrap_or_default();
        let prefix = &first[..common_prefix_bytes(first, last)];
        Self { prefix: prefix.into(), heads: keys.map(|key| key::head(key, prefix.len())).collect() }
    }

    /// The head of a key relative to these fences; `None` if the key lacks the common prefix.
    pub(super) fn head_of(&self, key: &[u8]) -> Option<u64> {
        key.strip_prefix(&*self.prefix).map(|rest| key::head(rest, 0))
    }

    /// Length of the common prefix.
    pub(super) fn prefix_bytes(&self) -> usize {
        self.prefix.len()
    }

    pub(super) fn heads(&self) -> &[u64] {
        &self.heads
    }

    /// Fences with the same prefix and these heads.
    pub(super) fn with_heads(&self, heads: Vec<u64>) -> Self {
        Self { prefix: self.prefix.clone(), heads: heads.into() }
    }

    /// Index of the last fence at or before `key`. `fence` returns the whole key of a fence; it is called only if heads
    /// are equal.
    #[inline]
    pub(crate) fn last_at_or_before<'k>(
        &self,
        key: &[u8],
        fence: impl Fn(usize) -> &'k [u8],
    ) -> Option<usize> {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return if *key < *self.prefix { None } else { self.heads.len().checked_sub(1) };
        };
        let head = key::head(rest, 0);
        let mut low = self.heads.partition_point(|&other| other < head);
        let mut high = low + self.heads[low..].partition_point(|&other| other == head);
        while low < high {
            let middle = low.midpoint(high);
            if fence(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        let tail = prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), any::<u8>()], 0..4);
        (prop_oneof![Just(""), Just("user"), Just("user/longer-than-a-head")], tail)
            .prop_map(|(front, tail)| [front.as_bytes(), &tail].concat())
    }

    proptest! {
        #[test]
        fn fence_pointers_find_the_same_fence_as_a_search_of_whole_keys(
            mut fences in prop::collection::vec(key(), 0..12),
            keys in prop::collection::vec(key(), 1..12),
        ) {
            fences.sort();
            let searched = FencePointers::new(fences.iter().map(|fence| &**fence));
            for key in fences.iter().chain(&keys) {
                let expected = fences.partition_point(|fence| fence <= key).checked_sub(1);
                prop_assert_eq!(searched.last_at_or_before(key, |index| &fences[index]), expected);
            }
        }
    }
}
