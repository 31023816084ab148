use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lsm_memtable::{BPlusMemtable, MemtableFactory};
use lsm_sstable::BlockCache;
use parking_lot::Mutex;

use super::line::Line;
use super::member::Member;
use super::shares::{Shares, memtable_bytes_in};
use super::total::Total;
use super::work::Turns;
use crate::callbacks::caught;
use crate::metrics::MemoryPoolMetrics;

/// In a shared pool a database may take at most so many times the memory for memtables that is then left for others. So
/// however many databases cannot flush, there is some left.
const TIMES_LEFT_MAX: usize = 4;
/// Grants are multiples of this where there is enough.
const GRANT_BYTES: usize = 16 << 10;
/// One part in so many of a shared pool is for the windows of logs.
const WINDOWS_PART: usize = 16;

/// Memory that several databases of a process share: memtables, block cache, indexes, filters, buffers and the windows of
/// the logs of all of them together never take more.
///
/// Give it to each of them with [`Options::memory_pool`](crate::Options::memory_pool). When memory for memtables is short,
/// the database with the most unflushed data flushes, whichever database is writing. A database takes memory when it is
/// used: one that is idle holds little more than what was written to it last. Clones are the same pool.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use lsm_engine::env::ThreadEnv;
/// use lsm_engine::{MemoryPool, Options};
///
/// let pool = MemoryPool::new(64 << 20);
/// // They share worker threads, too.
/// let env = std::sync::Arc::new(ThreadEnv::new(2));
/// let open = |name| Options::new().memory_pool(&pool).env(env.clone()).open(dir.path().join(name));
/// let (users, orders) = (open("users")?, open("orders")?);
/// users.put("1", "Ada")?;
/// orders.put("1", "tea")?;
/// assert!(pool.used_bytes() <= pool.bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryPool(Arc<Pool>);

impl MemoryPool {
    /// A pool of so many bytes, at least [`MEMORY_BYTES_MIN`](crate::MEMORY_BYTES_MIN); with fewer, databases do not open.
    /// One half is for tables and the block cache. The other half is for memtables, for the buffers of flushes and
    /// compactions, and for the windows of the logs.
    pub fn new(bytes: usize) -> Self {
        let shares = Shares::of(bytes, memtable_bytes_in(bytes), None, bytes / WINDOWS_PART);
        Self(Pool::new(bytes, true, shares, Arc::new(BPlusMemtable::with_pool_bytes(0))))
    }

    /// The bound of its databases together, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The bytes that its databases hold now: what is in use, and what is set aside for writes that may come next.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes()
    }

    /// Number of databases that are open with this pool.
    pub fn databases(&self) -> usize {
        self.0.members().len()
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl fmt::Debug for MemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryPool({} bytes)", self.bytes())
    }
}

/// The sums of a pool, and what its databases share.
pub(crate) struct Pool {
    bytes: usize,
    /// Several databases may have it.
    pub(crate) is_shared: bool,
    pub(crate) shares: Shares,
    pub(crate) cache: Arc<BlockCache>,
    /// The memtable factory of all keyspaces without their own. They share its memory of flushed memtables.
    pub(crate) memtable: Arc<dyn MemtableFactory>,
    /// What is granted for active and immutable memtables.
    memtables: Total,
    pub(crate) buffers: Total,
    pub(crate) tables: Total,
    pub(crate) windows: Total,
    /// What the block cache has given up for transactions.
    pub(crate) transactions: Total,
    /// The limit of the memory of flushed memtables that was set last.
    kept_bytes_max: AtomicUsize,
    /// Held while grants and limits change.
    limits_lock: Mutex<()>,
    members: Mutex<Vec<Weak<Member>>>,
    pub(super) line: Line,
    pub(super) turns: Arc<Turns>,
}

impl Pool {
    pub(crate) fn new(
        bytes: usize,
        is_shared: bool,
        shares: Shares,
        memtable: Arc<dyn MemtableFactory>,
    ) -> Arc<Self> {
        memtable.set_pool_bytes(shares.kept_bytes_max);
        Arc::new(Self {
            bytes,
            is_shared,
            shares,
            cache: BlockCache::new(shares.cache_bytes),
            memtable,
            memtables: Total::default(),
            buffers: Total::default(),
            tables: Total::default(),
            windows: Total::default(),
            transactions: Total::default(),
            kept_bytes_max: AtomicUsize::new(shares.kept_bytes_max),
            limits_lock: Mutex::new(()),
            members: Mutex::default(),
            line: Line::default(),
            turns: Arc::default(),
        })
    }

    /// Adds a database.
    pub(super) fn add(&self, member: &Arc<Member>) {
        self.members.lock().push(Arc::downgrade(member));
    }

    /// A database is closed. Iterators may still hold some of its tables.
    pub(super) fn remove(&self, closed: &Arc<Member>) {
        self.members.lock().retain(|member| !std::ptr::eq(member.as_ptr(), Arc::as_ptr(closed)));
    }

    /// Its databases, in the order in which they were opened.
    fn members(&self) -> Vec<Arc<Member>> {
        let mut members = self.members.lock();
        members.retain(|member| member.strong_count() > 0);
        members.iter().filter_map(Weak::upgrade).collect()
    }

