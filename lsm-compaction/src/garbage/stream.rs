//! The stream of what a merge keeps.

mod folding;

use std::fmt;
use std::sync::Arc;

use lsm_core::merge_operator::MergeOperator;
use lsm_core::range_tombstone::{FragmentWalk, FragmentedRangeTombstones};
use lsm_core::{
    Block, BlockCursor, Cursor, Entry, Result, SEQUENCE_MAX, SequenceNumber, Slice, ValueKind, expiry,
};

use super::filtering::{Filtered, Filtering};
use super::merging::{MergeFailure, Merging};
use super::survivors::survivors;
use super::{GarbageRules, OlderVersions};
use crate::filter::{BlobSource, CompactionAt, CompactionFilter};

/// Stands for "no stripe of this key is closed yet".
const OPEN: usize = usize::MAX;

/// What is left of a sorted sequence of versions when the garbage is gone.
///
/// The input is a cursor over the versions of all inputs of the merge, and their range tombstones. Entries pass
/// through unchanged, except for sequence numbers that became 0 and puts that expired; they are borrowed from the
/// cursor, nothing is allocated for them. Only what a merge operator makes of operands is new.
///
/// ```
/// use lsm_compaction::{CompactionStream, GarbageRules};
/// # use lsm_core::{Cursor, Entry, Error, SequenceNumber, ValueKind};
/// # struct Rows(Vec<(&'static [u8], u64, ValueKind)>, usize);
/// # impl Cursor for Rows {
/// #     fn first(&mut self) { self.1 = 0; }
/// #     fn last(&mut self) {}
/// #     fn seek(&mut self, _: &[u8], _: SequenceNumber) {}
/// #     fn seek_for_prev(&mut self, _: &[u8], _: SequenceNumber) {}
/// #     fn next(&mut self) { self.1 += 1; }
/// #     fn prev(&mut self) {}
/// #     fn entry(&self) -> Option<Entry<'_>> {
/// #         self.0.get(self.1).map(|row| Entry { key: row.0, sequence: row.1, kind: row.2, value: b"" })
/// #     }
/// #     fn error(&self) -> Option<&Error> { None }
/// # }
/// use ValueKind::{Delete, Put};
/// let input = Rows(vec![(b"a", 9, Put), (b"a", 5, Put), (b"a", 3, Put), (b"b", 8, Delete), (b"b", 2, Put)], 0);
/// // A snapshot at 4 still needs the oldest version of each.
/// let rules = GarbageRules { snapshots: vec![4, 9], bottommost: true, ..GarbageRules::default() };
/// let mut stream = CompactionStream::new(input, Default::default(), rules);
/// let mut kept = Vec::new();
/// while let Some(entry) = stream.next()? {
///     kept.push((entry.key.to_vec(), entry.sequence));
/// }
/// assert_eq!(kept, [(b"a".to_vec(), 9), (b"a".to_vec(), 3), (b"b".to_vec(), 8), (b"b".to_vec(), 2)]);
/// assert_eq!(stream.counts().shadowed, 1);
/// # Ok::<(), lsm_core::Error>(())
/// ```
pub struct CompactionStream<C, O = ()> {
    cursor: C,
    tombstones: Arc<FragmentedRangeTombstones>,
    surviving: Arc<FragmentedRangeTombstones>,
    rules: GarbageRules,
    older: O,
    lower: Option<Slice>,
    upper: Option<Slice>,
    blob_sink: Option<BlobSink>,
    /// Reads the values that blob pointers point to, where they are needed.
    blobs: Option<Arc<dyn BlobSource>>,
    /// Without an operator, operands are kept as they are.
    merging: Option<Box<Merging>>,
    filtering: Option<Box<Filtering>>,
    counts: GarbageCounts,

    state: State,
    /// The key at hand.
    key: Vec<u8>,
    /// Older versions of the key in this stripe are hidden by one seen before.
    closed_stripe: usize,
    /// The sequence number of a single delete of the key that goes if no older version of the key follows in the input.
    single_delete: Option<SequenceNumber>,
    walk: FragmentWalk,
    survivors_walk: FragmentWalk,
}

type BlobSink = Box<dyn FnMut(Entry<'_>) + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// The cursor stands at an entry that was returned.
    Returned,
    /// The cursor stands at the first entry that was neither returned nor left out.
    Ahead,
    /// The same, but the result of a fold comes before it, and the first of that was returned.
    ReturnedFolded,
    /// The first of the result was not returned yet.
    AheadFolded,
    Done,
}

