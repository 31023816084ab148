//! A persistent (copy-on-write) search tree that maps each key to the newest range tombstone that covers it.
//!
//! Boundary keys in a height-balanced tree (AVL); the number of a boundary holds up to the next boundary. A new
//! tombstone is newer than all others, so its number is assigned to its whole range: the boundaries inside the range
//! go, its own two come. Nodes are never changed: an assignment copies the path from the root to both ends and leaves
//! the earlier trees intact, each the answer for readers that see no further. Nodes carry the heads of their keys, so
//! that a search seldom leaves the nodes. Split and join are those of Blelloch, Ferizovic and Sun, "Just Join for
//! Parallel Ordered Sets" (SPAA 2016).

use std::cmp::Ordering;

use super::append_vec::AppendVec;
use crate::key::{self, SequenceNumber};
use crate::slice::Slice;

/// Index of no node.
pub(super) const NONE: u32 = u32::MAX;

/// One boundary. Four-byte fields keep a stored node at 32 bytes.
#[derive(Clone, Copy)]
pub(super) struct Node {
    left: u32,
    right: u32,
    key: u32,
    head_high: u32,
    head_low: u32,
    sequence_low: u32,
    /// Height in the lowest eight bits, then the upper 24 bits of the sequence number.
    sequence_high_height: u32,
}

#[derive(Clone, Copy)]
struct Boundary {
    key: u32,
    /// See [`key::head`].
    head: u64,
    sequence: SequenceNumber,
}

impl Node {
    fn new(left: u32, boundary: Boundary, right: u32, height: u32) -> Self {
        Self {
            left,
            right,
            key: boundary.key,
            head_high: (boundary.head >> 32) as u32,
            head_low: boundary.head as u32,
            sequence_low: boundary.sequence as u32,
            sequence_high_height: ((boundary.sequence >> 32) as u32) << 8 | height,
        }
    }

    fn height(self) -> u32 {
        self.sequence_high_height & 0xff
    }

    fn sequence(self) -> SequenceNumber {
        u64::from(self.sequence_high_height >> 8) << 32 | u64::from(self.sequence_low)
    }

    fn head(self) -> u64 {
        u64::from(self.head_high) << 32 | u64::from(self.head_low)
    }

    fn boundary(self) -> Boundary {
        Boundary { key: self.key, head: self.head(), sequence: self.sequence() }
    }
}

/// The nodes of all trees, and their keys.
pub(super) struct Nodes {
    all: AppendVec<Node>,
    keys: AppendVec<Slice>,
}

/// What surrounds a key: the boundaries at or before it, and after it.
pub(super) struct Surroundings<'a> {
    pub(super) start: Option<&'a [u8]>,
    pub(super) end: Option<&'a [u8]>,
    pub(super) sequence: SequenceNumber,
}

impl Nodes {
    pub(super) fn new() -> Self {
        Self { all: AppendVec::new(), keys: AppendVec::new() }
    }

    pub(super) fn key(&self, key: u32) -> &[u8] {
        self.keys.get(key).map(|key| &**key).unwrap_or_default()
    }

    pub(super) fn surroundings(&self, root: u32, key: &[u8]) -> Surroundings<'_> {
        let (mut start, mut end) = (None, None);
        let key_head = key::head(key, 0);
        let mut next = root;
        while let Some(node) = self.all.get(next) {
            if self.compare(key, key_head, *node) == Ordering::Less {
                end = Some(node.key);
                next = node.left;
            } else {
                start = Some(node);
                next = node.right;
            }
        }
        Surroundings {
            start: start.map(|node| self.key(node.key)),
            end: end.map(|key| self.key(key)),
            sequence: start.map_or(0, |node| node.sequence()),
        }
    }

    /// Where `key` with head `key_head` stands relative to a node.
    #[inline]
    fn compare(&self, key: &[u8], key_head: u64, node: Node) -> Ordering {
        key_head.cmp(&node.head()).then_with(|| key.cmp(self.key(node.key)))
    }
}

/// Makes new trees, and knows how much of [`Nodes`] is in use.
#[derive(Default)]
pub(super) struct TreeWriter {
    node_count: u32,
    key_count: u32,
    /// Nodes of the assignment at hand. Most are superseded before it is done; only the others are stored.
    fresh: Vec<Node>,
    pub(super) allocated_bytes: usize,
}

