//! The one that changes the list.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::key::{head, pack_trailer};
use lsm_core::{SequenceNumber, ValueKind};

use super::list::{LANES, List, Node, Place, Stop, Target};
use crate::arena::{Allocator, Arena, AtomicRef, Chain, Either, NewRecord, Record, Ref};
use crate::memtable::{assert_ascending, assert_insertable};
use crate::{Coming, Full, MemtableWriter};

pub(super) struct Writer {
    allocator: Allocator<List>,
    /// The end of each lane: where ascending keys go, without a search.
    end: Edge,
    largest: Option<Ref<Record>>,
    random: u64,
}

/// The nodes on all lanes after which a key belongs, `None` for the front.
#[derive(Clone, Copy)]
struct Edge {
    stops: [Option<Ref<Stop>>; LANES],
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
        let edge = if is_largest { self.end } else { self.search(key) };
        let mut record = NewRecord { key, trailer: pack_trailer(sequence, kind), value, chain: None };
        if let Some((node, newest)) = self.known(key, &edge, is_largest) {
            assert_ascending(self.arena().record(newest).sequence(), sequence);
            record.chain = Some(Chain::onto(self.arena(), newest));
            let record = self.allocator.record(&record);
            self.arena().node(node).newest.store(Some(record));
        } else {
            let record = self.allocator.record(&record);
            self.link(record, head(key, 0), &edge);
            if is_largest {
                self.largest = Some(record);
            }
        }
        let count = &self.list().entry_count;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }

    fn reserve(&mut self, coming: &Coming<'_>) -> Result<(), Full> {
        self.allocator.reserve_ahead(coming, Self::NODE_BYTES_MAX)
    }

    fn unused_bytes(&self) -> usize {
        self.allocator.unused_bytes()
    }
}

impl Writer {
    /// A node and a stop on every lane, each with what its alignment may skip.
    const NODE_BYTES_MAX: usize =
        size_of::<Node>() + align_of::<Node>() + LANES * (size_of::<Stop>() + align_of::<Stop>());

    pub(super) fn new(list: List) -> Self {
        Self {
            allocator: Allocator::new(list),
            end: Edge { stops: [None; LANES], node: None },
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

    fn search(&self, key: &[u8]) -> Edge {
        let mut edge = Edge { stops: [None; LANES], node: None };
        edge.node = self.list().search(Target::Before(key), |lane, stop| edge.stops[lane] = stop).before;
        edge
    }

    /// The node of `key`, if there is one, and its newest version.
    fn known(&self, key: &[u8], edge: &Edge, is_largest: bool) -> Option<(Ref<Node>, Ref<Record>)> {
        if is_largest {
            return None;
        }
        let node = self.list().after(edge.node)?;
        let newest = self.list().newest(node)?;
        (self.arena().record(newest).key() == key).then_some((node, newest))
    }

    /// Number of lanes of a new key: one in four goes up, of these one in four further up.
    ///
    /// The shape depends on the order of the inserts alone, the same in every run.
    fn lanes(&mut self) -> usize {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random.trailing_zeros() as usize / 2).min(LANES)
    }

    /// Links a new key after the edge, from the ground up, so that every lane leads down to what is there.
    fn link(&mut self, record: Ref<Record>, head: u64, edge: &Edge) {
        let after = self.list().after(edge.node);
        let node = Node { head, newest: AtomicRef::new(Some(record)), next: AtomicRef::new(after) };
        let node = self.allocator.node(node);
        let list = self.allocator.home();
        edge.node.map_or(&list.first, |before| &list.arena.node(before).next).store(Some(node));
        if edge.node == self.end.node {
            self.end.node = Some(node);
        }

        let mut below: Place = Either::B(node);
        for lane in 0..self.lanes() {
            let before = edge.stops[lane];
            let list = self.allocator.home();
            let after = before.map_or(&list.lanes[lane], |stop| &list.arena.node(stop).next).load();
            let stop = self.allocator.node(Stop { head, record, next: AtomicRef::new(after), below });
            let list = self.allocator.home();
            before.map_or(&list.lanes[lane], |stop| &list.arena.node(stop).next).store(Some(stop));
            if before == self.end.stops[lane] {
                self.end.stops[lane] = Some(stop);
            }
            below = Either::A(stop);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use lsm_core::SEQUENCE_MAX;

    use super::*;
    use crate::MemtableReader;
    use crate::arena::ChunkPool;

    #[test]
    fn a_full_table_refuses_and_stays_as_it_was() {
        let mut writer = Writer::new(List::new(std::sync::Arc::new(ChunkPool::new(0))));
        let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let mut insert =
            |number: u64| writer.insert(&key(number), number, ValueKind::Put, &number.to_le_bytes());
        for number in 1..1000 {
            insert(number).expect("there is room");
        }
        writer.allocator.skip_to_last_chunk();
        let mut insert =
            |number: u64| writer.insert(&key(number), number, ValueKind::Put, &number.to_le_bytes());
        let full = (1000..1_000_000).find(|&number| insert(number) == Err(Full)).expect("an end");
        assert!(full > 10_000);
        assert_eq!(insert(full), Err(Full));

        let table = writer.list();
        assert_eq!(table.entry_count() as u64, full - 1);
        for number in 1..full {
            let entry = table.get(&key(number), SEQUENCE_MAX).expect("inserted");
            assert_eq!(entry.value, number.to_le_bytes());
        }
        assert_eq!(table.get(&key(full), SEQUENCE_MAX), None);
    }
}
