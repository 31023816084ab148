//! Gathering the merge operands of a key, and keeping what they come to.

use lsm_core::{Cursor, Result, SequenceNumber, ValueKind, expiry};

use super::super::filtering::Filtered;
use super::super::merging::{Base, Folded};
use super::super::older::OlderVersions;
use super::{CompactionStream, entry_bytes};

impl<C: Cursor, O: OlderVersions> CompactionStream<C, O> {
    /// Folds the operand at the cursor, and those of its stripe below it. Then the cursor stands behind them. Returns
    /// whether there is something to return. The filter is asked about the value that they make.
    ///
    /// The result takes the place of the newest operand, whose sequence number it has, so it hides the rest of the
    /// stripe as a put would. If the operator refuses, nothing of the stripe is hidden.
    #[cold]
    pub(super) fn fold(&mut self, stripe: usize, asks_filter: bool) -> Result<bool> {
        let below = self.gather(stripe)?;
        let at_bottom = stripe == 0 && self.nothing_older();
        let is_missing = below == Below::Deleted || (below == Below::NextKey && self.nothing_older());
        let is_zeroed = at_bottom && self.rules.zero_sequences && self.nothing_covers();
        let Some(merging) = &mut self.merging else { return Ok(false) };
        let blob;
        let base = match self.cursor.entry() {
            Some(entry) if below == Below::Value && entry.kind == ValueKind::BlobPointer => {
                blob = self.blobs.as_ref().and_then(|blobs| blobs.read(entry.value));
                blob.as_ref().map_or(Base::Unknown, |value| Base::Value(value))
            }
            Some(entry) if below == Below::Value => Base::Value(entry.value),
            _ if is_missing => Base::Missing,
            _ => Base::Unknown,
        };
        let mut folded = merging.fold(&self.key, base);
        self.counts.operands_folded += merging.folded_count();
        let mut is_filtered = false;
        if let (true, Folded::Value, Some(filtering)) = (asks_filter, &folded, &mut self.filtering) {
            match merging.ready(&self.key).map(|entry| filtering.ask(entry, None)) {
                Some(Filtered::Deleted) => {
                    self.counts.filter_deleted += 1;
                    is_filtered = true;
                    merging.replace(ValueKind::Delete, b"");
                    folded = Folded::Absent;
                }
                Some(Filtered::Replaced) => {
                    self.counts.filter_replaced += 1;
                    merging.replace(ValueKind::Put, filtering.replacement().1);
                }
                Some(Filtered::Kept) | None => {}
            }
        }
        match folded {
            Folded::Operands => return Ok(true),
            Folded::Value if is_zeroed => {
                self.counts.sequences_zeroed += 1;
                merging.zero_sequence();
            }
            Folded::Absent if at_bottom => {
                self.counts.tombstones_dropped += u64::from(!is_filtered);
                merging.pass();
            }
            Folded::Value | Folded::Absent => {}
        }
        self.closed_stripe = stripe;
        Ok(merging.ready(&self.key).is_some())
    }

    /// Gathers the operand at the cursor and those of its stripe below it. Returns what stands below them.
    fn gather(&mut self, stripe: usize) -> Result<Below> {
        let stripe_end = self.rules.stripe_end(stripe).unwrap_or(SequenceNumber::MAX);
        let mut is_first = true;
        loop {
            let Some(entry) = self.cursor.entry() else {
                return self.end().map(|_| Below::NextKey);
            };
            if *entry.key != *self.key {
                return Ok(Below::NextKey);
            }
            let (sequence, kind) = (entry.sequence, entry.kind);
            if self.rules.stripe(sequence) != stripe {
                return Ok(Below::Other);
            }
            let expiry_micros = match kind {
                ValueKind::PutWithExpiry | ValueKind::BlobPointer => {
                    expiry::split(entry.value).map(|(micros, _)| micros)
                }
                _ => None,
            };
            if self.is_covered(sequence, stripe_end) {
                return Ok(Below::Deleted);
            }
            match kind {
                ValueKind::Merge => {}
                ValueKind::Delete | ValueKind::SingleDelete => return Ok(Below::Deleted),
                ValueKind::Put => return Ok(Below::Value),
                // Until it has expired, what the operands apply to depends on the time of the reader.
                ValueKind::PutWithExpiry | ValueKind::BlobPointer
                    if expiry_micros.is_some_and(|expiry| self.rules.is_expired(stripe, expiry)) =>
                {
                    return Ok(Below::Deleted);
                }
                ValueKind::BlobPointer if self.blobs.is_some() && expiry_micros == Some(expiry::NEVER) => {
                    return Ok(Below::Value);
                }
                _ => return Ok(Below::Other),
            }
            let (Some(merging), Some(entry)) = (&mut self.merging, self.cursor.entry()) else {
                return Ok(Below::Other);
            };
            if !std::mem::take(&mut is_first) {
                self.counts.entries_in += 1;
                self.counts.bytes_in += entry_bytes(entry);
            }
            let has_room = merging.push(&self.key, sequence, entry.value);
            self.cursor.next();
            if !has_room {
                return Ok(Below::Other);
            }
        }
    }
}

/// What stands below the operands of a stripe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    NextKey,
    /// A put, at the cursor.
    Value,
    /// A tombstone, or a put that has expired for all readers of the stripe.
    Deleted,
    /// An older stripe, or what this merge cannot fold.
    Other,
}
