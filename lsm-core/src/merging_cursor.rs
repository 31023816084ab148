//! Many sorted cursors, the sources of a merge, read as one: a merging iterator.
//!
//! A loser tree over *ranks*: the head of a source's current key ([`key::head`]) after a fixed prefix, turned
//! around when the merge runs backward, so that one comparison of integers settles almost every match. Equal
//! ranks are settled by internal key, then by the position of the source. While the winner stays below the best
//! of those it beat (the *limit*), it goes on without any match at all: the long runs that the bottom level of
//! a tree contributes cost little more than reading that level alone.

use std::cmp::Ordering;
use std::hint::select_unpredictable;

use crate::block_cursor::{Block, BlockCursor};
use crate::cursor::Cursor;
use crate::error::Error;
use crate::key::{self, Entry, SequenceNumber};

/// Stands for "no source is here".
const NOWHERE: usize = usize::MAX;

/// The rank of a source that has no entry left. Keys may have it too, so that a tie asks the source.
const RANK_END: u64 = u64::MAX;

/// Up to here a mispredicted branch, half of which guess right, costs less than the chain of conditional moves.
const BRANCHY_SOURCE_COUNT_MAX: usize = 3;

/// One cursor over the entries of many, in the order of internal keys.
///
/// Sources are in order of age, newest first: should two of them hold the same internal key, the entry of the
/// earlier source comes first. All of [`Cursor`]'s contract holds, in any mixture of calls, in both directions.
/// A step costs one `next` (or `prev`) and one `entry` of one source; turning around costs a step of each.
///
/// A failure of any source is a failure of the merge: [`entry`](Cursor::entry) is `None` and
/// [`error`](Cursor::error) says why until the next positioning call. Nothing of a failing source is skipped.
///
/// ```
/// # use lsm_core::{Cursor, Entry, Error, MergingCursor, SequenceNumber, ValueKind};
/// # struct Keys(&'static [&'static [u8]], usize);
/// # impl Cursor for Keys {
/// #     fn first(&mut self) { self.0.first(); self.1 = 0; }
/// #     fn last(&mut self) { unimplemented!() }
/// #     fn seek(&mut self, _: &[u8], _: SequenceNumber) { unimplemented!() }
/// #     fn seek_for_prev(&mut self, _: &[u8], _: SequenceNumber) { unimplemented!() }
/// #     fn next(&mut self) { self.1 += 1; }
/// #     fn prev(&mut self) { unimplemented!() }
/// #     fn entry(&self) -> Option<Entry<'_>> {
/// #         let key = self.0.get(self.1)?;
/// #         Some(Entry { key, sequence: 1, kind: ValueKind::Put, value: b"" })
/// #     }
/// #     fn error(&self) -> Option<&Error> { None }
/// # }
/// let mut merged = MergingCursor::new(vec![Keys(&[b"a", b"d"], 9), Keys(&[b"b", b"c"], 9)]);
/// let mut keys = Vec::new();
/// merged.first();
/// while let Some(entry) = merged.entry() {
///     keys.push(entry.key.to_vec());
///     merged.next();
/// }
/// assert!(merged.error().is_none());
/// assert_eq!(keys, [b"a", b"b", b"c", b"d"]);
/// ```
pub struct MergingCursor<C> {
    sources: Vec<C>,
    /// Ranks are taken after these bytes; keys without them have the lowest or the highest rank.
    prefix: Box<[u8]>,
    /// Node `i` holds the loser of its match; its parent is `i / 2`, and source `s` enters at node
    /// `(sources.len() + s) / 2`. Node 0 is not used.
    losers: Box<[Contender]>,
    winner: usize,
    /// While the winner's rank stays below this, it stays the winner.
    limit: u64,
    /// How many sources have an entry.
    live_count: usize,
    backward: bool,
    failed: usize,
}

#[derive(Clone, Copy)]
struct Contender {
    rank: u64,
    source: usize,
}

const VACANT: Contender = Contender { rank: RANK_END, source: NOWHERE };

impl<C: Cursor> MergingCursor<C> {
    /// Merges `sources`, newest first. The merge has no entry until it is positioned.
    pub fn new(sources: Vec<C>) -> Self {
        Self::with_prefix(sources, b"")
    }

    /// Merges `sources`, most keys of which begin with `prefix_bytes`.
    ///
    /// This is a matter of speed only: matches are settled by the eight bytes that follow the prefix. Keys
    /// outside the prefix are merged rightly, but more slowly.
    pub fn with_prefix(sources: Vec<C>, prefix_bytes: &[u8]) -> Self {
        let losers = vec![VACANT; sources.len()].into_boxed_slice();
        Self {
            sources,
            prefix: prefix_bytes.into(),
            losers,
            winner: NOWHERE,
            limit: 0,
            live_count: 0,
            backward: false,
            failed: NOWHERE,
        }
    }

