//! The versions of one key, found from the newest: how a new one is linked, and how an old one is reached.

use lsm_core::SequenceNumber;

use super::memory::Arena;
use super::record::{BLOCK_VERSIONS, Chain, Record};
use super::reference::Ref;

impl Arena {
    /// The links of a version that follows `newest`.
    pub(crate) fn chain_onto(&self, newest: Ref<Record>) -> Chain {
        let depth = self.record(newest).depth() + 1;
        let block = self.record(newest).block(newest);
        let mut jump = block;
        if depth.is_multiple_of(BLOCK_VERSIONS) {
            let near = self.record(block).jump().unwrap_or(block);
            let far = self.record(near).jump().unwrap_or(near);
            let depth_of = |record| self.record(record).depth();
            if depth_of(block) - depth_of(near) == depth_of(near) - depth_of(far) {
                jump = far;
            }
        }
        Chain { previous: newest.offset(), jump: jump.offset(), depth }
    }

    /// The newest version with a sequence number of at most `sequence`.
    #[inline]
    pub(crate) fn version_at(&self, newest: Ref<Record>, sequence: SequenceNumber) -> Option<Ref<Record>> {
        if self.record(newest).sequence() <= sequence {
            return Some(newest);
        }
        self.record(self.version_above(newest, sequence)).previous()
    }

    /// The oldest version with a sequence number above `sequence`; `newest` must be such a one.
    pub(crate) fn version_above(&self, newest: Ref<Record>, sequence: SequenceNumber) -> Ref<Record> {
        let is_above = |&version: &Ref<Record>| self.record(version).sequence() > sequence;
        debug_assert!(is_above(&newest));
        let mut version = newest;
        loop {
            let record = self.record(version);
            let further = record.jump().filter(is_above).or_else(|| record.previous().filter(is_above));
            match further {
                Some(older) => version = older,
                None => return version,
            }
        }
    }

    /// The oldest version of all.
    pub(crate) fn version_oldest(&self, newest: Ref<Record>) -> Ref<Record> {
        let mut version = newest;
        while let Some(older) = self.record(version).jump() {
            version = older;
        }
        version
    }

    /// The oldest version with a sequence number of at least `sequence`; `newest` must be such a one.
    pub(crate) fn version_at_or_above(&self, newest: Ref<Record>, sequence: SequenceNumber) -> Ref<Record> {
        // Above `sequence - 1` is at or above `sequence`; all versions are at or above 0.
        match sequence.checked_sub(1) {
            Some(below) => self.version_above(newest, below),
            None => self.version_oldest(newest),
        }
    }
}
