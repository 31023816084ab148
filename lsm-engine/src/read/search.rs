//! The search for the next live key: past versions that are shadowed or not visible, and past what is deleted.

use std::ops::Bound;

use lsm_core::{Cursor, SEQUENCE_MAX};

use crate::error::Result;
use crate::keyspaces::successor;
use crate::read::cursor::{DbCursor, Place};
use crate::read::merge_input::merged;
use crate::read::skip::{Dead, From, LOOK_COUNT};

/// After so many shadowed versions of a key a seek costs less than further steps.
const RESEEK_COUNT: u32 = 8;
impl DbCursor {
    /// Whether the merge stands on what the user sees after `self.key`: so it is for most keys.
    #[inline]
    pub(super) fn stands_on_the_next(&mut self) -> bool {
        self.merge.entry().is_some_and(|entry| {
            entry.key != self.key
                && entry.sequence <= self.sequence
                && !entry.kind.is_tombstone()
                && !self.bounds.above_upper(entry.key)
                && !self.tombstones.cover(entry, self.sequence)
        })
    }

    /// From an entry on, finds the first key that the user sees. With `skip`, versions of `self.key` are passed.
    pub(super) fn find_forward(&mut self, mut skip: bool, from: From<'_>) -> Result<()> {
        let mut passed_count = 0;
        let mut dead = Dead::new(from);
        self.place = Place::Nowhere;
        while let Some(entry) = self.merge.entry() {
            if skip && entry.key == self.key {
                passed_count += 1;
                // Past the oldest versions; one of sequence number 0 would be passed by steps.
                if passed_count == RESEEK_COUNT {
                    self.merge.seek(&self.key, 0);
                } else {
                    self.merge.next();
                }
                continue;
            }
            if self.bounds.above_upper(entry.key) {
                break;
            }
            if entry.sequence <= self.sequence {
                if !entry.kind.is_tombstone() && !self.tombstones.cover(entry, self.sequence) {
                    self.place = Place::Forward;
                    break;
                }
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                skip = true;
                passed_count = 0;
                if self.pass_forward(&mut dead) {
                    break;
                }
                continue;
            }
            // For whoever comes later, what is newer may be live.
            self.learn_forward(std::mem::replace(&mut dead, Dead::new(From::Here)));
            if entry.key == self.key {
                passed_count += 1;
                if passed_count == RESEEK_COUNT {
                    self.merge.seek(&self.key, self.sequence);
                    continue;
                }
            } else {
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                passed_count = 0;
                skip = false;
            }
            self.merge.next();
        }
        self.check()?;
        self.learn_forward(dead);
        Ok(())
    }

    /// Passes the dead entry here, whose key is `self.key`, and what is known to be dead behind it. `true` if that is all
    /// that there is.
    fn pass_forward(&mut self, dead: &mut Dead<'_>) -> bool {
        if !std::mem::replace(&mut dead.has_edge, true) {
            self.edge.clear();
            self.edge.extend_from_slice(match dead.from {
                From::Here => &self.key,
                From::Key(key) | From::Span(key) => key,
                From::End => b"",
            });
        }
        if self.begins_to_learn(dead, true) {
            self.merge.seek(&self.edge, SEQUENCE_MAX);
            return false;
        }
        let spans = &self.pinned.empty_spans;
        if dead.count % LOOK_COUNT == 1 && spans.any() {
            match spans.end_around(&self.key, self.spans_up_to) {
                None => {}
                Some(Bound::Unbounded) => return true,
                Some(Bound::Included(end) | Bound::Excluded(end)) => {
                    self.merge.seek(&end, SEQUENCE_MAX);
                    if dead.watch.is_none() {
                        // What follows will be joined to it.
                        dead.count = 0;
                        dead.lengthens = true;
                        self.edge.clear();
                        self.edge.extend_from_slice(&end);
                    }
                    return false;
                }
            }
        }
        let covered = self.merge.entry().is_some_and(|entry| self.tombstones.cover(entry, self.sequence));
        match self.tombstones.covered() {
            (_, Some(end), sequence) if covered => {
                self.merge.advance_with(|source| source.pass_up_to(end, sequence));
            }
            _ => self.merge.next(),
        }
        false
    }

    /// Counts a dead entry. After many it announces the walk, and says that it must begin anew at the edge: of what was
    /// passed nobody knows whether something newer was put there meanwhile.
    fn begins_to_learn(&mut self, dead: &mut Dead<'_>, forward: bool) -> bool {
        dead.count += 1;
        if !dead.are_worth_learning(self.learn_count) || dead.watch.is_some() {
            return false;
        }
        self.learn_count = self.learn_count.saturating_mul(2);
        if self.sequence < self.pinned.cleared {
            // It reads what was there before the keyspace was cleared: nothing newer is on its way.
            return false;
        }
        let (start, end) =
            if forward { (&*self.edge, None) } else { (&b""[..], (!dead.is_last).then_some(&*self.edge)) };
        dead.watch = self.pinned.empty_spans.watch(self.pinned.generation, start, end, forward);
        if dead.watch.is_none() {
            return false;
        }
        // Cursors of memtables need not find what was put after they were made.
        self.merge = merged(&self.pinned, &self.bounds, self.prefix.as_deref());
        true
    }

