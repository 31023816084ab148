use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::append_vec::AppendVec;
use super::fragmented::FragmentedRangeTombstones;
use super::fragmenter::{Keep, Span, fragment};
use super::persistent_tree::{Assigned, NONE, Nodes, TreeWriter};
use super::tombstone::RangeTombstone;
use crate::error::{Error, Result};
use crate::key::SequenceNumber;

/// The range tombstones of a memtable: added one by one, while others read.
///
/// Adding takes time and memory that grow with the logarithm of their number, whatever they overlap: two thirds
/// of a kilobyte each for a thousand, 1.5 KB for a hundred thousand. Readers take no lock and wait for nobody; without
/// tombstones they pay for one atomic load. A reader sees every tombstone whose insertion happened before it
/// learned the sequence number that it reads at. Answers for old numbers take a bisection more.
///
/// ```
/// use lsm_core::range_tombstone::{RangeTombstone, RangeTombstoneSet};
/// let set = RangeTombstoneSet::new();
/// set.insert(RangeTombstone { start: "a".into(), end: "m".into(), sequence: 3 })?;
/// set.insert(RangeTombstone { start: "f".into(), end: "z".into(), sequence: 8 })?;
/// assert_eq!(set.covering_sequence(b"g", 9), 8);
/// assert_eq!(set.covering_sequence(b"g", 7), 3);
/// let cover = set.cover(b"g", 9);
/// assert_eq!((cover.start, cover.end), (Some(&b"f"[..]), Some(&b"z"[..])));
/// # Ok::<(), lsm_core::Error>(())
/// ```
#[derive(Default)]
pub struct RangeTombstoneSet {
    /// How many versions readers may look at.
    published_count: AtomicU32,
    memory_bytes: AtomicUsize,
    store: OnceLock<Box<Store>>,
    writer: Mutex<TreeWriter>,
}

struct Store {
    nodes: Nodes,
    versions: AppendVec<Version>,
}

/// A tombstone, and the tree that it completed.
struct Version {
    sequence: SequenceNumber,
    start_key: u32,
    end_key: u32,
    root: u32,
}

/// A key range throughout which the same tombstone is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover<'a> {
    /// The first key of the range; `None`: there is no first.
    pub start: Option<&'a [u8]>,
    /// The first key after the range; `None`: there is none.
    pub end: Option<&'a [u8]>,
    /// The newest visible tombstone, 0 where there is none.
    pub sequence: SequenceNumber,
}

impl RangeTombstoneSet {
    /// No tombstones, and no memory until there is one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tombstone. Publish its sequence number to readers afterwards. An empty range changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the sequence number is below that of an earlier tombstone, or after some
    /// ten million tombstones; nothing is added then.
    pub fn insert(&self, tombstone: RangeTombstone) -> Result<()> {
        let RangeTombstone { start, end, sequence } = tombstone;
        if start >= end {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        let store = self.store.get_or_init(|| {
            writer.allocated_bytes += size_of::<Store>();
            Box::new(Store { nodes: Nodes::new(), versions: AppendVec::new() })
        });
        let count = self.published_count.load(Ordering::Relaxed);
        let newest = count.checked_sub(1).and_then(|last| store.versions.get(last));
        if newest.is_some_and(|newest| newest.sequence > sequence) {
            return Err(Error::invalid("range tombstones must be added in the order of sequence numbers"));
        }
        let root = newest.map_or(NONE, |newest| newest.root);
        let full = || Error::invalid("too many range tombstones in one memtable");
        let Assigned { root, start_key, end_key } =
            writer.assign(&store.nodes, root, (&start, &end), sequence).ok_or_else(full)?;
        let version = Version { sequence, start_key, end_key, root };
        writer.allocated_bytes += store.versions.push(count, version).ok_or_else(full)?;
        self.memory_bytes.store(writer.allocated_bytes, Ordering::Relaxed);
        self.published_count.store(count + 1, Ordering::Release);
        Ok(())
    }

    /// Whether there is no tombstone. One atomic load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.published_count.load(Ordering::Acquire) == 0
    }

