//! Compares all kinds of reads with a sorted map. An error is returned; a difference panics.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included};

use lsm_engine::{Iter, Keyspace, Result, Slice, Snapshot};

use crate::random::{Draw, Random};

pub(crate) type Bytes = Vec<u8>;
pub(crate) type Model = BTreeMap<Bytes, Bytes>;

/// A keyspace, as it is now or as a snapshot sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) keyspace: &'a Keyspace,
    pub(crate) snapshot: Option<&'a Snapshot>,
}

impl View<'_> {
    fn iter(self) -> Iter {
        match self.snapshot {
            Some(snapshot) => snapshot.range_in::<&[u8]>(self.keyspace, ..),
            None => self.keyspace.iter(),
        }
    }

    fn get(self, key: &[u8]) -> Result<Option<Bytes>> {
        let found = match self.snapshot {
            Some(snapshot) => snapshot.get_in(self.keyspace, key),
            None => self.keyspace.get(key),
        };
        Ok(found?.map(|value| value.to_vec()))
    }

    /// Scans all of it in both directions, and seeks some keys.
    pub(crate) fn compare(self, model: &Model, keys: &[Bytes]) -> Result<()> {
        let row = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        assert_eq!(rows(self.iter())?, model.iter().map(row).collect::<Vec<_>>());
        assert_eq!(rows(self.iter().rev())?, model.iter().rev().map(row).collect::<Vec<_>>(), "backward");
        for key in keys {
            assert_eq!(self.get(key)?.as_ref(), model.get(key), "{}", key.escape_ascii());
        }
        Ok(())
    }
}

/// The entries that an iterator must return, in order.
pub(crate) fn rows(iter: impl Iterator<Item = Result<(Slice, Slice)>>) -> Result<Vec<(Bytes, Bytes)>> {
    iter.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}

/// An iterator and the entries that it must still return.
pub(crate) struct Walk {
    iter: Iter,
    rest: VecDeque<(Bytes, Bytes)>,
}

impl Walk {
    /// Starts one over everything, a prefix or a range.
    pub(crate) fn begin(random: &mut Random, view: View<'_>, model: &Model) -> Self {
        let View { keyspace, snapshot } = view;
        let rest = |keep: &dyn Fn(&Bytes) -> bool| {
            let rows = model.iter().filter(|(key, _)| keep(key));
            rows.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        match random.below(3) {
            0 => {
                let mut prefix = random.key();
                prefix.truncate(random.below(6));
                let iter = match snapshot {
                    Some(snapshot) => snapshot.prefix_in(keyspace, &prefix),
                    None => keyspace.prefix(&prefix),
                };
                Self { iter, rest: rest(&|key| key.starts_with(&prefix)) }
            }
            1 => Self { iter: view.iter(), rest: rest(&|_| true) },
            _ => {
                let (start, end) = random.range();
                let lower = if random.one_in(2) { Included(&start) } else { Excluded(&start) };
                let upper = if random.one_in(2) { Included(&end) } else { Excluded(&end) };
                let iter = match snapshot {
                    Some(snapshot) => snapshot.range_in::<Bytes>(keyspace, (lower, upper)),
                    None => keyspace.range::<Bytes>((lower, upper)),
                };
                let inside = |key: &Bytes| {
                    (if let Included(start) = lower { key >= start } else { *key > start })
                        && (if let Included(end) = upper { key <= end } else { *key < end })
                };
                Self { iter, rest: rest(&inside) }
            }
        }
    }

    /// Takes some entries from either end.
    pub(crate) fn go_on(&mut self, random: &mut Random) -> Result<()> {
        for _ in 0..random.below(16) {
            let (found, expected) = if random.one_in(2) {
                (self.iter.next(), self.rest.pop_front())
            } else {
                (self.iter.next_back(), self.rest.pop_back())
            };
            let found = found.transpose()?.map(|(key, value)| (key.to_vec(), value.to_vec()));
            assert_eq!(found, expected);
        }
        Ok(())
    }
}