/// The tree that an assignment made.
pub(super) struct Assigned {
    pub(super) root: u32,
    pub(super) start_key: u32,
    pub(super) end_key: u32,
}

impl TreeWriter {
    /// Assigns `sequence` to `[start, end)`, not empty, in the tree at `root`. `None` if there is no room for nodes.
    pub(super) fn assign(
        &mut self,
        nodes: &Nodes,
        root: u32,
        (start, end): (&[u8], &[u8]),
        sequence: SequenceNumber,
    ) -> Option<Assigned> {
        self.fresh.clear();
        let beyond = nodes.surroundings(root, end).sequence;
        let (left, at_start, rest) = self.split(nodes, root, start);
        let (_, at_end, right) = self.split(nodes, rest, end);
        let start_key = match at_start {
            Some(boundary) => boundary.key,
            None => self.store_key(nodes, start)?,
        };
        let end_key = match at_end {
            Some(boundary) => boundary.key,
            None => self.store_key(nodes, end)?,
        };
        let right = self.join(
            nodes,
            NONE,
            Boundary { key: end_key, head: key::head(end, 0), sequence: beyond },
            right,
        );
        let root =
            self.join(nodes, left, Boundary { key: start_key, head: key::head(start, 0), sequence }, right);
        let root = self.store(nodes, root)?;
        Some(Assigned { root, start_key, end_key })
    }

    fn store_key(&mut self, nodes: &Nodes, key: &[u8]) -> Option<u32> {
        let index = self.key_count;
        let key = Slice::copy_from(key);
        self.allocated_bytes += heap_bytes(&key);
        self.allocated_bytes += nodes.keys.push(index, key)?;
        self.key_count += 1;
        Some(index)
    }

    /// Stores the fresh nodes of the tree at `root`, returns its index for good.
    fn store(&mut self, nodes: &Nodes, root: u32) -> Option<u32> {
        let Some(fresh) = self.fresh_index(root) else {
            return Some(root);
        };
        let mut node = self.fresh[fresh];
        node.left = self.store(nodes, node.left)?;
        node.right = self.store(nodes, node.right)?;
        let index = self.node_count;
        self.allocated_bytes += nodes.all.push(index, node)?;
        self.node_count += 1;
        Some(index)
    }

    /// Fresh nodes are numbered downward from below [`NONE`], stored ones upward from 0 to 2^31 at most.
    fn fresh_index(&self, index: u32) -> Option<usize> {
        let fresh = (NONE - 1).checked_sub(index)? as usize;
        (fresh < self.fresh.len()).then_some(fresh)
    }

    fn node(&self, nodes: &Nodes, index: u32) -> Option<Node> {
        match self.fresh_index(index) {
            Some(fresh) => self.fresh.get(fresh).copied(),
            None => nodes.all.get(index).copied(),
        }
    }

    fn height(&self, nodes: &Nodes, index: u32) -> u32 {
        self.node(nodes, index).map_or(0, Node::height)
    }

    fn make(&mut self, nodes: &Nodes, left: u32, boundary: Boundary, right: u32) -> u32 {
        let height = 1 + self.height(nodes, left).max(self.height(nodes, right));
        self.fresh.push(Node::new(left, boundary, right, height));
        NONE - self.fresh.len() as u32
    }

    /// The boundaries below `key`, the one at it, those above.
    fn split(&mut self, nodes: &Nodes, root: u32, key: &[u8]) -> (u32, Option<Boundary>, u32) {
        let Some(node) = self.node(nodes, root) else {
            return (NONE, None, NONE);
        };
        match nodes.compare(key, key::head(key, 0), node) {
            Ordering::Less => {
                let (left, at, right) = self.split(nodes, node.left, key);
                (left, at, self.join(nodes, right, node.boundary(), node.right))
            }
            Ordering::Equal => (node.left, Some(node.boundary()), node.right),
            Ordering::Greater => {
                let (left, at, right) = self.split(nodes, node.right, key);
                (self.join(nodes, node.left, node.boundary(), left), at, right)
            }
        }
    }

