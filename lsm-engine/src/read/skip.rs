//! The dead entries that a search for the next live key has passed.

use crate::keyspaces::Watch;

/// Number of dead entries in a row after which a cursor notes an empty span. To note one it needs a new merge and a second
/// walk over the entries. The number doubles each time, so that these walks stay a small part of a long scan.
pub(super) const LEARN_COUNT: u32 = 16;
/// Behind a known span this part of them is enough: a reader that takes the first key again and again makes it longer.
const LENGTHEN_PART: u32 = 4;
/// The search looks for a known empty span at the first dead entry and then at every eighth.
pub(super) const LOOK_COUNT: u32 = 8;

/// Where a search for the next live key begins.
#[derive(Clone, Copy)]
pub(super) enum From<'k> {
    /// At the current entry.
    Here,
    /// At this key. Backward: before it.
    Key(&'k [u8]),
    /// At this key, the end of a known empty span. Backward: before it, the start of one.
    Span(&'k [u8]),
    /// Before the first key of all. Backward: after the last.
    End,
}

/// The dead entries that a search has passed without a gap: since it began, or since an entry newer than the reader.
pub(super) struct Dead<'k> {
    pub(super) from: From<'k>,
    /// The cursor's `edge` holds their start.
    pub(super) has_edge: bool,
    /// Backward: they reach to the last key of all.
    pub(super) is_last: bool,
    /// They begin where a known empty span ends.
    pub(super) lengthens: bool,
    pub(super) count: u32,
    /// The watch of this search, once it is registered.
    pub(super) watch: Option<Watch>,
}

impl<'k> Dead<'k> {
    pub(super) fn new(from: From<'k>) -> Self {
        let lengthens = matches!(from, From::Span(_));
        Self { from, has_edge: false, is_last: false, lengthens, count: 0, watch: None }
    }

    /// Whether they are enough to remember the span that they leave empty, where `learn_count` would be elsewhere.
    pub(super) fn are_worth_learning(&self, learn_count: u32) -> bool {
        self.count >= if self.lengthens { learn_count / LENGTHEN_PART } else { learn_count }
    }
}
