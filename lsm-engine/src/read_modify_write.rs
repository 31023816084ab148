use std::cell::OnceCell;

use lsm_core::Slice;

use crate::error::Result;
use crate::keyspace::Keyspace;
use crate::read::End;
use crate::write::Next;

/// What [`Keyspace::compare_and_swap`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareAndSwap {
    /// The key had the expected value and has the new one now.
    Swapped,
    /// The key has this value, or none. Nothing was written.
    Found(Option<Slice>),
}

impl CompareAndSwap {
    /// Whether the new value was written.
    pub fn is_swapped(&self) -> bool {
        *self == Self::Swapped
    }
}

/// Atomic calls that read a value, decide and write.
///
/// No other write of any thread comes between the read and the write. No lock is held while a closure runs: if the key
/// was changed meanwhile, the call reads again and calls the closure again. A panic in a closure fails the call with
/// [`ErrorKind::Callback`](crate::ErrorKind::Callback) and writes nothing. The writes are buffered, as those of
/// [`put`](Self::put) are.
impl Keyspace {
    /// Replaces the value of `key` by what `change` makes of it. `None` stands for no value, in both directions. Returns
    /// what `change` returned last.
    ///
    /// The new value is written as [`put`](Self::put) would write it: it does not keep the time at which the old one would
    /// have expired.
    ///
    /// `change` may be called several times, and must not write `key` itself: after a thousand attempts the call fails
    /// with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let count = |old: Option<&[u8]>| {
    ///     let old = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_be_bytes);
    ///     Some((old + 1).to_be_bytes())
    /// };
    /// db.update("visits", count)?;
    /// assert_eq!(db.update("visits", count)?, Some(2_u64.to_be_bytes()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<Option<V>> {
        let (_, next) = self.decide(key.as_ref(), |found| match change(found.map(|found| &**found)) {
            Some(new) => Next::Put(new),
            None => delete_if_some(found),
        })?;
        Ok(match next {
            Next::Put(new) => Some(new),
            Next::Keep | Next::Delete => None,
        })
    }

    /// Replaces the value of `key` by `new` if it is `expected`, and says what it found if it is not. `None` stands for
    /// no value.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// use lsm_engine::CompareAndSwap;
    ///
    /// assert!(db.compare_and_swap("leader", None, Some(b"me"))?.is_swapped());
    /// let found = db.compare_and_swap("leader", None, Some(b"you"))?;
    /// assert_eq!(found, CompareAndSwap::Found(Some("me".into())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<CompareAndSwap> {
        let is_expected = |found: Option<&Slice>| found.map(|found| &**found) == expected;
        let (found, _) = self.decide(key.as_ref(), |found| match new {
            _ if !is_expected(found) => Next::Keep,
            Some(new) => Next::Put(new),
            None => delete_if_some(found),
        })?;
        let is_swapped = is_expected(found.as_ref());
        Ok(if is_swapped { CompareAndSwap::Swapped } else { CompareAndSwap::Found(found) })
    }

    /// The value of `key`. If it has none, the one that `make` returns, which it has from then on. `make` is called at
    /// most once; its value is not used if another thread inserts one meanwhile.
    pub fn get_or_insert_with<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> V,
    ) -> Result<Slice> {
        let (value, mut make) = (OnceCell::new(), Some(make));
        let (found, next) = self.decide(key.as_ref(), |found| {
            if found.is_none()
                && let Some(make) = make.take()
            {
                value.get_or_init(make);
            }
            match value.get() {
                Some(value) if found.is_none() => Next::Put(value),
                _ => Next::Keep,
            }
        })?;
        Ok(match next {
            Next::Put(value) => Slice::copy_from(value.as_ref()),
            Next::Keep | Next::Delete => found.unwrap_or_default(),
        })
    }

    /// Deletes `key` and returns the value that it had.
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        Ok(self.decide(key.as_ref(), delete_if_some::<&[u8]>)?.0)
    }

    /// Deletes the first key and returns it with its value: the head of a queue. No two calls return the same entry. It
    /// costs a few steps, however many entries were deleted before.
    pub fn pop_first(&self) -> Result<Option<(Slice, Slice)>> {
        self.database.write_path()?.pop(&self.tree, End::First)
    }

    /// Deletes the last key and returns it with its value: the top of a stack. No two calls return the same entry.
    pub fn pop_last(&self) -> Result<Option<(Slice, Slice)>> {
        self.database.write_path()?.pop(&self.tree, End::Last)
    }

    fn decide<V: AsRef<[u8]>>(
        &self,
        key: &[u8],
        decide: impl FnMut(Option<&Slice>) -> Next<V>,
    ) -> Result<(Option<Slice>, Next<V>)> {
        self.database.write_path()?.update(&self.tree, key, decide)
    }
}

/// A key without a value needs no tombstone.
fn delete_if_some<V>(found: Option<&Slice>) -> Next<V> {
    if found.is_some() { Next::Delete } else { Next::Keep }
}
