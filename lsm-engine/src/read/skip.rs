//! What a search for the next live key has passed.

use crate::keyspaces::Watch;

/// After so many dead entries in a row the span that they leave empty is worth remembering: that costs a new merge and
/// a second walk over them. It doubles each time, so that a scan over many such spans pays a fraction of its steps.
pub(super) const LEARN_COUNT: u32 = 16;
/// Known empty spans are looked for at the first and then every so many dead entries.
pub(super) const LOOK_COUNT: u32 = 8;

/// Where a search for the next live key begins.
#[derive(Clone, Copy)]
pub(super) enum From<'k> {
    /// Behind the key that the cursor stood on.
    Here,
    /// At this key; going backward, before it.
    Key(&'k [u8]),
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
    pub(super) count: u32,
    /// The search has announced where it goes.
    pub(super) watch: Option<Watch>,
}

impl<'k> Dead<'k> {
    pub(super) fn new(from: From<'k>) -> Self {
        Self { from, has_edge: false, is_last: false, count: 0, watch: None }
    }
}
