//! Locks of a transaction, and what they mean for its snapshot.

use std::sync::Arc;

use super::conflicts::{SEARCH, conflict};
use super::session::Session;
use super::state::State;

use crate::callbacks::caught;
use crate::error::Result;
use crate::keyspaces::{Tree, Visibility};
use crate::locks::{LockMode, Lockable};
use crate::read::{Changes, KeyRange};

impl Session {
    /// Locks a key or range, if the transaction takes locks. Afterwards its snapshot has what is locked as it is now.
    #[inline]
    pub(super) fn lock(
        &self,
        tree: &Arc<Tree>,
        mode: LockMode,
        what: impl FnOnce() -> Lockable,
    ) -> Result<()> {
        if self.options.locks.is_none() {
            return Ok(());
        }
        self.lock_now(tree, mode, what()).inspect_err(|error| self.count_failure(error))
    }

    #[inline(never)]
    fn lock_now(&self, tree: &Arc<Tree>, mode: LockMode, what: Lockable) -> Result<()> {
        let database = &self.database;
        let mut state = self.state.borrow_mut();
        state.check_room(what.memory_bytes())?;
        let Some(owner) = &mut state.locks else { return Ok(()) };
        if owner.lock(&database.resources, tree, what.clone(), mode, || database.check_open())? {
            state.follow(&database.visibility, tree, what)?;
        }
        Ok(())
    }
}

impl State {
    /// If what was just locked has changed since the snapshot, takes a new snapshot. The transaction has waited for the
    /// lock so that it sees that change; with the old snapshot its commit could only fail. What it has read before must be
    /// the same in both snapshots.
    fn follow(&mut self, visibility: &Visibility, tree: &Tree, what: Lockable) -> Result<()> {
        let before = self.snapshot.sequence();
        if visibility.sequence() == before {
            return Ok(());
        }
        let range = match what {
            Lockable::Key(key) => KeyRange::of_key(&key),
            Lockable::Range(range) => range,
        };
        let changed = caught(SEARCH, || Changes::new(&tree.load(), before).of_range(&range.bounds()))?;
        self.snapshot.check()?;
        let Some(changed) = changed else { return Ok(()) };
        if self.has_unchecked_reads {
            return Err(conflict(&tree.name, &range, changed));
        }
        // Take the new snapshot first: then all changes up to it are found.
        let renewed = self.snapshot.renewed();
        self.check(before)?;
        self.snapshot = Arc::new(renewed);
        Ok(())
    }
}
