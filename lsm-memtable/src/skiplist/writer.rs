//! The writing half: inserts into the list.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::key::{head, pack_trailer};
use lsm_core::{SequenceNumber, ValueKind};

use super::list::{INDEX_LEVELS, IndexNode, List, Node, Place, Target};
use crate::arena::{Allocator, Arena, AtomicRef, Either, NewRecord, Record, Ref};
use crate::memtable::{Full, MemtableWriter, Reservation, assert_ascending, assert_insertable};

pub(super) struct Writer {
    allocator: Allocator<List>,
    /// The last node of each level: ascending keys go there without a search.
    end: Splice,
    largest: Option<Ref<Record>>,
    random: u64,
}

/// The last node before a key on each level, `None` for the front. A new key is linked there.
#[derive(Clone, Copy)]
struct Splice {
    upper: [Option<Ref<IndexNode>>; INDEX_LEVELS],
    node: Option<Ref<Node>>,
}

impl MemtableWriter for Writer {
    fn insert(
        &mut self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<(), Full> {
        assert_insertable(key, sequence, value);
        self.allocator.reserve(key, value, Self::NODE_BYTES_MAX)?;
        let is_largest = self.largest.is_none_or(|largest| key > self.arena().record(largest).key());
        let splice = if is_largest { self.end } else { self.search(key) };
        let mut record = NewRecord { key, trailer: pack_trailer(sequence, kind), value, chain: None };
        if let Some((node, newest)) = self.known(key, &splice, is_largest) {
            assert_ascending(self.arena().record(newest).sequence(), sequence);
            record.chain = Some(self.arena().chain_onto(newest));
            let record = self.allocator.record(&record);
            self.arena().node(node).newest.store(Some(record));
        } else {
            let record = self.allocator.record(&record);
            self.link(record, head(key, 0), &splice);
            if is_largest {
                self.largest = Some(record);
            }
        }
        let count = &self.list().entry_count;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }

    fn reserve(&mut self, reservation: &Reservation<'_>) -> Result<usize, Full> {
        self.allocator.reserve_ahead(reservation, Self::NODE_BYTES_MAX)
    }

    fn unused_bytes(&self) -> usize {
        self.allocator.unused_bytes()
    }
}

impl Writer {
    /// A node on the ground and on every index level, each with what its alignment may skip.
    const NODE_BYTES_MAX: usize = size_of::<Node>()
        + align_of::<Node>()
        + INDEX_LEVELS * (size_of::<IndexNode>() + align_of::<IndexNode>());

    pub(super) fn new(list: List) -> Self {
        Self {
            allocator: Allocator::new(list),
            end: Splice { upper: [None; INDEX_LEVELS], node: None },
            largest: None,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(super) fn list(&self) -> &Arc<List> {
        self.allocator.home()
    }

    fn arena(&self) -> &Arena {
        self.allocator.arena()
    }

    fn search(&self, key: &[u8]) -> Splice {
        let mut splice = Splice { upper: [None; INDEX_LEVELS], node: None };
        splice.node =
            self.list().search(Target::Before(key), |level, upper| splice.upper[level] = upper).before;
        splice
    }

    /// The node of `key`, if there is one, and its newest version.
    fn known(&self, key: &[u8], splice: &Splice, is_largest: bool) -> Option<(Ref<Node>, Ref<Record>)> {
        if is_largest {
            return None;
        }
        let node = self.list().after(splice.node)?;
        let newest = self.list().newest(node)?;
        (self.arena().record(newest).key() == key).then_some((node, newest))
    }

    /// Number of index levels of a new key: one in four keys goes up, of these one in four goes up again.
    ///
    /// The shape depends on the order of the inserts alone, the same in every run.
    fn levels(&mut self) -> usize {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random.trailing_zeros() as usize / 2).min(INDEX_LEVELS)
    }

    /// Links a new key at the splice, from the ground up, so that every level leads down to a node that is there.
    fn link(&mut self, record: Ref<Record>, head: u64, splice: &Splice) {
        let after = self.list().after(splice.node);
        let node = Node { head, newest: AtomicRef::new(Some(record)), next: AtomicRef::new(after) };
        let node = self.allocator.node(node);
        let list = self.allocator.home();
        splice.node.map_or(&list.first, |before| &list.arena.node(before).next).store(Some(node));
        if splice.node == self.end.node {
            self.end.node = Some(node);
        }

        let mut below: Place = Either::B(node);
        for level in 0..self.levels() {
            let before = splice.upper[level];
            let list = self.allocator.home();
            let after = before.map_or(&list.levels[level], |upper| &list.arena.node(upper).next).load();
            let upper = self.allocator.node(IndexNode { head, record, next: AtomicRef::new(after), below });
            let list = self.allocator.home();
            before.map_or(&list.levels[level], |upper| &list.arena.node(upper).next).store(Some(upper));
            if before == self.end.upper[level] {
                self.end.upper[level] = Some(upper);
            }
            below = Either::A(upper);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::arena::ChunkPool;
    use crate::writer_checks;

    #[test]
    fn a_full_table_refuses_and_stays_as_it_was() {
        let writer = Writer::new(List::new(Arc::new(ChunkPool::new(0))));
        let table = Arc::clone(writer.list());
        let skip = |writer: &mut Writer| writer.allocator.skip_to_last_chunk();
        writer_checks::a_full_table_refuses_and_stays_as_it_was(writer, &*table, skip);
    }
}
