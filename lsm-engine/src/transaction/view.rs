//! What a cursor of a transaction reads.

use std::cell::RefCell;
use std::sync::Arc;

use super::cursor::TransactionCursor;
use super::overlay::Overlay;
use super::own_cursor::OwnCursor;
use super::state::State;
use super::walks::Walk;
use crate::keyspaces::ReadState;
use crate::read::{Bounds, DbCursor};
use crate::snapshot::Snapshot;

/// One keyspace as a transaction sees it at one moment.
#[derive(Clone)]
pub(super) struct View<'t> {
    /// The transaction.
    pub(super) open: &'t RefCell<State>,
    /// The index of the keyspace among those of the transaction.
    pub(super) part: usize,
    pub(super) state: Arc<ReadState>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) writes: Arc<Overlay>,
    pub(super) tracks: bool,
}

impl<'t> View<'t> {
    pub(super) fn cursor(&self, bounds: Bounds, prefix: Option<&[u8]>) -> TransactionCursor<'t> {
        let point = self.snapshot.point();
        let range = (&bounds).into();
        let base = DbCursor::new(Arc::clone(&self.state), point, bounds.clone(), prefix);
        let cursor = OwnCursor::new(base, &self.writes, &self.state, bounds, point);
        let walk = self.tracks.then(|| {
            let (part, snapshot) = (self.part, Arc::clone(&self.snapshot));
            self.open.borrow_mut().walks.begin(Walk { part, range: Clone::clone(&range), snapshot })
        });
        TransactionCursor::new(self.open, cursor, range, walk)
    }
}