    /// Asks the database with the most unflushed data to flush, if it has more than `least_bytes`, unless one flushes
    /// already. Returns whether one does or will.
    pub(super) fn ask_largest(&self, least_bytes: usize) -> bool {
        let members = self.members();
        if members.iter().any(|member| member.is_flushing()) {
            return true;
        }
        let mut largest: Option<(&Member, usize)> = None;
        for member in &members {
            let bytes = member.flushable_bytes();
            if bytes > largest.map_or(least_bytes, |(_, most)| most) {
                largest = Some((member, bytes));
            }
        }
        largest.inspect(|(member, _)| member.ask()).is_some()
    }

    /// Whether another database than this one may give memory back once it can flush again.
    pub(super) fn another_may_flush_later(&self, this: &Arc<Member>) -> bool {
        self.members().iter().any(|member| !Arc::ptr_eq(member, this) && member.may_flush_later())
    }

    pub(crate) fn used_bytes(&self) -> usize {
        let parts = [&self.memtables, &self.buffers, &self.tables, &self.windows, &self.transactions];
        let kept = self.memtable.pooled_bytes() + self.cache.used_bytes();
        parts.iter().map(|part| part.bytes()).sum::<usize>() + kept
    }

    pub(crate) fn metrics(&self) -> MemoryPoolMetrics {
        MemoryPoolMetrics {
            bytes: self.bytes as u64,
            used_bytes: self.used_bytes() as u64,
            databases: self.members().len() as u64,
            cache_bytes: self.cache.used_bytes() as u64,
            kept_memtable_bytes: self.memtable.pooled_bytes() as u64,
        }
    }

    /// The memory that all memtables together may take if buffers take `buffer_bytes`.
    pub(crate) fn memtables_bytes_max_beside(&self, buffer_bytes: usize) -> usize {
        let shares = self.shares.buffers_bytes + self.shares.windows_bytes + self.shares.cache_bytes;
        let others = buffer_bytes + self.windows.bytes() + self.tables.bytes() + self.transactions.bytes();
        let over = others.saturating_sub(shares);
        self.shares.memtables_bytes.saturating_sub(over)
    }

    /// What can still be granted for memtables.
    pub(crate) fn ungranted_bytes(&self) -> usize {
        self.memtables_bytes_max_beside(self.buffers.bytes()).saturating_sub(self.memtables.bytes())
    }

    /// What memtables of one database may take at most, if no other database takes any.
    pub(crate) fn memtables_bytes_max_of_one(&self) -> usize {
        let all = self.shares.memtables_bytes;
        if self.is_shared { all / (TIMES_LEFT_MAX + 1) * TIMES_LEFT_MAX } else { all }
    }

    /// Whether a database that holds `held` bytes of memtables may have `bytes` more.
    fn may_grant(&self, held: usize, bytes: usize) -> bool {
        let Some(left) = self.ungranted_bytes().checked_sub(bytes) else { return false };
        !self.is_shared || held + bytes <= TIMES_LEFT_MAX * left
    }

    /// Grants at least `bytes` for memtables to a database that holds `held`. Returns how many.
    pub(super) fn grant(&self, held: usize, bytes: usize) -> Option<usize> {
        let _one_at_a_time = self.limits_lock.lock();
        let most = bytes.next_multiple_of(GRANT_BYTES);
        let granted = [most, bytes].into_iter().find(|&bytes| self.may_grant(held, bytes))?;
        self.memtables.add(granted);
        self.set_limits();
        Some(granted)
    }

    /// Takes a grant back.
    pub(super) fn take_back(&self, bytes: usize) {
        if bytes > 0 {
            let one_at_a_time = self.limits_lock.lock();
            self.memtables.remove(bytes);
            self.set_limits();
            drop(one_at_a_time);
            self.line.wake();
        }
    }

    /// Whether so much is granted that some memtable should be flushed.
    pub(super) fn is_half_granted(&self) -> bool {
        self.is_shared && self.memtables.bytes() > self.shares.memtables_bytes / 2
    }

    /// The memory of buffers, tables or windows has changed.
    pub(crate) fn adjust(&self, has_shrunk: bool) {
        let one_at_a_time = self.limits_lock.lock();
        self.set_limits();
        drop(one_at_a_time);
        if has_shrunk {
            self.line.wake();
        }
    }

    /// Changes what transactions have reserved.
    pub(crate) fn change_transactions<T>(&self, change: impl FnOnce(&Total) -> T) -> T {
        let one_at_a_time = self.limits_lock.lock();
        let changed = change(&self.transactions);
        self.set_limits();
        drop(one_at_a_time);
        self.line.wake();
        changed
    }

    /// Sets the capacity of the block cache to what tables, buffers, windows and transactions leave, and the limit of the memory of
    /// flushed memtables to what is not granted. The caller holds the lock.
    fn set_limits(&self) {
        let Shares { buffers_bytes, windows_bytes, cache_bytes, kept_bytes_max, .. } = self.shares;
        let over =
            (self.buffers.bytes() + self.windows.bytes()).saturating_sub(buffers_bytes + windows_bytes);
        let left = cache_bytes.saturating_sub(self.tables.bytes() + self.transactions.bytes() + over);
        if left != self.cache.capacity_bytes() {
            self.cache.set_capacity(left);
        }
        let kept_bytes_max = self.ungranted_bytes().min(kept_bytes_max);
        if kept_bytes_max != self.kept_bytes_max.swap(kept_bytes_max, Ordering::AcqRel) {
            let set = || {
                self.memtable.set_pool_bytes(kept_bytes_max);
                Ok(())
            };
            if let Err(error) = caught("a change of what memtables keep for reuse", set) {
                tracing::warn!(%error, "failed to limit the memory that memtables keep for reuse");
            }
        }
    }
}
