//! A compaction filter, and what its values mean whether it has met them or not.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lsm_engine::{CompactionAt, CompactionFilter, Decision, LazyValue};

use crate::fused::Fuse;

const DEAD: &[u8] = b"dead";
const YOUNG: &[u8] = b"young";
const OLD: &[u8] = b"old";

/// Values that the filter changes, also as the first of a list.
pub(super) const MARKED: [&[u8]; 5] = [DEAD, YOUNG, b"dead,x", b"young,x", b"dead,young"];

/// Takes a first element `dead` away, and makes `old` of a first `young`. Sometimes it leaves them for later.
#[derive(Debug, Default)]
pub(super) struct Gardener {
    pub(super) fuse: Arc<Fuse>,
    pub(super) kept: AtomicU64,
    pub(super) deleted: AtomicU64,
    pub(super) replaced: AtomicU64,
    pub(super) calls: AtomicU64,
}

impl CompactionFilter for Gardener {
    fn decide(&self, _: &[u8], value: LazyValue<'_>, _: CompactionAt) -> Decision {
        self.fuse.call("decide");
        let is_lazy = self.calls.fetch_add(1, Relaxed).is_multiple_of(3);
        match normal(value.get()) {
            None if !is_lazy => {
                self.deleted.fetch_add(1, Relaxed);
                Decision::Delete
            }
            Some(Cow::Owned(value)) if !is_lazy => {
                self.replaced.fetch_add(1, Relaxed);
                Decision::Replace(value)
            }
            _ => {
                self.kept.fetch_add(1, Relaxed);
                Decision::Keep
            }
        }
    }
}

/// What the filter makes of a value in the end. `None` if it deletes it. A merge appends to a value, or is the value
/// where there is none, so the meaning stays the same if the filter comes between two merges.
pub(super) fn normal(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let split = |first: &[u8]| {
        let rest = value.strip_prefix(first)?;
        if rest.is_empty() { Some(None) } else { rest.strip_prefix(b",").map(Some) }
    };
    match (split(DEAD), split(YOUNG)) {
        (Some(rest), _) => normal(rest?).map(|value| Cow::Owned(value.into_owned())),
        (_, Some(None)) => Some(Cow::Owned(OLD.to_vec())),
        (_, Some(Some(rest))) => Some(Cow::Owned([OLD, b",", rest].concat())),
        (None, None) => Some(Cow::Borrowed(value)),
    }
}