    /// How many tombstones were added.
    #[inline]
    pub fn len(&self) -> usize {
        self.published_count.load(Ordering::Acquire) as usize
    }

    /// The sequence number of the newest tombstone, 0 if there is none.
    pub fn newest_sequence(&self) -> SequenceNumber {
        let last = self.published_count.load(Ordering::Acquire).checked_sub(1);
        let newest = last.and_then(|last| self.store.get()?.versions.get(last));
        newest.map_or(0, |newest| newest.sequence)
    }

    /// Highest sequence number up to `visible` of a tombstone that covers `key`, 0 if there is none.
    #[inline]
    pub fn covering_sequence(&self, key: &[u8], visible: SequenceNumber) -> SequenceNumber {
        let count = self.published_count.load(Ordering::Acquire);
        if count == 0 {
            return 0;
        }
        self.cover_in(count, key, visible).sequence
    }

    /// The widest range around `key` in which the newest tombstone up to `visible` is the same.
    ///
    /// For scans: they ask again when they leave the range, in either direction, or jump over it when it deletes.
    /// The answer for a number that readers may read at never changes.
    pub fn cover(&self, key: &[u8], visible: SequenceNumber) -> Cover<'_> {
        self.cover_in(self.published_count.load(Ordering::Acquire), key, visible)
    }

    fn cover_in(&self, count: u32, key: &[u8], visible: SequenceNumber) -> Cover<'_> {
        let nothing = Cover { start: None, end: None, sequence: 0 };
        let (Some(store), Some(last)) = (self.store.get(), count.checked_sub(1)) else {
            return nothing;
        };
        let sequence_at = |index| store.versions.get(index).map_or(0, |version: &Version| version.sequence);
        let mut index = last;
        if sequence_at(last) > visible {
            // How many versions are visible: they are in order.
            let (mut low, mut high) = (0, last);
            while low < high {
                let middle = u32::midpoint(low, high);
                if sequence_at(middle) <= visible {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            match low.checked_sub(1) {
                Some(visible_last) => index = visible_last,
                None => return nothing,
            }
        }
        let Some(version) = store.versions.get(index) else {
            return nothing;
        };
        let found = store.nodes.surroundings(version.root, key);
        Cover { start: found.start, end: found.end, sequence: found.sequence }
    }

    /// All tombstones, fragmented with every sequence number: see [`FragmentedRangeTombstones::new`] on the
    /// cost.
    pub fn snapshot(&self) -> FragmentedRangeTombstones {
        fragment(self.spans(SequenceNumber::MAX), Keep::All)
    }

    /// All tombstones, fragmented with what `snapshots` (ascending, the last is the visible number) and later
    /// readers need: what a flush writes. Unlike [`snapshot`](Self::snapshot) it stays small however the
    /// tombstones overlap. See [`FragmentedRangeTombstones::for_snapshots`].
    pub fn for_snapshots(&self, snapshots: &[SequenceNumber]) -> FragmentedRangeTombstones {
        fragment(self.spans(SequenceNumber::MAX), Keep::Snapshots(snapshots))
    }

    /// What a reader at `visible` sees: fragments of one sequence number each.
    pub fn visible_at(&self, visible: SequenceNumber) -> FragmentedRangeTombstones {
        fragment(self.spans(visible), Keep::Snapshots(&[]))
    }

    /// Bytes of memory held beside the set itself.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    fn spans(&self, visible: SequenceNumber) -> Vec<Span<'_>> {
        let count = self.published_count.load(Ordering::Acquire);
        let Some(store) = self.store.get() else {
            return Vec::new();
        };
        (0..count)
            .filter_map(|index| store.versions.get(index))
            .take_while(|version| version.sequence <= visible)
            .map(|version| Span {
                start: store.nodes.key(version.start_key),
                end: store.nodes.key(version.end_key),
                sequence: version.sequence,
            })
            .collect()
    }
}

impl fmt::Debug for RangeTombstoneSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.spans(SequenceNumber::MAX).iter().map(|span| {
                (span.start.escape_ascii().to_string(), span.end.escape_ascii().to_string(), span.sequence)
            }))
            .finish()
    }
}
