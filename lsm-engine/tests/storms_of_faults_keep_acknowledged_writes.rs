//! Combines everything that may happen to a database: histories of writes, compactions, snapshots, iterators and
//! keyspaces, with failing calls of the file system, a clock that jumps, crashes of the process and of the machine,
//! crashes during recovery, and reopens with other options. Reads are compared with a model of the acknowledged and the
//! durable writes. Memory must stay within its bound, and no unneeded file may be left. Each history has one thread and
//! one seed, so a failure repeats; a seed that runs alone also prints what it did. The test fails if a kind of failure
//! never happens in the default seeds, since it would then check nothing.
//!
//! `LSM_SEEDS=4000 LSM_SEED=1 cargo test -p lsm-engine --release --test storms_of_faults_keep_acknowledged_writes` runs more
//! histories.

use std::cell::RefCell;

mod fused;
mod manifest;
mod random;
mod reads;
mod short;
mod storms;

/// Enough seeds that every kind of fault happens.
const SEEDS: u64 = 170;

#[test]
fn any_storm_keeps_what_was_acknowledged() {
    let tally = RefCell::new(storms::Tally::new());
    let seeds = random::each_seed(SEEDS, |seed| storms::run(seed, &mut tally.borrow_mut()));
    // With fewer seeds, not every kind of fault must happen.
    if seeds >= SEEDS {
        tally.into_inner().check();
    }
}
