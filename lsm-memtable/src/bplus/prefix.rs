//! The common prefix of the keys in a node, the fence keys around it, and keys as a leaf sees them.

use std::cmp::Ordering;

use lsm_core::key::{common_prefix_bytes, head};

use crate::arena::{Arena, Record, Ref};

/// How far a prefix that was guessed from keys stays behind what these have in common, so that the next keys of
/// an ascending run match it too. Four of the eight bytes of a head are left to tell keys apart.
const GUESS_SLACK_BYTES: usize = 4;

/// What the keys of a node begin with, so that heads are taken after it.
#[derive(Clone, Copy)]
pub(super) struct Prefix {
    pub(super) bytes: u32,
    /// A record whose key begins with the prefix, or `None` if every key that is routed to the node does, because
    /// both ends of the node's range do.
    pub(super) guess: Option<Ref<Record>>,
}

/// The fence keys of a node (Graefe, 2004): the lower inclusive, the upper exclusive, `None` for no bound.
#[derive(Clone, Copy)]
pub(super) struct Fences {
    pub(super) low: Option<Ref<Record>>,
    pub(super) high: Option<Ref<Record>>,
}

impl Prefix {
    pub(super) const EMPTY: Self = Self { bytes: 0, guess: None };

    /// Whether `key` sorts before all keys with this prefix, is one of them, or sorts after them.
    #[inline]
    pub(super) fn position_of(self, arena: &Arena, key: &[u8]) -> Ordering {
        let Some(guess) = self.guess else { return Ordering::Equal };
        let bytes = self.bytes as usize;
        // A reader of a node that is being changed may see length and record of different prefixes.
        let prefix = arena.record(guess).key();
        let prefix = prefix.get(..bytes).unwrap_or(prefix);
        key.get(..bytes).unwrap_or(key).cmp(prefix)
    }

    /// A longer prefix for a node whose heads do not tell its keys apart.
    pub(super) fn longer(
        self,
        arena: &Arena,
        fences: Fences,
        first: Ref<Record>,
        last: Ref<Record>,
    ) -> Option<Self> {
        if let (Some(low), Some(high)) = (fences.low, fences.high) {
            let bytes = common_bytes(arena, low, high) as u32;
            if bytes > self.bytes {
                return Some(Self { bytes, guess: None });
            }
        }
        let guess = Self::guess(arena, first, last);
        (guess.bytes > self.bytes).then_some(guess)
    }

    /// A prefix of all keys between these two, and hopefully of the next ones.
    pub(super) fn guess(arena: &Arena, first: Ref<Record>, last: Ref<Record>) -> Self {
        let bytes = common_bytes(arena, first, last).saturating_sub(GUESS_SLACK_BYTES) as u32;
        Self { bytes, guess: Some(first).filter(|_| bytes > 0) }
    }

    /// What is left of a guess after a key that does not match it.
    pub(super) fn shortened(self, arena: &Arena, key: &[u8]) -> Self {
        let Some(guess) = self.guess else { return self };
        let common = common_prefix_bytes(arena.record(guess).key(), key);
        let bytes = common.saturating_sub(GUESS_SLACK_BYTES).min(self.bytes as usize) as u32;
        Self { bytes, guess: Some(guess).filter(|_| bytes > 0) }
    }
}

fn common_bytes(arena: &Arena, a: Ref<Record>, b: Ref<Record>) -> usize {
    common_prefix_bytes(arena.record(a).key(), arena.record(b).key())
}

/// What a key looks like from inside a leaf.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    /// The eight bytes after the prefix; orders like the keys do.
    pub(super) head: u64,
    /// Eight bits of a hash of head and tail (as in `FPTree`, Oukid et al., 2016): whether a slot is worth a look.
    pub(super) fingerprint: u8,
}

impl Probe {
    #[inline]
    pub(super) fn new(key: &[u8], prefix_bytes: u32) -> Self {
        let head = head(key, prefix_bytes as usize);
        // Keys with equal heads differ later, most often near the end.
        let tail = match key.last_chunk::<8>() {
            Some(tail) => u64::from_le_bytes(*tail),
            None => self::head(key, 0),
        };
        let mixed = head ^ tail.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { head, fingerprint: (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 56) as u8 }
    }
}

/// A slot of a leaf, copied out of it.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) head: u64,
    pub(super) record: Ref<Record>,
    pub(super) fingerprint: u8,
}

impl Row {
    pub(super) fn new(arena: &Arena, record: Ref<Record>, prefix_bytes: u32) -> Self {
        let Probe { head, fingerprint } = Probe::new(arena.record(record).key(), prefix_bytes);
        Self { head, record, fingerprint }
    }

    /// Brings rows with heads after the same prefix into the order of their keys.
    pub(super) fn sort(arena: &Arena, rows: &mut [Self]) {
        // Leaves that were filled in ascending order are common.
        if rows.is_sorted_by(|a, b| a.head < b.head) {
            return;
        }
        // Comparing integers alone is what sorts fast; ties are few.
        rows.sort_unstable_by_key(|row| row.head);
        for ties in rows.chunk_by_mut(|a, b| a.head == b.head) {
            if ties.len() > 1 {
                ties.sort_unstable_by(|a, b| arena.record(a.record).key().cmp(arena.record(b.record).key()));
            }
        }
    }
}
