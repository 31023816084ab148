//! An open transaction: what all its calls use.

use std::cell::RefCell;
use std::ops::{Bound, Range};
use std::sync::Arc;

use lsm_core::Slice;

use super::iterator::{IterSource, TransactionIter};
use super::options::{Isolation, TransactionOptions};
use super::overlay::{Overlay, Own, Undo};
use super::state::State;
use super::view::View;
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::keyspace::Keyspace;
use crate::keyspaces::cut;
use crate::locks::{LockMode, Lockable};
use crate::read::Bounds;

/// An open transaction: what all its calls use.
pub(super) struct Session {
    pub(super) database: Arc<Database>,
    pub(super) options: TransactionOptions,
    pub(super) state: RefCell<State>,
}

/// How something is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The commit does not care.
    Unchecked,
    /// The commit checks it.
    Checked,
    /// The commit checks it, and it is going to be changed.
    ForUpdate,
}

impl Reading {
    fn lock_mode(self) -> Option<LockMode> {
        match self {
            Self::Unchecked => None,
            Self::Checked => Some(LockMode::Shared),
            Self::ForUpdate => Some(LockMode::Exclusive),
        }
    }
}

impl Session {
    /// Counts why a transaction failed.
    #[cold]
    pub(super) fn count_failure(&self, error: &Error) {
        let counters = &self.database.resources.counters.transactions;
        match error.kind() {
            ErrorKind::Conflict => counters.conflicts.add(1),
            ErrorKind::LockTimeout => counters.lock_timeouts.add(1),
            ErrorKind::Deadlock => counters.deadlocks.add(1),
            _ => {}
        }
    }

    pub(super) fn read(&self, keyspace: &Keyspace, key: &[u8], reading: Reading) -> Result<Option<Slice>> {
        self.read_part(keyspace, key, reading, None)
    }

    /// Reads a value, or a part of it.
    pub(super) fn read_part(
        &self,
        keyspace: &Keyspace,
        key: &[u8],
        reading: Reading,
        part: Option<&Range<u64>>,
    ) -> Result<Option<Slice>> {
        let cut_own =
            |value: Option<Slice>| value.map(|value| part.map_or(value.clone(), |part| cut(&value, part)));
        let tree = keyspace.tree_for(&self.database)?;
        if let Some(mode) = reading.lock_mode() {
            self.lock(tree, mode, || Lockable::Key(Slice::copy_from(key)))?;
        }
        let mut state = self.state.borrow_mut();
        let (index, point) = (state.part(tree), state.snapshot.point());
        let writes = state.parts.get(index).map(|part| &part.writes).filter(|writes| !writes.is_empty());
        let mut merged = None;
        if let Some(writes) = writes {
            match writes.get(key) {
                Own::Written(write) if write.is_merge() => merged = Some(Arc::clone(writes)),
                Own::Written(write) => {
                    return writes.value_of(key, write, &tree.load(), &point).map(cut_own);
                }
                Own::Deleted => return Ok(None),
                Own::Unknown => {}
            }
        }
        if reading == Reading::Unchecked {
            state.has_unchecked_reads |= self.options.isolation == Isolation::Snapshot;
        } else {
            state.track_key(index, key);
        }
        let before = tree.load();
        state.snapshot.check()?;
        let value = match merged.as_deref().map(|writes| (writes, writes.get(key))) {
            Some((writes, Own::Written(write))) => cut_own(writes.value_of(key, write, &before, &point)?),
            _ => match part {
                Some(part) => before.get_part(key, &point, part.clone())?,
                None => before.get(key, &point)?,
            },
        };
        // A drop empties the state. Check after the read: it must fail rather than see that.
        tree.check_usable()?;
        Ok(value)
    }

    /// One keyspace as the transaction sees it now.
    pub(super) fn view(&self, keyspace: &Keyspace, bounds: &Bounds, reading: Reading) -> Result<View<'_>> {
        let tree = keyspace.tree_for(&self.database)?;
        if let Some(mode) = reading.lock_mode() {
            self.lock(tree, mode, || Lockable::Range(bounds.into()))?;
        }
        let mut state = self.state.borrow_mut();
        let tracks = reading != Reading::Unchecked;
        state.has_unchecked_reads |= !tracks && self.options.isolation == Isolation::Snapshot;
        let part = state.part(tree);
        let writes = state.parts.get(part).map(|part| Arc::clone(&part.writes)).unwrap_or_default();
        let snapshot = Arc::clone(&state.snapshot);
        let read = tree.load_full();
        snapshot.check()?;
        let view = View { open: &self.state, part, state: read, snapshot, writes, tracks };
        tree.check_usable()?;
        Ok(view)
    }

    pub(super) fn iter_within(
        &self,
        keyspace: &Keyspace,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        reading: Reading,
    ) -> TransactionIter<'_> {
        if let (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) =
            (lower, upper)
            && start > end
        {
            return TransactionIter::new(Err(Error::inverted(start, end)));
        }
        let bounds = Bounds { lower: lower.map(Slice::copy_from), upper: upper.map(Slice::copy_from) };
        let view = self.view(keyspace, &bounds, reading);
        TransactionIter::new(view.map(|view| IterSource { view, bounds, prefix: None }))
    }

    pub(super) fn iter_prefix(
        &self,
        keyspace: &Keyspace,
        prefix: &[u8],
        reading: Reading,
    ) -> TransactionIter<'_> {
        let bounds = Bounds::prefix(prefix);
        let view = self.view(keyspace, &bounds, reading);
        TransactionIter::new(view.map(|view| IterSource {
            view,
            bounds,
            prefix: Some(Slice::copy_from(prefix)),
        }))
    }

    /// Changes the writes of a keyspace. With locks, `what` is locked first.
    pub(super) fn change(
        &self,
        keyspace: &Keyspace,
        what: impl FnOnce() -> Lockable,
        change: impl FnOnce(&mut Overlay) -> Undo,
    ) -> Result<()> {
        let tree = keyspace.tree_for(&self.database)?;
        self.database.write_path()?.check()?;
        self.lock(tree, LockMode::Exclusive, what)?;
        let mut state = self.state.borrow_mut();
        let part = state.part(tree);
        state.write(part, change)
    }
}
