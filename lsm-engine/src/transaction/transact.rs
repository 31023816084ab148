//! Repeats a transaction until it commits.

use lsm_core::env::Event;

use super::transaction::Transaction;
use crate::error::{ErrorKind, Result};
use crate::events::WaitReason;
use crate::resources::Resources;

/// A transaction is tried this often at most.
const TRIES_MAX: u32 = 64;
/// The first pause between two tries is shorter than this, and so is the longest.
const PAUSE_MICROS_MIN: u64 = 32;
const PAUSE_MICROS_MAX: u64 = 16_384;

/// Runs `work` in a transaction that `begin` makes, and commits. After a conflict or deadlock it does so again, after a random pause
/// that grows with the number of tries: then those that are in each other's way do not meet again.
pub(crate) fn transact<T>(
    resources: &Resources,
    begin: impl Fn() -> Result<Transaction>,
    mut work: impl FnMut(&Transaction) -> Result<T>,
) -> Result<T> {
    let mut tries = 0;
    loop {
        let transaction = begin()?;
        // An error drops the transaction, which rolls it back and releases its locks before the pause.
        let done = match work(&transaction) {
            Ok(value) => transaction.commit().map(|_| value),
            Err(error) => {
                drop(transaction);
                Err(error)
            }
        };
        tries += 1;
        match done {
            Err(error) if is_worth_a_try(error.kind()) && tries < TRIES_MAX => {
                // User code that the database called must not wait.
                resources.check_may_wait().map_err(|_| error)?;
                pause(resources, tries);
            }
            done => return done,
        }
    }
}

fn is_worth_a_try(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Conflict | ErrorKind::Deadlock)
}

fn pause(resources: &Resources, tries: u32) {
    let env = &*resources.env;
    let _waiting = resources.waits.begin(WaitReason::Conflict, None);
    let micros_max = (PAUSE_MICROS_MIN << tries.min(9)).min(PAUSE_MICROS_MAX);
    let until_micros = env.monotonic_micros() + env.random() % micros_max;
    // Nobody notifies this event.
    let never = Event::new();
    while env.monotonic_micros() < until_micros {
        env.wait(&never, never.epoch(), Some(until_micros));
    }
}