/// Where the next entry is that is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    AtCursor,
    /// Its sequence number goes.
    AtCursorZeroed,
    /// It has expired and becomes a tombstone.
    AtCursorExpired,
    Folded,
    /// A compaction filter has deleted it, and it becomes a tombstone.
    AtCursorDeleted,
    /// It gets the value that a compaction filter gave, and its sequence number goes if this is set.
    AtCursorReplaced(bool),
    /// A single delete of the key at hand, with its sequence number. The cursor stands at the entry behind.
    SingleDelete(SequenceNumber),
}

/// What went into a merge, what came out, and why the rest did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GarbageCounts {
    /// Entries read.
    pub entries_in: u64,
    /// Entries returned.
    pub entries_out: u64,
    /// Bytes of the keys and values read.
    pub bytes_in: u64,
    /// Bytes of the keys and values returned.
    pub bytes_out: u64,
    /// Entries left out because of a newer version of their key.
    pub shadowed: u64,
    /// Entries left out because of a range tombstone.
    pub range_deleted: u64,
    /// Point tombstones left out because there was nothing for them to hide.
    pub tombstones_dropped: u64,
    /// Puts left out because they have expired and there was nothing for them to hide.
    pub expired_dropped: u64,
    /// Puts that have expired, returned as tombstones.
    pub expired_to_tombstones: u64,
    /// Puts that a compaction filter deleted: left out, or returned as tombstones.
    pub filter_deleted: u64,
    /// Puts that a compaction filter gave another value.
    pub filter_replaced: u64,
    /// Entries returned with sequence number 0 instead of their own.
    pub sequences_zeroed: u64,
    /// Blob pointers among the entries left out.
    pub blob_pointers_dropped: u64,
    /// Merge operands that became part of a newer one.
    pub operands_folded: u64,
}

impl<C: Cursor> CompactionStream<C> {
    /// Merges all that `cursor` holds. Unless the rules say `bottommost`, older versions of every key may exist.
    pub fn new(cursor: C, tombstones: Arc<FragmentedRangeTombstones>, rules: GarbageRules) -> Self {
        Self::with_older(cursor, tombstones, rules, (), None, None)
    }
}

impl<C: Cursor, O: OlderVersions> CompactionStream<C, O> {
    /// Merges the part of `cursor` and `tombstones` in `[lower, upper)`; `None` means no bound. Where older
    /// versions may exist, `older` knows; it is not asked if the rules say `bottommost`.
    pub fn with_older(
        cursor: C,
        tombstones: Arc<FragmentedRangeTombstones>,
        rules: GarbageRules,
        mut older: O,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) -> Self {
        debug_assert!(rules.snapshots.is_sorted());
        let tombstones = if lower.is_some() || upper.is_some() {
            Arc::new(tombstones.truncated(lower, upper))
        } else {
            tombstones
        };
        let surviving = survivors(&tombstones, &rules, &mut older);
        Self {
            cursor,
            tombstones,
            surviving,
            rules,
            older,
            lower: lower.map(Slice::from),
            upper: upper.map(Slice::from),
            blob_sink: None,
            blobs: None,
            merging: None,
            filtering: None,
            counts: GarbageCounts::default(),
            state: State::Start,
            key: Vec::new(),
            closed_stripe: OPEN,
            single_delete: None,
            walk: FragmentWalk::default(),
            survivors_walk: FragmentWalk::default(),
        }
    }

