//! Which range tombstones a merge keeps.

use std::sync::Arc;

use lsm_core::range_tombstone::{Fragment, FragmentedRangeTombstones};

use super::GarbageRules;
use super::older::OlderVersions;

/// Leaves out of each fragment what a newer number in the same stripe makes needless, and of the oldest stripe
/// what has nothing to hide.
pub(super) fn survivors(
    tombstones: &Arc<FragmentedRangeTombstones>,
    rules: &GarbageRules,
    older: &mut impl OlderVersions,
) -> Arc<FragmentedRangeTombstones> {
    let mut kept = Vec::new();
    let mut fragments = Vec::new();
    let mut is_changed = false;
    for fragment in tombstones.iter() {
        let before = kept.len();
        let mut closed_stripe = None;
        for sequence in fragment.sequences {
            let stripe = rules.stripe(*sequence);
            let is_judged = rules.stripe_end(stripe).is_some();
            if is_judged && closed_stripe == Some(stripe) {
                continue;
            }
            closed_stripe = Some(stripe);
            let hides_something =
                stripe > 0 || (!rules.bottommost && older.may_overlap(fragment.start, fragment.end));
            if !is_judged || hides_something {
                kept.push(*sequence);
            }
        }
        is_changed |= kept.len() - before < fragment.sequences.len();
        if kept.len() > before {
            fragments.push((fragment.start, fragment.end, before..kept.len()));
        }
    }
    if !is_changed {
        return Arc::clone(tombstones);
    }
    let fragments = fragments.into_iter().map(|(start, end, range)| Fragment {
        start,
        end,
        sequences: kept.get(range).unwrap_or_default(),
    });
    // Fragments of a sorted list are sorted; should they ever not be, all of them survive.
    FragmentedRangeTombstones::from_fragments(fragments).map_or_else(|| Arc::clone(tombstones), Arc::new)
}
