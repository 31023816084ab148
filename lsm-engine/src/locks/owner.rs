//! How one transaction takes and releases locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lsm_core::env::Event;
use parking_lot::Mutex;

use super::table::{Edge, Lock, LockMode, LockTable, Lockable, Owner};
use crate::error::{Error, Result};
use crate::events::WaitReason;
use crate::keyspaces::Tree;
use crate::lock_order::assert_none_held;
use crate::resources::Resources;

/// The locks of all transactions of a database.
#[derive(Default)]
pub(crate) struct Locks {
    table: Mutex<LockTable>,
    transactions: AtomicU64,
}

impl Locks {
    /// The number of a new transaction.
    pub(crate) fn next_transaction(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes all who wait check again whether the database is open.
    pub(crate) fn wake_all(&self) {
        self.table.lock().wake_all();
    }
}

/// The locks of one transaction. Dropping it releases them.
pub(crate) struct LockOwner {
    locks: Arc<Locks>,
    owner: Owner,
    timeout: Duration,
    held_bytes: usize,
}

impl LockOwner {
    /// `timeout` is how long a request waits at most.
    pub(crate) fn new(locks: &Arc<Locks>, transaction: u64, timeout: Duration) -> Self {
        Self { locks: Arc::clone(locks), owner: transaction, timeout, held_bytes: 0 }
    }

    /// Memory of the held locks.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes a lock, and waits for it if another transaction is in the way. Returns `false` if the transaction held it
    /// before. After an error it has the locks that it had. `check` fails when the wait must end.
    pub(crate) fn lock(
        &mut self,
        resources: &Resources,
        tree: &Tree,
        what: Lockable,
        mode: LockMode,
        check: impl Fn() -> Result<()>,
    ) -> Result<bool> {
        let lock = Lock { keyspace: tree.id, name: Arc::clone(&tree.name), what, mode };
        let taken = {
            let mut table = self.locks.table.lock();
            if table.holds(self.owner, &lock) {
                return Ok(false);
            }
            table.try_lock(self.owner, &lock)
        };
        if !taken {
            self.wait(resources, &lock, check)?;
        }
        self.held_bytes += lock.what.memory_bytes();
        Ok(true)
    }

    #[cold]
    fn wait(&self, resources: &Resources, lock: &Lock, check: impl Fn() -> Result<()>) -> Result<()> {
        resources.check_may_wait()?;
        assert_none_held(resources.place());
        let event = self.locks.table.lock().wait(self.owner, lock).map_err(|cycle| deadlock(&cycle))?;
        let _waiting = resources.waits.begin(WaitReason::TransactionLock, Some(&lock.name));
        let waited = self.wait_granted(resources, lock, &event, check);
        if waited.is_err() {
            self.locks.table.lock().give_up(self.owner);
        }
        waited
    }

    fn wait_granted(
        &self,
        resources: &Resources,
        lock: &Lock,
        event: &Event,
        check: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let timeout_micros = u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX);
        let until_micros = resources.env.monotonic_micros().saturating_add(timeout_micros);
        loop {
            let seen = event.epoch();
            let is_over = resources.env.monotonic_micros() >= until_micros;
            {
                let mut table = self.locks.table.lock();
                if !table.is_waiting(self.owner) {
                    return Ok(());
                }
                if is_over {
                    let in_the_way = table.give_up(self.owner);
                    return Err(timed_out(lock, self.timeout, &in_the_way));
                }
            }
            check()?;
            resources.env.wait(event, seen, Some(until_micros));
        }
    }
}

impl Drop for LockOwner {
    fn drop(&mut self) {
        self.locks.table.lock().release(self.owner);
    }
}

fn timed_out(lock: &Lock, timeout: Duration, in_the_way: &[Owner]) -> Error {
    let others: Vec<_> = in_the_way.iter().map(|owner| format!("transaction {owner}")).collect();
    let others = others.join(", ");
    Error::LockTimeout(format!("{lock} is still locked after {timeout:?}; in the way: {others}").into())
}

/// Names the cycle: who waits for which lock of whom.
fn deadlock(cycle: &[Edge]) -> Error {
    let step = |Edge { waiter, lock, holder }: &Edge| {
        format!("transaction {waiter} waits for {lock}, locked by transaction {holder}")
    };
    let steps: Vec<_> = cycle.iter().map(step).collect();
    let (steps, owner) = (steps.join("; "), cycle.first().map_or(0, |edge| edge.waiter));
    Error::Deadlock(format!("deadlock: {steps}. Roll back transaction {owner} and repeat it").into())
}
