use std::ops::RangeBounds;

use lsm_core::Slice;

use super::cursor::TransactionCursor;
use super::iterator::TransactionIter;
use super::session::{Reading, Session};
use crate::error::Result;
use crate::keyspace::Keyspace;
use crate::read::{Bounds, borrow_range};

/// Reads of a transaction that the commit does not check; see [`Transaction::untracked`](crate::Transaction::untracked).
///
/// They see the same as its other reads: the snapshot and the transaction's own writes.
#[derive(Clone, Copy)]
pub struct Untracked<'t> {
    session: &'t Session,
    default: &'t Keyspace,
}

impl<'t> Untracked<'t> {
    pub(super) fn new(session: &'t Session, default: &'t Keyspace) -> Self {
        Self { session, default }
    }

    /// The value of `key` in the default keyspace.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.get_in(self.default, key)
    }

    /// The value of `key` in `keyspace`.
    pub fn get_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.session.read(keyspace, key.as_ref(), Reading::Unchecked)
    }

    /// Whether `key` has a value in the default keyspace.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// Whether `key` has a value in `keyspace`.
    pub fn contains_key_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_in(keyspace, key)?.is_some())
    }

    /// The values of several keys of the default keyspace, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        self.multi_get_in(self.default, keys)
    }

    /// The values of several keys of `keyspace`, in the order of the keys.
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        // Without keys as well, a foreign keyspace fails.
        keyspace.tree_for(&self.session.database)?;
        keys.into_iter().map(|key| self.get_in(keyspace, key)).collect()
    }

    /// Iterates over the keys and values of a range of the default keyspace.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> TransactionIter<'t> {
        self.range_in(self.default, range)
    }

    /// Iterates over the keys and values of a range of `keyspace`.
    pub fn range_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> TransactionIter<'t> {
        self.session.iter_within(keyspace, borrow_range(&range), Reading::Unchecked)
    }

    /// Iterates over the keys of the default keyspace that start with `prefix`, and their values.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> TransactionIter<'t> {
        self.prefix_in(self.default, prefix)
    }

    /// Iterates over the keys of `keyspace` that start with `prefix`, and their values.
    pub fn prefix_in(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> TransactionIter<'t> {
        self.session.iter_prefix(keyspace, prefix.as_ref(), Reading::Unchecked)
    }

    /// Iterates over all keys and values of the default keyspace.
    pub fn iter(&self) -> TransactionIter<'t> {
        self.range::<&[u8]>(..)
    }

    /// Iterates over all keys and values of `keyspace`.
    pub fn iter_in(&self, keyspace: &Keyspace) -> TransactionIter<'t> {
        self.range_in::<&[u8]>(keyspace, ..)
    }

    /// The first key of the default keyspace and its value.
    pub fn first(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().first_entry()
    }

    /// The first key of `keyspace` and its value.
    pub fn first_in(&self, keyspace: &Keyspace) -> Result<Option<(Slice, Slice)>> {
        self.iter_in(keyspace).first_entry()
    }

    /// The last key of the default keyspace and its value.
    pub fn last(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().last_entry()
    }

    /// The last key of `keyspace` and its value.
    pub fn last_in(&self, keyspace: &Keyspace) -> Result<Option<(Slice, Slice)>> {
        self.iter_in(keyspace).last_entry()
    }

    /// Whether no key of the default keyspace has a value.
    pub fn is_empty(&self) -> Result<bool> {
        self.iter().has_none()
    }

    /// Whether no key of `keyspace` has a value.
    pub fn is_empty_in(&self, keyspace: &Keyspace) -> Result<bool> {
        self.iter_in(keyspace).has_none()
    }

    /// Counts the keys of a range of the default keyspace. It passes all of them, but copies nothing.
    pub fn count<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.range(range).count_entries()
    }

    /// Counts the keys of a range of `keyspace`.
    pub fn count_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Result<u64> {
        self.range_in(keyspace, range).count_entries()
    }

    /// A cursor over the default keyspace.
    pub fn cursor(&self) -> Result<TransactionCursor<'t>> {
        self.cursor_in(self.default)
    }

    /// A cursor over `keyspace`.
    pub fn cursor_in(&self, keyspace: &Keyspace) -> Result<TransactionCursor<'t>> {
        Ok(self.session.view(keyspace, &Bounds::ALL, Reading::Unchecked)?.cursor(Bounds::ALL, None))
    }
}

impl<'t> IntoIterator for &Untracked<'t> {
    type Item = Result<(Slice, Slice)>;
    type IntoIter = TransactionIter<'t>;

    fn into_iter(self) -> TransactionIter<'t> {
        self.iter()
    }
}

impl std::fmt::Debug for Untracked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Untracked").finish_non_exhaustive()
    }
}
