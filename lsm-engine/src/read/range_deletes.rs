//! The range tombstones that a scan must respect.

use std::sync::Arc;

use lsm_core::range_tombstone::{Cover, FragmentedRangeTombstones};
use lsm_core::{Entry, SequenceNumber};

use crate::keyspaces::{Memtable, ReadState};

/// The range tombstones of all sources, and a cached answer for the range of keys that was asked for last.
pub(crate) struct RangeDeletes {
    /// Memtables with range tombstones. They are asked key by key, because fragmenting overlapping tombstones into one
    /// list takes quadratic time.
    memtables: Vec<Arc<Memtable>>,
    tables: Option<Arc<FragmentedRangeTombstones>>,
    /// `covering` is valid for keys from `start` up to, but not including, `end`; without `end`, for all keys from
    /// `start`.
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    covering: SequenceNumber,
    known: bool,
}

impl RangeDeletes {
    pub(crate) fn new(state: &ReadState) -> Self {
        let memtables = state.memtables().filter(|memtable| !memtable.range_tombstones.is_empty());
        Self {
            memtables: memtables.cloned().collect(),
            tables: state.version.range_tombstones().cloned(),
            start: Vec::new(),
            end: None,
            covering: 0,
            known: false,
        }
    }

    /// Whether a range tombstone visible at `visible` deletes the entry.
    #[inline]
    pub(crate) fn cover(&mut self, entry: Entry<'_>, visible: SequenceNumber) -> bool {
        let is_empty = self.memtables.is_empty() && self.tables.is_none();
        !is_empty && self.cover_any(entry, visible)
    }

    /// Apart, so that a scan without range deletes makes no call for each entry.
    #[inline(never)]
    fn cover_any(&mut self, entry: Entry<'_>, visible: SequenceNumber) -> bool {
        let inside =
            self.known && *self.start <= *entry.key && self.end.as_deref().is_none_or(|end| entry.key < end);
        if !inside {
            self.look_up(entry.key, visible);
        }
        entry.sequence < self.covering
    }

    /// The cached answer of the last [`cover`](Self::cover): start, exclusive end, and the sequence number below which
    /// all entries in that range are deleted.
    pub(crate) fn covered(&self) -> (&[u8], Option<&[u8]>, SequenceNumber) {
        (&self.start, self.end.as_deref(), self.covering)
    }

    fn look_up(&mut self, key: &[u8], visible: SequenceNumber) {
        let covers = self.memtables.iter().map(|memtable| memtable.range_tombstones.cover(key, visible));
        let covers = covers.chain(self.tables.iter().map(|tables| cover_in(tables, key, visible)));
        let nowhere = Cover { start: None, end: None, sequence: 0 };
        let common = covers.fold(nowhere, |common, cover| Cover {
            // A missing start is below all keys. A missing end is above all keys, so it is left out of the minimum.
            start: common.start.max(cover.start),
            end: common.end.into_iter().chain(cover.end).min(),
            sequence: common.sequence.max(cover.sequence),
        });
        self.start.clear();
        self.start.extend_from_slice(common.start.unwrap_or_default());
        self.end = common.end.map(<[u8]>::to_vec);
        self.covering = common.sequence;
        self.known = true;
    }
}

/// The fragment around a key, or the gap between two fragments.
fn cover_in<'t>(tables: &'t FragmentedRangeTombstones, key: &[u8], visible: SequenceNumber) -> Cover<'t> {
    match tables.fragment_at_or_after(key) {
        Some(fragment) if fragment.start <= key => {
            let newest = fragment.sequences.iter().copied().find(|&sequence| sequence <= visible);
            Cover { start: Some(fragment.start), end: Some(fragment.end), sequence: newest.unwrap_or(0) }
        }
        next => Cover {
            start: tables.fragment_at_or_before(key).map(|before| before.end),
            end: next.map(|next| next.start),
            sequence: 0,
        },
    }
}