    /// Calls `sink` with every blob pointer that is left out, once each: its blob became garbage.
    #[must_use]
    pub fn on_dropped_blob_pointer(mut self, sink: impl FnMut(Entry<'_>) + Send + 'static) -> Self {
        self.blob_sink = Some(Box::new(sink));
        self
    }

    /// Reads values in blob files here, for merge operators and filters. Without it, a merge operand on a blob pointer stays
    /// as it is, and a filter is not asked about one.
    #[must_use]
    pub fn with_blobs(mut self, blobs: Option<Arc<dyn BlobSource>>) -> Self {
        self.blobs = blobs;
        self
    }

    /// Folds merge operands with this operator, if there is one. It should not panic.
    #[must_use]
    pub fn with_merge_operator(mut self, operator: Option<Arc<dyn MergeOperator>>) -> Self {
        self.merging = operator.map(|operator| Box::new(Merging::new(operator)));
        self
    }

    /// Asks this compaction filter, if there is one. A panic of it unwinds through [`next`](Self::next).
    #[must_use]
    pub fn with_filter(mut self, filter: Option<Arc<dyn CompactionFilter>>, at: CompactionAt) -> Self {
        self.filtering = filter.map(|filter| Box::new(Filtering::new(filter, at)));
        self
    }

    /// Why operands stayed as they were, if the operator refused some so far.
    pub fn merge_failure(&self) -> Option<&MergeFailure> {
        self.merging.as_ref()?.failure()
    }

    /// Bytes of memory that gathered operands take. A few hundred kilobytes, unless the operator makes large
    /// values of them.
    pub fn memory_bytes(&self) -> usize {
        self.merging.as_ref().map_or(0, |merging| merging.memory_bytes())
    }

    /// The next entry that is kept, in the order of internal keys; `None` at the end. It is borrowed until the
    /// next call.
    ///
    /// # Errors
    /// The cursor's. The merge has failed then: every further call returns the error again.
    #[expect(clippy::should_implement_trait, reason = "it lends, and it may fail")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        let Some(place) = self.find()? else {
            return Ok(None);
        };
        let mut kept = match (place, &self.merging) {
            (Kept::Folded, Some(merging)) => merging.ready(&self.key),
            (Kept::SingleDelete(sequence), _) => Some(single_delete(&self.key, sequence)),
            _ => self.cursor.entry(),
        };
        if let Some(entry) = &mut kept {
            match place {
                Kept::AtCursorZeroed => {
                    self.counts.sequences_zeroed += 1;
                    entry.sequence = 0;
                }
                Kept::AtCursorExpired => {
                    self.counts.expired_to_tombstones += 1;
                    (entry.kind, entry.value) = (ValueKind::Delete, b"");
                }
                Kept::AtCursorDeleted => (entry.kind, entry.value) = (ValueKind::Delete, b""),
                Kept::AtCursorReplaced(is_zeroed) => {
                    if let Some(filtering) = &self.filtering {
                        (entry.kind, entry.value) = filtering.replacement();
                    }
                    if is_zeroed {
                        self.counts.sequences_zeroed += 1;
                        entry.sequence = 0;
                    }
                }
                Kept::AtCursor | Kept::Folded | Kept::SingleDelete(_) => {}
            }
            self.counts.entries_out += 1;
            self.counts.bytes_out += entry_bytes(*entry);
        }
        Ok(kept)
    }

    /// The range tombstones that the outputs must carry. Known from the start. Clip them to each output.
    pub fn surviving_range_tombstones(&self) -> Arc<FragmentedRangeTombstones> {
        Arc::clone(&self.surviving)
    }

    /// What happened so far.
    pub fn counts(&self) -> &GarbageCounts {
        &self.counts
    }

    /// The input, standing at the entry returned last.
    pub fn cursor(&self) -> &C {
        &self.cursor
    }

    /// Moves the cursor past what was returned.
    #[inline]
    fn advance(&mut self) {
        match self.state {
            State::Start => {
                match &self.lower {
                    Some(lower) => self.cursor.seek(lower, SEQUENCE_MAX),
                    None => self.cursor.first(),
                }
                // Any other key, so that the first entry is seen to begin one.
                if let Some(entry) = self.cursor.entry() {
                    self.key.extend_from_slice(entry.key);
                    self.key.push(0);
                }
            }
            State::Returned => self.cursor.next(),
            State::ReturnedFolded => {
                if self.merging.as_mut().is_some_and(|merging| merging.pass()) {
                    self.state = State::AheadFolded;
                    return;
                }
            }
            State::Ahead | State::AheadFolded | State::Done => return,
        }
        self.state = State::Ahead;
    }

    /// Moves to the next entry that is kept.
    #[inline]
    fn find(&mut self) -> Result<Option<Kept>> {
        if self.state == State::Done {
            return self.end();
        }
        self.advance();
        if self.state == State::AheadFolded {
            self.state = State::ReturnedFolded;
            return Ok(Some(Kept::Folded));
        }
        self.state = State::Returned;
        loop {
            let Some(entry) = self.cursor.entry() else {
                return self.end();
            };
            let is_new_key = *entry.key != *self.key;
            if self.single_delete.is_some() && !is_new_key && !self.is_shadowed(entry.sequence) {
                // It hides this older version.
                self.state = State::Ahead;
                return Ok(self.single_delete.take().map(Kept::SingleDelete));
            }
            if is_new_key {
                if self.single_delete.take().is_some() {
                    // Nothing older followed.
                    self.counts.tombstones_dropped += 1;
                }
                if self.upper.as_ref().is_some_and(|upper| *entry.key >= **upper) {
                    self.state = State::Done;
                    return Ok(None);
                }
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                self.closed_stripe = OPEN;
            }
            self.counts.entries_in += 1;
            self.counts.bytes_in += entry_bytes(entry);
            let (sequence, kind) = (entry.sequence, entry.kind);
            let expiry_micros = match kind {
                ValueKind::PutWithExpiry | ValueKind::BlobPointer => {
                    expiry::split(entry.value).map(|(micros, _)| micros)
                }
                _ => None,
            };
            let verdict = self.judge(sequence, kind, expiry_micros);
            if is_new_key
                && self.filtering.is_some()
                && matches!(verdict, Verdict::Keep | Verdict::KeepZeroed)
            {
                let is_zeroed = matches!(verdict, Verdict::KeepZeroed) && sequence != 0;
                match self.filter(sequence) {
                    Filtered::Kept => {}
                    Filtered::Replaced => return Ok(Some(Kept::AtCursorReplaced(is_zeroed))),
                    Filtered::Deleted if self.rules.stripe(sequence) == 0 && self.nothing_older() => {
                        self.cursor.next();
                        continue;
                    }
                    Filtered::Deleted => return Ok(Some(Kept::AtCursorDeleted)),
                }
            }
            match verdict {
                Verdict::Keep => return Ok(Some(Kept::AtCursor)),
                Verdict::KeepZeroed if sequence == 0 => return Ok(Some(Kept::AtCursor)),
                Verdict::KeepZeroed => return Ok(Some(Kept::AtCursorZeroed)),
                Verdict::KeepAsTombstone => return Ok(Some(Kept::AtCursorExpired)),
                Verdict::Fold(stripe) => {
                    let asks_filter = is_new_key && self.filtering.is_some() && self.may_filter(sequence);
                    if self.fold(stripe, asks_filter)? {
                        self.state = State::ReturnedFolded;
                        return Ok(Some(Kept::Folded));
                    }
                }
                Verdict::Look => self.cursor.next(),
                Verdict::Drop => {
                    if kind == ValueKind::BlobPointer {
                        self.drop_blob_pointer();
                    }
                    self.cursor.next();
                }
            }
        }
    }

    /// Whether no snapshot sees a version, now or later.
    fn may_filter(&self, sequence: SequenceNumber) -> bool {
        let has_snapshot = self.rules.newest_snapshot != 0 && sequence <= self.rules.newest_snapshot;
        !has_snapshot && self.rules.stripe_end(self.rules.stripe(sequence)).is_some()
    }

    /// Asks the filter about the newest version of the key at hand, which is kept and stands at the cursor.
    #[cold]
    fn filter(&mut self, sequence: SequenceNumber) -> Filtered {
        if !self.may_filter(sequence) {
            return Filtered::Kept;
        }
        let (Some(filtering), Some(entry)) = (&mut self.filtering, self.cursor.entry()) else {
            return Filtered::Kept;
        };
        let filtered = filtering.ask(entry, self.blobs.as_deref());
        match filtered {
            Filtered::Kept => {}
            Filtered::Deleted => self.counts.filter_deleted += 1,
            Filtered::Replaced => self.counts.filter_replaced += 1,
        }
        filtered
    }

    /// Applies the rules to a version of the key at hand.
    #[inline]
    fn judge(&mut self, sequence: SequenceNumber, kind: ValueKind, expiry_micros: Option<u64>) -> Verdict {
        let stripe = self.rules.stripe(sequence);
        let Some(stripe_end) = self.rules.stripe_end(stripe) else {
            return Verdict::Keep;
        };
        if stripe == self.closed_stripe {
            self.counts.shadowed += 1;
            return Verdict::Drop;
        }
        if self.is_covered(sequence, stripe_end) {
            self.counts.range_deleted += 1;
            return Verdict::Drop;
        }
        match kind {
            ValueKind::Put => {
                self.closed_stripe = stripe;
                if stripe == 0 && self.rules.zero_sequences && self.nothing_older() && self.nothing_covers() {
                    return Verdict::KeepZeroed;
                }
            }
            ValueKind::PutWithExpiry | ValueKind::BlobPointer => {
                self.closed_stripe = stripe;
                if expiry_micros.is_some_and(|expiry| self.rules.is_expired(stripe, expiry)) {
                    if stripe == 0 && self.nothing_older() {
                        self.counts.expired_dropped += 1;
                        return Verdict::Drop;
                    }
                    return Verdict::KeepAsTombstone;
                }
            }
            ValueKind::Delete => {
                self.closed_stripe = stripe;
                if stripe == 0 && self.nothing_older() {
                    self.counts.tombstones_dropped += 1;
                    return Verdict::Drop;
                }
            }
            ValueKind::Merge if self.merging.is_some() => return Verdict::Fold(stripe),
            ValueKind::SingleDelete => {
                self.closed_stripe = stripe;
                if self.rules.bottommost || !self.older.may_hold_precisely(&self.key) {
                    // Nothing older outside of the merge. In it there may be something for readers of older stripes.
                    self.single_delete = Some(sequence);
                    return Verdict::Look;
                }
            }
            // Operands hide nothing. Whatever else may come to stand in a table is not ours to judge.
            _ => {}
        }
        Verdict::Keep
    }

    /// Whether a range tombstone that readers of a stripe see covers a version of the key at hand.
    #[inline]
    fn is_covered(&mut self, sequence: SequenceNumber, stripe_end: SequenceNumber) -> bool {
        !self.tombstones.is_empty()
            && self
                .walk
                .advance(&self.tombstones, &self.key)
                .is_some_and(|fragment| fragment.covering_sequence(stripe_end) > sequence)
    }

    /// Whether a version of the key at hand is hidden by one seen before.
    #[cold]
    fn is_shadowed(&self, sequence: SequenceNumber) -> bool {
        self.rules.stripe(sequence) == self.closed_stripe
    }

    #[inline]
    fn nothing_older(&mut self) -> bool {
        self.rules.bottommost || !self.older.may_hold(&self.key)
    }

    /// Whether no surviving tombstone covers the key: a sequence number of 0 would put the version below it.
    #[inline]
    fn nothing_covers(&mut self) -> bool {
        self.surviving.is_empty() || self.survivors_walk.advance(&self.surviving, &self.key).is_none()
    }

    #[cold]
    fn drop_blob_pointer(&mut self) {
        self.counts.blob_pointers_dropped += 1;
        if let (Some(sink), Some(entry)) = (&mut self.blob_sink, self.cursor.entry()) {
            sink(entry);
        }
    }

    #[cold]
    fn end(&mut self) -> Result<Option<Kept>> {
        self.state = State::Done;
        self.counts.tombstones_dropped += u64::from(self.single_delete.take().is_some());
        self.cursor.error().map_or(Ok(None), |error| Err(error.clone()))
    }
}