    /// One tree of `left`, `middle` and `right`, which are in order.
    fn join(&mut self, nodes: &Nodes, left: u32, middle: Boundary, right: u32) -> u32 {
        let (left_height, right_height) = (self.height(nodes, left), self.height(nodes, right));
        if left_height > right_height + 1
            && let Some(node) = self.node(nodes, left)
        {
            let joined = self.join(nodes, node.right, middle, right);
            return self.balance(nodes, node.left, node.boundary(), joined);
        }
        if right_height > left_height + 1
            && let Some(node) = self.node(nodes, right)
        {
            let joined = self.join(nodes, left, middle, node.left);
            return self.balance(nodes, joined, node.boundary(), node.right);
        }
        self.make(nodes, left, middle, right)
    }

    /// A node of two trees whose heights differ by two at most, rotated where they do.
    fn balance(&mut self, nodes: &Nodes, left: u32, middle: Boundary, right: u32) -> u32 {
        let (left_height, right_height) = (self.height(nodes, left), self.height(nodes, right));
        if left_height > right_height + 1
            && let Some(node) = self.node(nodes, left)
        {
            if self.height(nodes, node.left) >= self.height(nodes, node.right) {
                let lower = self.make(nodes, node.right, middle, right);
                return self.make(nodes, node.left, node.boundary(), lower);
            }
            if let Some(inner) = self.node(nodes, node.right) {
                let lower_left = self.make(nodes, node.left, node.boundary(), inner.left);
                let lower_right = self.make(nodes, inner.right, middle, right);
                return self.make(nodes, lower_left, inner.boundary(), lower_right);
            }
        }
        if right_height > left_height + 1
            && let Some(node) = self.node(nodes, right)
        {
            if self.height(nodes, node.right) >= self.height(nodes, node.left) {
                let lower = self.make(nodes, left, middle, node.left);
                return self.make(nodes, lower, node.boundary(), node.right);
            }
            if let Some(inner) = self.node(nodes, node.left) {
                let lower_left = self.make(nodes, left, middle, inner.left);
                let lower_right = self.make(nodes, inner.right, node.boundary(), node.right);
                return self.make(nodes, lower_left, inner.boundary(), lower_right);
            }
        }
        self.make(nodes, left, middle, right)
    }
}

/// What a slice of its own allocates: two counters and the bytes, if they do not fit inside.
fn heap_bytes(key: &Slice) -> usize {
    let inside = key.as_ptr().addr().wrapping_sub(std::ptr::from_ref(key).addr()) < size_of::<Slice>();
    if inside { 0 } else { key.len() + 2 * size_of::<usize>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks order, balance and heights; returns the height.
    fn check(nodes: &Nodes, root: u32, lower: Option<&[u8]>, upper: Option<&[u8]>) -> u32 {
        let Some(node) = nodes.all.get(root) else {
            return 0;
        };
        let key = nodes.key(node.key);
        assert!(lower.is_none_or(|lower| lower < key) && upper.is_none_or(|upper| key < upper));
        let left = check(nodes, node.left, lower, Some(key));
        let right = check(nodes, node.right, Some(key), upper);
        assert!(left.abs_diff(right) <= 1, "heights {left} and {right}");
        assert_eq!(node.height(), 1 + left.max(right));
        node.height()
    }

    #[test]
    fn trees_stay_sorted_and_balanced_and_cheap() {
        let (nodes, mut writer) = (Nodes::new(), TreeWriter::default());
        let mut root = NONE;
        let mut state = 1_u64;
        for sequence in 1..5_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (state >> 40) as u32 % 1_000_000;
            // Now and then one that covers half of everything.
            let length = if sequence % 500 == 0 { 500_000 } else { 1 + (state >> 20) as u32 % 50 };
            let (start, end) = (start.to_be_bytes(), (start + length).to_be_bytes());
            root = writer.assign(&nodes, root, (&start, &end), sequence).expect("there is room").root;
            if sequence % 100 == 0 {
                check(&nodes, root, None, None);
            }
        }
        assert!(check(&nodes, root, None, None) < 20);
        assert!(writer.node_count < 5_000 * 30, "{} nodes", writer.node_count);
    }

    #[test]
    fn a_node_holds_a_sequence_number_of_56_bits() {
        let boundary = Boundary { key: 7, head: u64::MAX - 5, sequence: crate::SEQUENCE_MAX };
        let node = Node::new(1, boundary, 2, 40);
        assert_eq!((node.sequence(), node.height(), node.key), (crate::SEQUENCE_MAX, 40, 7));
        assert_eq!((node.head(), size_of::<std::sync::OnceLock<Node>>()), (u64::MAX - 5, 32));
    }
}
