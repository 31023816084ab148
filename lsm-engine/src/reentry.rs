//! Parts from outside may call the database that calls them: they read and write, but do not wait for themselves.

use std::cell::RefCell;

use crate::error::{Error, Result};
use crate::resources::Resources;

/// From where a thread calls parts from outside.
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
    /// Databases, and where in them this thread is, the innermost last.
    static PLACES: RefCell<Vec<(usize, Inside)>> = const { RefCell::new(Vec::new()) };
}

/// The thread is inside until this is dropped.
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        PLACES.with_borrow_mut(Vec::pop);
    }
}

impl Resources {
    /// Tells this database from all others that are open.
    pub(crate) fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// To be held while parts from outside may be called.
    pub(crate) fn enter(&self, inside: Inside) -> Entered {
        PLACES.with_borrow_mut(|places| places.push((self.place(), inside)));
        Entered(())
    }

    /// Whether a part from outside that was called from there is what calls now.
    pub(crate) fn is_inside(&self, inside: Inside) -> bool {
        PLACES.with_borrow(|places| places.contains(&(self.place(), inside)))
    }

    /// Whether any part from outside is what calls now.
    pub(crate) fn is_called_back(&self) -> bool {
        PLACES.with_borrow(|places| places.iter().any(|(place, _)| *place == self.place()))
    }

    /// Fails if the background work to wait for would never end: it has called what calls now.
    pub(crate) fn check_may_wait(&self) -> Result<()> {
        if self.is_called_back() { Err(called_back("waits for background work")) } else { Ok(()) }
    }

    /// Fails under the lock of the manifest.
    pub(crate) fn check_may_change_keyspaces(&self) -> Result<()> {
        if self.is_inside(Inside::Manifest) { Err(called_back("changes keyspaces")) } else { Ok(()) }
    }
}

#[cold]
fn called_back(what: &str) -> Error {
    Error::invalid(format!(
        "a policy, filter or other part from outside, called by the database, {what} itself"
    ))
}
