use std::collections::BTreeMap;

use super::faults;

/// How often each kind of failure was armed, and how often it happened.
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

    /// Fails if a kind of failure was armed but never happened.
    pub(crate) fn check(&self) {
        let silent: Vec<_> = self.0.iter().filter(|(_, (_, fired))| *fired == 0).collect();
        assert!(silent.is_empty(), "prepared so often, but never fired: {silent:?}");
    }
}