    /// Remembers what a search found empty, up to the entry here.
    #[inline]
    fn learn_forward(&self, dead: Dead<'_>) {
        if let Some(watch) = dead.watch {
            let here = self.merge.entry().map(|entry| entry.key);
            let end = here.into_iter().chain(self.bounds.end()).min();
            watch.found_empty(&self.edge, end, self.sequence);
        }
    }

    /// Remembers what a search found empty, down to `start`.
    fn learn_backward(&self, dead: Dead<'_>, start: &[u8]) {
        if let Some(watch) = dead.watch {
            watch.found_empty(start, (!dead.is_last).then_some(&*self.edge), self.sequence);
        }
    }

    /// From an entry backward, finds the last key that the user sees, and stops before its versions.
    pub(super) fn find_backward(&mut self, from: From<'_>) -> Result<()> {
        // Whether the newest visible version so far of `self.key`, which is being passed, has a value.
        let mut live = None;
        let mut passed_count = 0;
        let mut dead = Dead::new(from);
        self.place = Place::Nowhere;
        while let Some(entry) = self.merge.entry() {
            if live.is_some() {
                if entry.key != self.key {
                    if live == Some(true) {
                        break;
                    }
                    live = None;
                    passed_count = 0;
                } else if passed_count == RESEEK_COUNT {
                    // What is newer is passed unseen.
                    dead = Dead::new(From::Here);
                    live = self.seek_newest_version();
                    passed_count = 0;
                    continue;
                } else {
                    passed_count += 1;
                }
            }
            if self.bounds.below_lower(entry.key) {
                break;
            }
            if entry.sequence <= self.sequence {
                let value = !entry.kind.is_tombstone() && !self.tombstones.cover(entry, self.sequence);
                if live.is_none() {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                }
                live = Some(value);
                if value {
                    self.value.clear();
                    self.value.extend_from_slice(entry.value);
                } else {
                    if self.pass_backward(&mut dead) {
                        live = None;
                        passed_count = 0;
                    }
                    continue;
                }
            } else {
                // For whoever comes later, what is newer may be live.
                let passed = std::mem::replace(&mut dead, Dead::new(From::Here));
                if passed.watch.is_some() {
                    self.learn_backward(passed, &successor(entry.key));
                }
                if live.is_none() && entry.key == self.key {
                    passed_count += 1;
                    // The versions of a key come oldest first: the reader sees none of these.
                    if passed_count == RESEEK_COUNT {
                        self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
                        passed_count = 0;
                        continue;
                    }
                } else if live.is_none() {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                    passed_count = 0;
                }
            }
            self.merge.prev();
        }
        self.check()?;
        if dead.watch.is_some() {
            let start = if live == Some(true) { successor(&self.key) } else { self.bounds.start() };
            self.learn_backward(dead, &start);
        }
        if live == Some(true) {
            self.place = Place::Backward;
        }
        Ok(())
    }

    /// Passes the dead entry here, whose key is `self.key`, and what is known to be dead before it. `true` if the versions
    /// of the key that follow count for nothing.
    fn pass_backward(&mut self, dead: &mut Dead<'_>) -> bool {
        if !std::mem::replace(&mut dead.has_edge, true) {
            self.edge.clear();
            match dead.from {
                From::Here => self.edge.extend_from_slice(&successor(&self.key)),
                From::Key(key) | From::Span(key) => self.edge.extend_from_slice(key),
                From::End => dead.is_last = true,
            }
        }
        if self.begins_to_learn(dead, false) {
            if dead.is_last {
                self.merge.last();
            } else {
                self.merge.seek_for_prev(&self.edge, SEQUENCE_MAX);
            }
            return true;
        }
        let spans = &self.pinned.empty_spans;
        if dead.count % LOOK_COUNT == 1
            && spans.any()
            && let Some(start) = spans.start_around(&self.key, self.spans_up_to)
        {
            self.merge.seek_for_prev(&start, SEQUENCE_MAX);
            if dead.watch.is_none() {
                // What comes before will be joined to it.
                dead.count = 0;
                dead.lengthens = true;
                dead.is_last = false;
                self.edge.clear();
                self.edge.extend_from_slice(&start);
            }
            return true;
        }
        let covered = self.merge.entry().is_some_and(|entry| self.tombstones.cover(entry, self.sequence));
        match self.tombstones.covered() {
            (start, _, sequence) if covered => {
                self.merge.advance_with(|source| source.pass_down_to(start, sequence));
            }
            _ => self.merge.prev(),
        }
        false
    }

    /// Copies the newest visible version of `self.key` and stops before all versions of it. Says whether it has a
    /// value; a failed seek leaves the merge without an entry.
    fn seek_newest_version(&mut self) -> Option<bool> {
        self.merge.seek(&self.key, self.sequence);
        let entry = self.merge.entry()?;
        let value = !entry.kind.is_tombstone() && !self.tombstones.cover(entry, self.sequence);
        if value {
            self.value.clear();
            self.value.extend_from_slice(entry.value);
        }
        self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
        Some(value)
    }
}
