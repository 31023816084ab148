//! Everything at once that a database may meet: histories of writes, merges, snapshots, iterators and keyspaces that
//! come and go, under failing calls to the file system, a clock that jumps, crashes of the process and of the machine,
//! crashes of the recovery from those, and reopenings with other options. Whatever readers see is compared with a model
//! of what was acknowledged and what of it is durable; memory stays within its bound, and no file is left that nothing
//! names. One thread and one seed, so a failure repeats; run alone, a seed also prints what it did. A kind of failure
//! that never came about in the seeds that run by default fails the test: it would prove nothing.
//!
//! `LSM_SEEDS=4000 LSM_SEED=1 cargo test -p lsm-engine --release --test storms_leave_what_was_acknowledged` runs more
//! of them.

use std::cell::RefCell;

mod fused;
mod manifest;
mod random;
mod reads;
mod short;
mod storms;
mod wide;

/// Enough that every kind of fault comes to strike.
const SEEDS: u64 = 170;

#[test]
fn any_storm_leaves_what_was_acknowledged() {
    let tally = RefCell::new(storms::Tally::new());
    let seeds = random::each_seed(SEEDS, |seed| storms::run(seed, &mut tally.borrow_mut()));
    // Fewer seeds need not meet everything.
    if seeds >= SEEDS {
        tally.into_inner().check();
    }
}
