//! The search for the next live key. It skips versions that are shadowed, invisible or deleted.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use lsm_core::{Cursor, SEQUENCE_MAX};

use crate::error::Result;
use crate::keyspaces::{Fold, Meaning, successor};
use crate::read::cursor::{DbCursor, Place};
use crate::read::merge_input::merged;
use crate::read::skip::{Dead, From, LOOK_COUNT};

/// After this many shadowed versions of a key, a seek costs less than further steps.
const RESEEK_COUNT: u32 = 8;

impl DbCursor {
    /// Fast path: whether the current entry of the merge is already the next live key after `self.key`.
    #[inline]
    pub(super) fn stands_on_the_next(&mut self) -> bool {
        self.merge.entry().is_some_and(|entry| {
            entry.key != self.key
                && entry.sequence <= self.point.sequence
                && matches!(self.point.meaning(entry.kind, entry.value), Meaning::Value(_))
                && !self.bounds.above_upper(entry.key)
                && !self.tombstones.cover(entry, self.point.sequence)
        })
    }

    /// Finds the first live key at or after the current entry. With `skip`, it skips versions of `self.key`.
    pub(super) fn find_forward(&mut self, mut skip: bool, from: From<'_>) -> Result<()> {
        let mut passed_count = 0;
        let mut dead = Dead::new(from);
        let mut is_blob = false;
        self.place = Place::Nowhere;
        self.blob = None;
        while let Some(entry) = self.merge.entry() {
            if skip && entry.key == self.key {
                passed_count += 1;
                // Seek past the older versions. A version with sequence number 0 remains and is passed by a step.
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
            if entry.sequence <= self.point.sequence {
                let meaning = self.point.meaning(entry.kind, entry.value);
                if meaning != Meaning::Absent && !self.tombstones.cover(entry, self.point.sequence) {
                    match meaning {
                        Meaning::Malformed => return Err(self.pinned.malformed(entry.key)),
                        Meaning::Operand(_) => {
                            // The span ends here. The fold moves beyond this key.
                            self.learn_forward(std::mem::replace(&mut dead, Dead::new(From::Here)));
                            if self.fold()? {
                                self.place = Place::Merged;
                                return Ok(());
                            }
                            skip = true;
                            passed_count = 0;
                            continue;
                        }
                        Meaning::Blob(_) => is_blob = true,
                        _ => {}
                    }
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
            // This entry is newer than the reader and may be live for later readers, so the empty span ends here.
            self.learn_forward(std::mem::replace(&mut dead, Dead::new(From::Here)));
            if entry.key == self.key {
                passed_count += 1;
                if passed_count == RESEEK_COUNT {
                    self.merge.seek(&self.key, self.point.sequence);
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
        if is_blob { self.arrive_at_blob() } else { Ok(()) }
    }

    /// Skips the current dead entry, whose key is `self.key`, and the entries after it that are known to be dead. Returns
    /// `true` if no live entry follows.
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
            match spans.end_around(&self.key, &self.spans_for) {
                None => {}
                Some(Bound::Unbounded) => return true,
                Some(Bound::Included(end) | Bound::Excluded(end)) => {
                    self.merge.seek(&end, SEQUENCE_MAX);
                    if dead.watch.is_none() {
                        // A new span that starts at the end of the known one is joined with it.
                        dead.count = 0;
                        dead.lengthens = true;
                        self.edge.clear();
                        self.edge.extend_from_slice(&end);
                    }
                    return false;
                }
            }
        }
        let covered =
            self.merge.entry().is_some_and(|entry| self.tombstones.cover(entry, self.point.sequence));
        match self.tombstones.covered() {
            (_, Some(end), sequence) if covered => {
                self.merge.advance_with(|source| source.pass_up_to(end, sequence));
            }
            _ => self.merge.next(),
        }
        false
    }

    /// Counts a dead entry. After `learn_count` of them it registers a watch and returns `true`: then the search must
    /// start again at the edge, because a writer may have put keys there before the watch was registered.
    fn begins_to_learn(&mut self, dead: &mut Dead<'_>, forward: bool) -> bool {
        dead.count += 1;
        if !dead.are_worth_learning(self.learn_count) || dead.watch.is_some() {
            return false;
        }
        self.learn_count = self.learn_count.saturating_mul(2);
        if self.point.sequence < self.pinned.cleared {
            // This reader sees the state before a clear, which says nothing about the present keys.
            return false;
        }
        let (start, end) =
            if forward { (&*self.edge, None) } else { (&b""[..], (!dead.is_last).then_some(&*self.edge)) };
        dead.watch = self.pinned.empty_spans.watch(self.pinned.generation, start, end, forward);
        if dead.watch.is_none() {
            return false;
        }
        // A cursor over a memtable need not see keys put after it was made, so make new ones.
        self.merge = merged(&self.pinned, &self.bounds, self.prefix.as_deref());
        true
    }

    /// Notes the empty span from the edge up to the current entry.
    #[inline]
    fn learn_forward(&self, dead: Dead<'_>) {
        if let Some(watch) = dead.watch {
            let here = self.merge.entry().map(|entry| entry.key);
            let end = here.into_iter().chain(self.bounds.end()).min();
            watch.found_empty(&self.edge, end, &self.point);
        }
    }

    /// Notes the empty span from `start` up to the edge.
    fn learn_backward(&self, dead: Dead<'_>, start: &[u8]) {
        if let Some(watch) = dead.watch {
            watch.found_empty(start, (!dead.is_last).then_some(&*self.edge), &self.point);
        }
    }

    /// Folds the operand at the current entry and the older versions of its key. Copies key and value, and leaves the
    /// merge after the versions that it took. Returns whether the key has a value, or a refusal that is kept.
    #[cold]
    fn fold(&mut self) -> Result<bool> {
        let folded = self.fold_versions();
        folded.or_else(|error| self.keep_refusal(error).map(|()| true))
    }

    fn fold_versions(&mut self) -> Result<bool> {
        let state = Arc::clone(&self.pinned);
        // Without an entry, the seek to it has failed. The next seek would forget that.
        let Some(first) = self.merge.entry() else { return self.check().map(|()| false) };
        self.key.clear();
        self.key.extend_from_slice(first.key);
        let mut fold = Fold::default();
        let value = loop {
            match self.merge.entry() {
                Some(entry) if entry.key == self.key => {
                    let is_covered = self.tombstones.cover(entry, self.point.sequence);
                    if let ControlFlow::Break(value) = fold.take(&state, &self.point, entry, is_covered)? {
                        break value;
                    }
                }
                _ => {
                    self.check()?;
                    break fold.end(&state, &self.key)?;
                }
            }
            self.merge.next();
        };
        let is_live = value.is_some();
        self.value = value.unwrap_or_default();
        Ok(is_live)
    }

    /// Finds the last live key at or before the current entry. The merge then stands before all versions of that key.
    pub(super) fn find_backward(&mut self, mut from: From<'_>) -> Result<()> {
        self.blob = None;
        while self.search_backward(from)? {
            // The newest version of the key is an operand, and the others are needed newest first.
            self.place = Place::Nowhere;
            self.merge.seek(&self.key, self.point.sequence);
            let is_live = self.fold()?;
            self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
            self.check()?;
            if is_live {
                self.place = Place::Backward;
                break;
            }
            from = From::Here;
        }
        if self.place == Place::BackwardBlob { self.arrive_at_blob() } else { Ok(()) }
    }

    /// Finds the last key at or before the current entry that is live, or whose newest version is an operand. Returns
    /// whether it is that; otherwise the value is copied.
    fn search_backward(&mut self, from: From<'_>) -> Result<bool> {
        // What the newest visible version of `self.key` seen so far is. `None`: no visible version yet.
        let mut newest = None;
        let mut passed_count = 0;
        let mut dead = Dead::new(from);
        self.place = Place::Nowhere;
        while let Some(entry) = self.merge.entry() {
            if newest.is_some() {
                if entry.key != self.key {
                    if newest != Some(Newest::Absent) {
                        break;
                    }
                    newest = None;
                    passed_count = 0;
                } else if passed_count == RESEEK_COUNT {
                    // The seek skips newer versions unseen, and they may be live for later readers.
                    dead = Dead::new(From::Here);
                    newest = self.seek_newest_version()?;
                    passed_count = 0;
                    continue;
                } else {
                    passed_count += 1;
                }
            }
            if self.bounds.below_lower(entry.key) {
                break;
            }
            if entry.sequence <= self.point.sequence {
                let meaning = self.point.meaning(entry.kind, entry.value);
                let covered = self.tombstones.cover(entry, self.point.sequence);
                if newest.is_none() {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                }
                match meaning {
                    Meaning::Value(value) if !covered => {
                        self.value.clear();
                        self.value.extend_from_slice(value);
                        newest = Some(Newest::Value);
                    }
                    Meaning::Blob(pointer) if !covered => {
                        self.value.clear();
                        self.value.extend_from_slice(pointer);
                        newest = Some(Newest::Blob);
                    }
                    Meaning::Operand(_) if !covered => newest = Some(Newest::Operand),
                    Meaning::Malformed if !covered => return Err(self.pinned.malformed(entry.key)),
                    _ => {
                        newest = Some(Newest::Absent);
                        if self.pass_backward(&mut dead) {
                            newest = None;
                            passed_count = 0;
                        }
                        continue;
                    }
                }
            } else {
                // This entry is newer than the reader and may be live for later readers, so the empty span ends here.
                let passed = std::mem::replace(&mut dead, Dead::new(From::Here));
                if passed.watch.is_some() {
                    self.learn_backward(passed, &successor(entry.key));
                }
                if newest.is_none() && entry.key == self.key {
                    passed_count += 1;
                    // Backward, the versions of a key come oldest first, so the newer ones are invisible too.
                    if passed_count == RESEEK_COUNT {
                        self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
                        passed_count = 0;
                        continue;
                    }
                } else if newest.is_none() {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                    passed_count = 0;
                }
            }
            self.merge.prev();
        }
        self.check()?;
        if dead.watch.is_some() {
            let start = match newest {
                Some(Newest::Value | Newest::Blob | Newest::Operand) => successor(&self.key),
                Some(Newest::Absent) | None => self.bounds.start(),
            };
            self.learn_backward(dead, &start);
        }
        match newest {
            Some(Newest::Value) => self.place = Place::Backward,
            Some(Newest::Blob) => self.place = Place::BackwardBlob,
            _ => {}
        }
        Ok(newest == Some(Newest::Operand))
    }

    /// Skips the current dead entry, whose key is `self.key`, and the entries before it that are known to be dead. Returns
    /// `true` if the merge left the versions of this key.
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
            && let Some(start) = spans.start_around(&self.key, &self.spans_for)
        {
            self.merge.seek_for_prev(&start, SEQUENCE_MAX);
            if dead.watch.is_none() {
                // A new span that ends at the start of the known one is joined with it.
                dead.count = 0;
                dead.lengthens = true;
                dead.is_last = false;
                self.edge.clear();
                self.edge.extend_from_slice(&start);
            }
            return true;
        }
        let covered =
            self.merge.entry().is_some_and(|entry| self.tombstones.cover(entry, self.point.sequence));
        match self.tombstones.covered() {
            (start, _, sequence) if covered => {
                self.merge.advance_with(|source| source.pass_down_to(start, sequence));
            }
            _ => self.merge.prev(),
        }
        false
    }

    /// Copies the newest visible version of `self.key`, if it has a value, and moves before all its versions. Returns what
    /// it is. After a failed seek the merge has no entry.
    fn seek_newest_version(&mut self) -> Result<Option<Newest>> {
        self.merge.seek(&self.key, self.point.sequence);
        let Some(entry) = self.merge.entry() else { return Ok(None) };
        let covered = self.tombstones.cover(entry, self.point.sequence);
        let newest = match self.point.meaning(entry.kind, entry.value) {
            Meaning::Value(value) if !covered => {
                self.value.clear();
                self.value.extend_from_slice(value);
                Newest::Value
            }
            Meaning::Blob(pointer) if !covered => {
                self.value.clear();
                self.value.extend_from_slice(pointer);
                Newest::Blob
            }
            Meaning::Operand(_) if !covered => Newest::Operand,
            Meaning::Malformed if !covered => return Err(self.pinned.malformed(entry.key)),
            _ => Newest::Absent,
        };
        self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
        Ok(Some(newest))
    }
}

/// What the newest visible version of a key is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Newest {
    Absent,
    /// It has a value, which was copied.
    Value,
    /// It has a value in a blob file. The pointer was copied.
    Blob,
    Operand,
}