    /// What is merged, in the order given.
    pub fn sources(&self) -> &[C] {
        &self.sources
    }

    /// The source of the entry here.
    #[inline]
    pub fn current(&self) -> Option<&C> {
        self.sources.get(self.winner)
    }

    /// Moves the source of the entry here by `step`, in the direction in which the merge runs, at least to its next entry
    /// and as far as its entries are not wanted. Whatever the other sources hold up to there is not passed.
    pub fn advance_with(&mut self, step: impl FnOnce(&mut C)) {
        if self.backward { self.step_with::<true>(step) } else { self.step_with::<false>(step) }
    }

    /// Positions every source, then holds the whole tournament.
    fn position(&mut self, backward: bool, place: impl FnMut(&mut C)) {
        self.backward = backward;
        self.failed = NOWHERE;
        self.winner = NOWHERE;
        self.sources.iter_mut().for_each(place);
        self.build();
    }

    /// Holds the whole tournament over the sources as they stand.
    fn build(&mut self) {
        if self.sources.len() == 1 {
            self.winner = 0;
            return;
        }
        self.winner = NOWHERE;
        self.limit = 0;
        self.live_count = 0;
        self.losers.fill(VACANT);
        for index in 0..self.sources.len() {
            let rank = match self.sources[index].entry() {
                Some(entry) => {
                    self.live_count += 1;
                    rank(entry.key, &self.prefix, self.backward)
                }
                None if self.sources[index].error().is_some() => {
                    self.fail(index);
                    return;
                }
                None => RANK_END,
            };
            // Climb until a node is vacant: whoever waits there meets the winner of the other side later.
            let mut contender = Contender { rank, source: index };
            let mut node = usize::midpoint(self.sources.len(), index);
            while node > 0 {
                let other = self.losers[node];
                if other.source == NOWHERE {
                    self.losers[node] = contender;
                    break;
                }
                if self.precedes(other, contender) {
                    self.losers[node] = contender;
                    contender = other;
                }
                node /= 2;
            }
            if node == 0 {
                self.winner = contender.source;
            }
        }
        if self.live_count == 0 {
            self.winner = NOWHERE;
        }
    }

    /// Moves the winner on in the direction of the merge and finds the next winner.
    #[inline]
    fn step<const BACKWARD: bool>(&mut self) {
        self.step_with::<BACKWARD>(if BACKWARD { C::prev } else { C::next });
    }

    /// As [`step`](Self::step), with a step of another length.
    #[inline]
    fn step_with<const BACKWARD: bool>(&mut self, step: impl FnOnce(&mut C)) {
        let Some(source) = self.sources.get_mut(self.winner) else {
            return;
        };
        step(source);
        if self.losers.len() == 1 {
            return;
        }
        let rank = match source.entry() {
            Some(entry) => rank(entry.key, &self.prefix, BACKWARD),
            None => return self.winner_ended(),
        };
        if rank < self.limit {
            return;
        }
        self.replay(rank);
    }

    #[cold]
    fn winner_ended(&mut self) {
        if self.sources[self.winner].error().is_some() {
            self.fail(self.winner);
            return;
        }
        self.live_count -= 1;
        if self.live_count == 0 {
            self.winner = NOWHERE;
        } else {
            self.replay(RANK_END);
        }
    }

    fn fail(&mut self, source: usize) {
        self.failed = source;
        self.winner = NOWHERE;
    }

    /// Plays the matches on the winner's way up again, now that its rank is `rank`.
    #[inline]
    fn replay(&mut self, rank: u64) {
        let before = self.winner;
        let mut contender = Contender { rank, source: before };
        let mut limit = RANK_END;
        let mut node = usize::midpoint(self.losers.len(), before);
        if self.losers.len() <= BRANCHY_SOURCE_COUNT_MAX {
            while node > 0 {
                let other = self.losers[node];
                limit = limit.min(other.rank);
                if other.rank < contender.rank
                    || (other.rank == contender.rank && self.precedes_at_tie(other, contender))
                {
                    self.losers[node] = contender;
                    contender = other;
                }
                node /= 2;
            }
        } else {
            while node > 0 {
                let other = self.losers[node];
                limit = limit.min(other.rank);
                let mut other_wins = other.rank < contender.rank;
                if other.rank == contender.rank {
                    other_wins = self.precedes_at_tie(other, contender);
                }
                self.losers[node] = Contender {
                    rank: select_unpredictable(other_wins, contender.rank, other.rank),
                    source: select_unpredictable(other_wins, contender.source, other.source),
                };
                contender = Contender {
                    rank: select_unpredictable(other_wins, other.rank, contender.rank),
                    source: select_unpredictable(other_wins, other.source, contender.source),
                };
                node /= 2;
            }
        }
        self.winner = contender.source;
        // If the winner is the same as before, the best of all others is among those that it met. If not, it is
        // itself the best of those, and will never again be below its own rank of now.
        self.limit = limit;
    }

