use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::budget::Budget;
use super::clock::Clock;
use super::counters::CacheStats;

/// A budget of memory for decoded blocks, shared by any number of tables.
///
/// ```
/// let cache = lsm_sstable::BlockCache::new(64 << 20);
/// assert_eq!(cache.used_bytes(), 0);
/// ```
#[derive(Debug)]
pub struct BlockCache {
    pub(super) budget: Budget,
    pub(super) clock: Clock,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`.
    pub fn new(capacity_bytes: usize) -> Arc<Self> {
        Arc::new(Self { budget: Budget::new(capacity_bytes), clock: Clock::default() })
    }

    /// Bytes that all cached blocks occupy, everything included; never above the capacity, except while
    /// [`BlockCache::set_capacity`] is lowering it. The arrays of slots belong to the tables
    /// ([`Table::pinned_bytes`](crate::Table::pinned_bytes)).
    pub fn used_bytes(&self) -> usize {
        self.budget.used_bytes()
    }

    /// The budget.
    pub fn capacity_bytes(&self) -> usize {
        self.budget.capacity_bytes()
    }

    /// Changes the budget. When it shrinks, blocks are evicted before this returns.
    pub fn set_capacity(&self, capacity_bytes: usize) {
        self.budget.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
        self.budget.is_full.store(false, Ordering::Relaxed);
        self.clock.shrink(&self.budget);
    }

    /// Counters.
    pub fn stats(&self) -> CacheStats {
        self.budget.counters.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::cached_table::CachedTable;

    #[test]
    fn a_block_of_a_rare_size_does_not_empty_a_full_cache() {
        let cache = BlockCache::new(20 << 20);
        let table = CachedTable::new(Arc::clone(&cache), 10_000);
        // Random reads: no span has blocks of one age.
        let mut random = 1_u64;
        for _ in 0..200_000 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let block = (random >> 33) as usize % 10_000;
            if table.get(block).is_none() {
                table.offer(block, &[1; 4300]);
            }
        }
        let full = (cache.stats().evictions, cache.used_bytes());
        let rare = CachedTable::new(Arc::clone(&cache), 5);
        for (block, len) in [3500, 4000, 9000, 2000, 100].into_iter().enumerate() {
            let mut is_kept = false;
            for _ in 0..16 {
                let _missed = rare.get(block);
                is_kept |= rare.offer(block, &vec![2; len]).is_some();
            }
            // Those that fit no longer frame either may be refused.
            assert!(is_kept || !(3400..4300).contains(&len), "{len} bytes");
        }
        let evictions = cache.stats().evictions - full.0;
        assert!(evictions <= 5 * 32, "{evictions} evictions");
        assert!(cache.used_bytes() > full.1 / 10 * 9, "{} of {} bytes", cache.used_bytes(), full.1);
    }

    #[test]
    fn huge_pages_count_as_soon_as_they_are_mapped_and_are_given_back() {
        let cache = BlockCache::new(20 << 20);
        let table = CachedTable::new(Arc::clone(&cache), 20_000);
        let fill = |lens: &[usize]| {
            for block in 0..20_000 {
                table.offer(block, &vec![block as u8; lens[block % lens.len()]]);
                assert!(cache.budget.held_bytes() <= cache.capacity_bytes());
                assert!(cache.used_bytes() <= cache.budget.held_bytes());
            }
            for block in 0..20_000 {
                if let Some(frame) = table.get(block) {
                    assert!(frame.iter().all(|&byte| byte == block as u8), "block {block}");
                }
            }
        };
        fill(&[4300, 4280, 4350]);
        assert!(cache.budget.pool.page_bytes() >= 16 << 20);
        assert!(cache.used_bytes() >= 19 << 20, "{}", cache.used_bytes());
        // Blocks of other sizes take over pages that their predecessors leave.
        for _ in 0..8 {
            fill(&[9000, 4300, 30_000, 200_000, 1200]);
        }
        assert!(cache.used_bytes() >= 15 << 20, "{}", cache.used_bytes());
        fill(&[4300]);
        let evictions = cache.stats().evictions;
        cache.set_capacity(cache.budget.held_bytes() - 1);
        let evictions = cache.stats().evictions - evictions;
        assert!((1..600).contains(&evictions), "{evictions} evictions for a byte");
        cache.set_capacity(5 << 20);
        assert!(cache.budget.held_bytes() <= 5 << 20);
        assert!(cache.used_bytes() > 3 << 20, "{}", cache.used_bytes());
        drop(table);
        assert_eq!((cache.budget.held_bytes(), cache.used_bytes()), (0, 0));
    }
}
