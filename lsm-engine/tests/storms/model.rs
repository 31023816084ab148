//! What a database has promised to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::reads::{Bytes, Model};

/// On the keyspace of that number.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(usize, Bytes, Bytes),
    Delete(usize, Bytes),
    DeleteRange(usize, Bytes, Bytes),
    Clear(usize),
}

/// Takes effect as a whole or not at all.
pub(super) type Commit = Vec<Op>;

/// By number of keyspace; those without entries are not in it.
pub(super) type State = BTreeMap<usize, Model>;

static NOTHING: Model = Model::new();

pub(super) fn entries(state: &State, number: usize) -> &Model {
    state.get(&number).unwrap_or(&NOTHING)
}

fn apply(state: &mut State, commit: &Commit) {
    for op in commit {
        match op {
            Op::Put(number, key, value) => {
                state.entry(*number).or_default().insert(key.clone(), value.clone());
            }
            Op::Delete(number, key) => {
                state.entry(*number).or_default().remove(key);
            }
            Op::DeleteRange(number, start, end) => {
                state.entry(*number).or_default().retain(|key, _| key < start || key >= end);
            }
            Op::Clear(number) => {
                state.remove(number);
            }
        }
    }
    state.retain(|_, model| !model.is_empty());
}

#[derive(Default)]
pub(super) struct Promises {
    /// No crash undoes this.
    durable: State,
    /// Acknowledged since: a power cut leaves a beginning of it.
    tail: Vec<Commit>,
    /// What readers see.
    now: State,
}

impl Promises {
    pub(super) fn now(&self) -> &State {
        &self.now
    }

    pub(super) fn with(&self, commit: &Commit) -> State {
        let mut state = self.now.clone();
        apply(&mut state, commit);
        state
    }

    pub(super) fn commit(&mut self, commit: Commit) {
        apply(&mut self.now, &commit);
        self.tail.push(commit);
    }

    pub(super) fn all_durable(&mut self) {
        self.durable = self.now.clone();
        self.tail.clear();
    }

    /// A keyspace is dropped, with which everything becomes durable.
    pub(super) fn forget(&mut self, number: usize) {
        self.now.remove(&number);
        self.all_durable();
    }

    /// What was found after a crash must be a state that there was, late enough; `in_flight` may have happened. It is
    /// durable from now on.
    pub(super) fn recover(&mut self, found: State, power_lost: bool, in_flight: Option<Commit>) {
        let least = if power_lost { 0 } else { self.tail.len() };
        let acknowledged = self.tail.len();
        let mut state = std::mem::take(&mut self.durable);
        let mut seen = least == 0 && state == found;
        for (before, commit) in self.tail.drain(..).chain(in_flight).enumerate() {
            apply(&mut state, &commit);
            seen |= before + 1 >= least && state == found;
        }
        assert!(
            seen,
            "after a crash: none of the states from commit {least} of {acknowledged} on; from the last one differ{}",
            difference(&self.now, &found)
        );
        self.now = found;
        self.all_durable();
    }
}

pub(super) fn difference(expected: &State, found: &State) -> String {
    let mut text = String::new();
    let show = |value: Option<&Bytes>| match value {
        Some(value) => format!("{} bytes from {:?} on", value.len(), value.first()),
        None => "nothing".to_owned(),
    };
    for number in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let (expected, found) = (entries(expected, *number), entries(found, *number));
        for key in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
            let (expected, found) = (expected.get(key), found.get(key));
            if expected != found {
                let (key, expected, found) = (key.escape_ascii(), show(expected), show(found));
                write!(text, "\n  {number} {key}: expected {expected}, found {found}").unwrap();
            }
        }
    }
    // A few say enough.
    text.lines().take(30).collect::<Vec<_>>().join("\n")
}