    fn precedes(&self, a: Contender, b: Contender) -> bool {
        a.rank < b.rank || (a.rank == b.rank && self.precedes_at_tie(a, b))
    }

    #[cold]
    fn precedes_at_tie(&self, a: Contender, b: Contender) -> bool {
        let (Some(left), Some(right)) = (self.sources[a.source].entry(), self.sources[b.source].entry())
        else {
            return self.sources[a.source].entry().is_some();
        };
        let order = left.compare(right.key, right.sequence).then(a.source.cmp(&b.source));
        order == if self.backward { Ordering::Greater } else { Ordering::Less }
    }

    /// Steps from the current entry in the direction that the merge did not run in.
    ///
    /// Every other source stands at its first entry beyond the current one, so one step brings it to the near
    /// side; should entries have appeared in between meanwhile, it has to seek.
    #[cold]
    fn turn(&mut self) {
        if self.winner == NOWHERE {
            return;
        }
        let backward = !self.backward;
        self.backward = backward;
        if self.sources.len() == 1 {
            return if backward { self.step::<true>() } else { self.step::<false>() };
        }
        let (before, rest) = self.sources.split_at_mut(self.winner);
        let Some((winner, after)) = rest.split_first_mut() else {
            return;
        };
        if let Some(here) = winner.entry() {
            for source in before {
                if backward { step_before(source, here, true) } else { step_after(source, here, false) }
            }
            for source in after {
                if backward { step_before(source, here, false) } else { step_after(source, here, true) }
            }
        }
        if backward {
            winner.prev();
        } else {
            winner.next();
        }
        self.build();
    }
}

/// Moves `source` back to its last entry before `here`, or at it if `or_at`.
fn step_before(source: &mut impl Cursor, here: Entry<'_>, or_at: bool) {
    let beyond = |entry: Entry<'_>| match entry.compare(here.key, here.sequence) {
        Ordering::Less => false,
        Ordering::Equal => !or_at,
        Ordering::Greater => true,
    };
    if source.entry().is_some() {
        source.prev();
    } else {
        source.last();
    }
    if source.entry().is_some_and(beyond) {
        source.seek_for_prev(here.key, here.sequence);
        if source.entry().is_some_and(beyond) {
            source.prev();
        }
    }
}

/// Moves `source` on to its first entry after `here`, or at it if `or_at`.
fn step_after(source: &mut impl Cursor, here: Entry<'_>, or_at: bool) {
    let beyond = |entry: Entry<'_>| match entry.compare(here.key, here.sequence) {
        Ordering::Less => true,
        Ordering::Equal => !or_at,
        Ordering::Greater => false,
    };
    if source.entry().is_some() {
        source.next();
    } else {
        source.first();
    }
    if source.entry().is_some_and(beyond) {
        source.seek(here.key, here.sequence);
        if source.entry().is_some_and(beyond) {
            source.next();
        }
    }
}

/// An integer that orders like the key does in the direction of the merge, except for ties.
#[inline]
fn rank(key: &[u8], prefix: &[u8], backward: bool) -> u64 {
    let head = if prefix.is_empty() || key.starts_with(prefix) {
        key::head(key, prefix.len())
    } else if key < prefix {
        0
    } else {
        u64::MAX
    };
    if backward { !head } else { head }
}

impl<C: BlockCursor> BlockCursor for MergingCursor<C> {
    #[inline]
    fn block(&self) -> Option<Block<'_>> {
        let block = self.current()?.block()?;
        let stands_behind = |(index, source): (usize, &C)| {
            index == self.winner || source.entry().is_none_or(|entry| entry.key > block.last_key)
        };
        (!self.backward && self.sources.iter().enumerate().all(stands_behind)).then_some(block)
    }

    fn skip_block(&mut self) -> u64 {
        let mut bytes = 0;
        if self.block().is_some() {
            self.step_with::<false>(|source| bytes = source.skip_block());
        }
        bytes
    }
}

impl<C: Cursor> Cursor for MergingCursor<C> {
    fn first(&mut self) {
        self.position(false, Cursor::first);
    }

    fn last(&mut self) {
        self.position(true, Cursor::last);
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.position(false, |source| source.seek(key, sequence));
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.position(true, |source| source.seek_for_prev(key, sequence));
    }

    #[inline]
    fn next(&mut self) {
        if self.backward { self.turn() } else { self.step::<false>() }
    }

    #[inline]
    fn prev(&mut self) {
        if self.backward { self.step::<true>() } else { self.turn() }
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        self.sources.get(self.winner)?.entry()
    }

    fn error(&self) -> Option<&Error> {
        let failed = if self.losers.len() == 1 { 0 } else { self.failed };
        self.sources.get(failed)?.error()
    }
}
