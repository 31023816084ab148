use std::collections::BTreeMap;

use super::faults;

/// How often each kind of failure was prepared, and how often it came to it.
pub(crate) struct Tally(BTreeMap<String, (u64, u64)>);

impl Tally {
    pub(crate) fn new() -> Self {
        Self(faults::names().map(|kind| (kind, (0, 0))).collect())
    }

    pub(super) fn add(&mut self, kind: &str, count: u64) {
        let (prepared, fired) = self.0.entry(kind.to_owned()).or_default();
        *prepared += 1;
        *fired += count;
    }

    /// Fails if the storms were to meet a kind of failure that never came.
    pub(crate) fn check(&self) {
        let silent: Vec<_> = self.0.iter().filter(|(_, (_, fired))| *fired == 0).collect();
        assert!(silent.is_empty(), "prepared so often, but never fired: {silent:?}");
    }
}
