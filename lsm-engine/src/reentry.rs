//! Reentry: user code that the engine calls (memtable, filter, policy, callback) may call the database. It may read and
//! write, but a call that would wait for itself fails.

use std::cell::RefCell;

use crate::error::{Error, Result};
use crate::resources::Resources;

/// The place from which a thread calls user code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// A step of background work.
    Job,
    /// Under the lock of the scheduler.
    Scheduler,
    /// Under the lock of the manifest.
    Manifest,
}

thread_local! {
    /// The databases that this thread is in, and the place in each. The innermost is last.
    static PLACES: RefCell<Vec<(usize, Inside)>> = const { RefCell::new(Vec::new()) };
}

/// Marks that the thread is inside. Dropping it ends that.
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        PLACES.with_borrow_mut(Vec::pop);
    }
}

/// Whether the present call comes from user code that the database of this place called.
pub(crate) fn is_called_back(place: usize) -> bool {
    PLACES.with_borrow(|places| places.iter().any(|(other, _)| *other == place))
}

impl Resources {
    /// A number that tells this database from all other open ones.
    pub(crate) fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Marks that this thread may call user code. Hold the result during those calls.
    pub(crate) fn enter(&self, inside: Inside) -> Entered {
        PLACES.with_borrow_mut(|places| places.push((self.place(), inside)));
        Entered(())
    }

    /// Whether the present call comes from user code that was called from this place.
    pub(crate) fn is_inside(&self, inside: Inside) -> bool {
        PLACES.with_borrow(|places| places.contains(&(self.place(), inside)))
    }

    /// Whether the present call comes from user code that this database called.
    pub(crate) fn is_called_back(&self) -> bool {
        is_called_back(self.place())
    }

    /// Fails for a call from user code that would wait for background work: that work itself called the user code.
    pub(crate) fn check_may_wait(&self) -> Result<()> {
        if self.is_called_back() { Err(called_back("wait for background work")) } else { Ok(()) }
    }

    /// Fails for a call from user code under the manifest lock, since changing keyspaces takes that lock.
    pub(crate) fn check_may_change_keyspaces(&self) -> Result<()> {
        if self.is_inside(Inside::Manifest) { Err(called_back("change keyspaces")) } else { Ok(()) }
    }
}

#[cold]
fn called_back(what: &str) -> Error {
    Error::invalid(format!("a policy, filter, memtable or callback, called by the database, must not {what}"))
}
