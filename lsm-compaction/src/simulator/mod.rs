//! Plays a policy against a workload on metadata alone: what would it cost, before any disk is bought?
//!
//! Tables are intervals of the key space with an expected number of distinct keys; a merge computes the expected
//! size of the union instead of reading anything. So the time a run takes depends on the number of flushes, not of
//! keys: seconds for ten thousand. The same input always gives the same report. Background work is taken to keep
//! up with writes.

mod contents;
mod cut;
mod popularity;
mod reads;
mod report;
mod tree;
mod workload;

pub use report::{LevelReport, Report};
pub use workload::{KeyDistribution, Workload};

use self::reads::ReadCost;
use self::tree::Tree;
use crate::policy::CompactionPolicy;
use crate::validate::validate;

/// A policy that picks this often between two flushes will never rest.
const PICKS_PER_FLUSH_MAX: usize = 100_000;

/// How many times during the second half of a run reads are costed.
const READ_SAMPLES: u64 = 32;

/// Plays `policy` against `workload` from an empty tree on.
///
/// A policy that picks an unsound compaction, or does not come to rest between two flushes, ends the run early;
/// [`Report::stopped`] says so.
///
/// ```
/// use lsm_compaction::simulator::{Workload, simulate};
/// use lsm_compaction::{Leveled, SizeTiered};
///
/// let workload = Workload { keys: 100_000_000, bytes_written: 40 << 30, ..Workload::default() };
/// let leveled = simulate(&Leveled::default(), &workload);
/// let tiered = simulate(&SizeTiered::default(), &workload);
/// assert!(tiered.write_amplification < leveled.write_amplification);
/// assert!(tiered.space_amplification_peak > leveled.space_amplification_peak);
/// println!("{leveled}\n{tiered}");
/// ```
pub fn simulate(policy: &dyn CompactionPolicy, workload: &Workload) -> Report {
    let workload = workload.clamped();
    let mut tree = Tree::new(policy.level_count().max(1), &workload);
    let flushes = workload.flushes();
    let mut reads = ReadCost::default();
    let mut stopped = None;
    for flush in 0..flushes {
        tree.flush(workload.bytes_of_flush(flush));
        stopped = settle(&mut tree, policy).err();
        if stopped.is_some() {
            break;
        }
        let last_half = flush + 1 > flushes / 2;
        let every = (flushes / 2 / READ_SAMPLES).max(1);
        if last_half && (flushes - 1 - flush).is_multiple_of(every) {
            reads.add(&tree);
        }
    }
    tree.only_delete();
    for bytes in workload.deletes_at_end() {
        if stopped.is_some() {
            break;
        }
        tree.flush(bytes);
        stopped = settle(&mut tree, policy).err();
    }
    report::report(policy, &workload, &tree, &reads, stopped)
}

/// Carries out what the policy picks until it rests.
fn settle(tree: &mut Tree, policy: &dyn CompactionPolicy) -> Result<(), String> {
    for _ in 0..PICKS_PER_FLUSH_MAX {
        let Some(compaction) = policy.pick(tree.shape()) else { return Ok(()) };
        validate(tree.shape(), &compaction).map_err(|rejection| format!("unsound pick: {rejection}"))?;
        tree.carry_out(&compaction);
    }
    Err(format!("no rest after {PICKS_PER_FLUSH_MAX} compactions in a row"))
}
