//! What a search for the next live key has passed.

use crate::keyspaces::Watch;

/// After so many dead entries in a row the span that they leave empty is worth remembering: that costs a new merge and
/// a second walk over them. It doubles each time, so that a scan over many such spans pays a fraction of its steps.
pub(super) const LEARN_COUNT: u32 = 16;
/// Behind a known span this part of them is enough: whoever takes the first key again and again makes it longer.
const LENGTHEN_PART: u32 = 4;
/// Known empty spans are looked for at the first and then every so many dead entries.
pub(super) const LOOK_COUNT: u32 = 8;

/// Where a search for the next live key begins.
#[derive(Clone, Copy)]
pub(super) enum From<'k> {
    /// Behind the key that the cursor stood on.
    Here,
    /// At this key; going backward, before it.
    Key(&'k [u8]),
    /// At this key, where a known empty span ends; going backward, before it, where one begins.
    Span(&'k [u8]),
    /// At the first key of all, or behind the last.
    End,
}

/// The dead entries that a search has passed since it began, or since one that is newer than its reader.
pub(super) struct Dead<'k> {
    pub(super) from: From<'k>,
    /// `edge` of the cursor says where they begin.
    pub(super) has_edge: bool,
    /// Going backward: they begin behind the last key of all.
    pub(super) is_last: bool,
    /// They begin where a known empty span ends.
    pub(super) lengthens: bool,
    pub(super) count: u32,
    /// The search has announced where it goes.
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
