//! The cursors of a transaction that still move.

use std::sync::Arc;

use crate::read::KeyRange;
use crate::snapshot::Snapshot;

/// A range of one keyspace that was read, or may be read, at a snapshot.
pub(super) struct Walk {
    /// The index of the keyspace among those of the transaction.
    pub(super) part: usize,
    pub(super) range: KeyRange,
    pub(super) snapshot: Arc<Snapshot>,
}

/// The number of a live cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalkId(usize);

/// The cursors of a transaction that still move, each with the range in which it may move. If a cursor is leaked, all of
/// that range counts as read.
#[derive(Default)]
pub(super) struct Walks {
    live: Vec<Option<Walk>>,
}

impl Walks {
    pub(super) fn begin(&mut self, walk: Walk) -> WalkId {
        let free = self.live.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.live.push(None);
            self.live.len() - 1
        });
        if let Some(place) = self.live.get_mut(index) {
            *place = Some(walk);
        }
        WalkId(index)
    }

    pub(super) fn get(&self, id: WalkId) -> Option<&Walk> {
        self.live.get(id.0)?.as_ref()
    }

    pub(super) fn end(&mut self, id: WalkId) {
        if let Some(place) = self.live.get_mut(id.0) {
            *place = None;
        }
    }

    /// Takes out all that were never ended.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Walk> + use<> {
        std::mem::take(&mut self.live).into_iter().flatten()
    }
}
