use std::io::{self, Read};
use std::ops::Range;

use lsm_core::vfs::{LockGuard, LockMode};

/// Where backups are kept: a flat set of named objects that never change. [`DirectoryStore`](crate::DirectoryStore) is one;
/// the trait asks for no more than object stores have.
///
/// # Contract
///
/// - A name has 1 to 100 characters of `a` to `z`, `0` to `9` and `-`. An object is there as a whole or not at all,
///   whatever fails or crashes. What a call has returned survives a power cut.
/// - All calls may come from several threads and processes at once.
/// - A failed call may have done what it was asked to, as when an answer is lost on its way. The caller looks, and copes
///   with either. The store may repeat a call; so [`Put::AlreadyThere`] may be about an object that the same call has
///   stored before.
pub trait BackupStore: Send + Sync {
    /// Where it is, for messages: a path or an address, without a `/` at its end.
    fn location(&self) -> String;

    /// Stores an object of `bytes` bytes under a name that is free.
    ///
    /// `content` is read once from front to back, in pieces of any size, and may fail at any point, even after `bytes`
    /// bytes: it is an error, and nothing is stored, unless its end was reached after exactly so many bytes. Its end says
    /// that all bytes were proved. The content may be larger than memory.
    fn put_if_absent(&self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<Put>;

    /// The bytes of an object in `range`: fewer if it ends before, and `NotFound` if it is not there. The range has at
    /// most 4 MiB.
    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>>;

    /// All objects, in any order. What was stored or deleted before the call is seen.
    fn list(&self) -> io::Result<Vec<StoredObject>>;

    /// Deletes objects. It is no error if one is not there.
    fn delete(&self, names: &[String]) -> io::Result<()>;

    /// Locks the store, and never waits: `WouldBlock` if somebody else holds a lock that excludes this one. Those who make,
    /// read and restore backups share the lock, who deletes has it alone. It ends when the guard is dropped, or some
    /// time after its holder died.
    ///
    /// A store that others cannot write to, such as one on a medium that is read-only, may give a shared lock that does
    /// nothing.
    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn LockGuard>>;

    /// Removes what interrupted calls of [`put_if_absent`](Self::put_if_absent) have left. Called with the exclusive lock,
    /// so none is running.
    fn clean_up(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What [`BackupStore::put_if_absent`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is stored.
    Stored,
    /// There was an object of that name. It is as it was.
    AlreadyThere,
}

/// An object of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A store that several share.
impl<S: BackupStore + ?Sized> BackupStore for std::sync::Arc<S> {
    fn location(&self) -> String {
        (**self).location()
    }

    fn put_if_absent(&self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<Put> {
        (**self).put_if_absent(name, bytes, content)
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        (**self).get(name, range)
    }

    fn list(&self) -> io::Result<Vec<StoredObject>> {
        (**self).list()
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        (**self).delete(names)
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        (**self).lock(mode)
    }

    fn clean_up(&self) -> io::Result<()> {
        (**self).clean_up()
    }
}
