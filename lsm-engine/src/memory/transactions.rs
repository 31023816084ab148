//! The memory of open transactions: what they have written, read and locked.
//!
//! It is taken from the block cache, in steps, so that small transactions neither take a lock nor change the cache. A
//! transaction that finds no room fails; nobody waits for it, and memtables keep their share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::accounting::Memory;
use crate::error::{Error, Result};

/// By how much the block cache gives way at least. It gives way for good, so that the next transaction finds it so.
const STEP_BYTES_MAX: usize = 64 << 10;
/// A transaction charges multiples of this, and a quarter more than it needs.
const CHARGE_STEP_BYTES: usize = 1 << 10;

impl Memory {
    /// Memory that transactions have charged.
    pub(crate) fn transaction_bytes(&self) -> usize {
        self.transactions.used.bytes()
    }

    /// Number of open transactions.
    pub(crate) fn live_transactions(&self) -> usize {
        self.transactions.live.load(Ordering::Relaxed)
    }

    /// What all transactions together may take now. Half of what tables and buffers have stays for these.
    fn transactions_bytes_max(&self) -> usize {
        let shares = self.budget.shares.buffers_bytes + self.budget.shares.cache_bytes;
        let taken = self.pool().tables.bytes() + self.pool().buffers.bytes();
        let held = taken + self.budget.table_writer_bytes_max;
        shares.saturating_sub(held).min(shares / 2).min(self.budget.batch_bytes_max as usize)
    }

    fn step_bytes(&self) -> usize {
        STEP_BYTES_MAX.min(self.budget.shares.cache_bytes / 64).max(1)
    }

    #[inline]
    fn take_for_transaction(&self, bytes: usize) -> Result<()> {
        let used = self.transactions.used.add(bytes);
        if used <= self.transactions.reserved_bytes() { Ok(()) } else { self.reserve_for_transactions(bytes) }
    }

    #[cold]
    fn reserve_for_transactions(&self, bytes: usize) -> Result<()> {
        self.pool().change_transactions(|all| {
            let (used, reserved) = (self.transactions.used.bytes(), self.transactions.reserved_bytes());
            let used_by_all = used + all.bytes() - reserved;
            let bytes_max = self.transactions_bytes_max();
            if used > reserved && used_by_all > bytes_max {
                self.transactions.used.remove(bytes);
                let (what, bytes) = ("memory of all transactions", used_by_all as u64);
                return Err(Error::TooLarge { what, bytes, bytes_max: bytes_max as u64 });
            }
            let wanted = used.next_multiple_of(self.step_bytes()).max(reserved);
            self.transactions.reserved.store(wanted, Ordering::Release);
            all.add(wanted - reserved);
            Ok(())
        })
    }

    #[inline]
    fn give_back_of_transaction(&self, bytes: usize) {
        let used = self.transactions.used.remove(bytes);
        // Keep some, for the next one.
        if used + 4 * self.step_bytes() < self.transactions.reserved_bytes() {
            self.unreserve_of_transactions();
        }
    }

    #[cold]
    fn unreserve_of_transactions(&self) {
        self.pool().change_transactions(|all| {
            let reserved = self.transactions.reserved_bytes();
            let left = self.transactions.used.bytes().next_multiple_of(self.step_bytes()) + self.step_bytes();
            let left = left.min(reserved);
            self.transactions.reserved.store(left, Ordering::Release);
            all.remove(reserved - left);
        });
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let reserved = self.transactions.reserved_bytes();
        self.pool().change_transactions(|all| all.remove(reserved));
    }
}

/// What one transaction has charged. Dropping it gives the bytes back.
pub(crate) struct TransactionCharge {
    memory: Arc<Memory>,
    bytes: usize,
}

impl TransactionCharge {
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        memory.transactions.live.fetch_add(1, Ordering::Relaxed);
        Self { memory: Arc::clone(memory), bytes: 0 }
    }

    /// Charges at least `bytes` in all. Fails, and charges nothing more, if there is no room.
    #[inline]
    pub(crate) fn fit(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.bytes { Ok(()) } else { self.grow(bytes) }
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        let ahead = bytes.saturating_add(bytes / 4).next_multiple_of(CHARGE_STEP_BYTES);
        let grown = match self.memory.take_for_transaction(ahead - self.bytes) {
            Ok(()) => ahead,
            Err(_) => self.memory.take_for_transaction(bytes - self.bytes).map(|()| bytes)?,
        };
        self.bytes = grown;
        Ok(())
    }
}

impl Drop for TransactionCharge {
    fn drop(&mut self) {
        self.memory.transactions.live.fetch_sub(1, Ordering::Relaxed);
        if self.bytes > 0 {
            self.memory.give_back_of_transaction(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn transactions_take_from_the_cache_and_give_back() {
        let memory = Arc::new(Memory::new(&Options::new().memory(16 << 20)));
        let capacity = memory.cache.capacity_bytes();
        let mut charge = TransactionCharge::new(&memory);
        charge.fit(10).unwrap();
        let first = memory.cache.capacity_bytes();
        assert!(capacity - first <= STEP_BYTES_MAX, "{first} of {capacity}");
        charge.fit(3 << 20).unwrap();
        assert!(memory.cache.capacity_bytes() <= capacity - (3 << 20));
        // A small one beside it changes nothing but the sum.
        let mut small = TransactionCharge::new(&memory);
        small.fit(500).unwrap();
        assert_eq!((memory.transaction_bytes(), memory.live_transactions()), ((15 << 18) + 1024, 2));
        let error = small.fit(2 << 20).unwrap_err().to_string();
        assert!(error.starts_with("memory of all transactions of"), "{error}");
        assert_eq!((memory.transaction_bytes(), small.bytes), ((15 << 18) + 1024, 1024));
        small.fit(200_000).unwrap();
        drop((charge, small));
        assert_eq!((memory.transaction_bytes(), memory.live_transactions()), (0, 0));
        assert!(capacity - memory.cache.capacity_bytes() <= 2 * STEP_BYTES_MAX);
    }
}