impl<C: BlockCursor, O: OlderVersions> CompactionStream<C, O> {
    /// The block that comes next, if all of it is kept as it is. [`pass_block`](Self::pass_block) takes it; if that is not
    /// called, [`next`](Self::next) goes on with its first entry.
    ///
    /// Entries without a sequence number are older than everything: a newer version of a key, or a range tombstone,
    /// is all that could hide one. A merge with range tombstones or a compaction filter takes all blocks apart.
    #[inline]
    pub fn block(&mut self) -> Option<Block<'_>> {
        self.advance();
        let block = self.cursor.block().filter(|_| self.filtering.is_none())?;
        let is_kept = self.state == State::Ahead
            && self.tombstones.is_empty()
            && self.upper.as_ref().is_none_or(|upper| *block.last_key < **upper)
            && self.cursor.entry().is_some_and(|entry| *entry.key != *self.key);
        is_kept.then_some(block)
    }

    /// Takes the [`block`](Self::block) that comes next; without one, does nothing.
    pub fn pass_block(&mut self) {
        if self.block().is_none() {
            return;
        }
        let Some(Block { last_key, entries }) = self.cursor.block() else { return };
        self.key.clear();
        self.key.extend_from_slice(last_key);
        let bytes = self.cursor.skip_block();
        self.counts.entries_in += entries;
        self.counts.entries_out += entries;
        self.counts.bytes_in += bytes;
        self.counts.bytes_out += bytes;
    }
}

enum Verdict {
    Keep,
    KeepZeroed,
    KeepAsTombstone,
    /// A single delete: what follows decides.
    Look,
    Drop,
    /// An operand of this stripe.
    Fold(usize),
}

fn single_delete(key: &[u8], sequence: SequenceNumber) -> Entry<'_> {
    Entry { key, sequence, kind: ValueKind::SingleDelete, value: b"" }
}

fn entry_bytes(entry: Entry<'_>) -> u64 {
    (entry.key.len() + entry.value.len()) as u64
}

impl<C, O> fmt::Debug for CompactionStream<C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactionStream")
            .field("rules", &self.rules)
            .field("surviving", &self.surviving)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
