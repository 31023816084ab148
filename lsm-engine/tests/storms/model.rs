//! The model: the data that a database must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::random::merge;
use crate::reads::{Bytes, Model};

use super::filter::normal;

/// A change of the keyspace with that number.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(usize, Bytes, Bytes),
    Merge(usize, Bytes, Bytes),
    /// A value that expires after the storm.
    PutExpiring(usize, Bytes, Bytes),
    /// A value that expires at once: it hides what was there.
    PutExpired(usize, Bytes, Bytes),
    SingleDelete(usize, Bytes),
    Delete(usize, Bytes),
    DeleteRange(usize, Bytes, Bytes),
    Clear(usize),
}

impl Op {
    pub(super) fn keyspace(&self) -> usize {
        match self {
            Self::Put(number, ..)
            | Self::Merge(number, ..)
            | Self::PutExpiring(number, ..)
            | Self::PutExpired(number, ..)
            | Self::SingleDelete(number, _)
            | Self::Delete(number, _)
            | Self::DeleteRange(number, ..)
            | Self::Clear(number) => *number,
        }
    }
}

/// Changes that take effect as a whole or not at all.
pub(super) type Commit = Vec<Op>;

/// The entries by keyspace number. Keyspaces without entries are not in the map.
pub(super) type State = BTreeMap<usize, Model>;

static NOTHING: Model = Model::new();

pub(super) fn entries(state: &State, number: usize) -> &Model {
    state.get(&number).unwrap_or(&NOTHING)
}

/// A model as it is after a compaction filter has met every value.
pub(super) fn normalized(model: &Model) -> Model {
    let rows = model.iter().filter_map(|(key, value)| Some((key.clone(), normal(value)?.into_owned())));
    rows.collect()
}

/// Whether two states hold the same, whatever the compaction filter has met.
pub(super) fn same(a: &State, b: &State) -> bool {
    let keyspaces: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let mut pairs = keyspaces.into_iter().map(|number| (entries(a, *number), entries(b, *number)));
    pairs.all(|(a, b)| a == b || normalized(a) == normalized(b))
}

fn apply(state: &mut State, commit: &Commit) {
    for op in commit {
        match op {
            Op::Put(number, key, value) | Op::PutExpiring(number, key, value) => {
                state.entry(*number).or_default().insert(key.clone(), value.clone());
            }
            Op::Merge(number, key, operand) => {
                merge(state.entry(*number).or_default(), key.clone(), operand);
            }
            Op::Delete(number, key) | Op::SingleDelete(number, key) | Op::PutExpired(number, key, _) => {
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

pub(super) fn with(state: &State, commit: &Commit) -> State {
    let mut state = state.clone();
    apply(&mut state, commit);
    state
}

#[derive(Default)]
pub(super) struct Promises {
    /// The state that no crash undoes.
    durable: State,
    /// Commits acknowledged since. A power cut leaves a prefix of them.
    tail: Vec<Commit>,
    /// Commits that failed or were running, each with the number of tail commits before it. Recovery may find one of
    /// them, whole, if it finds no later commit: the next append cuts off what a failed one left in the log.
    doubtful: Vec<(usize, Commit)>,
    /// The state that readers see.
    now: State,
    /// Number of commits that are in `durable`.
    durable_count: usize,
}

impl Promises {
    pub(super) fn now(&self) -> &State {
        &self.now
    }

    pub(super) fn with(&self, commit: &Commit) -> State {
        with(&self.now, commit)
    }

    pub(super) fn commit(&mut self, commit: Commit) {
        apply(&mut self.now, &commit);
        self.tail.push(commit);
    }

    /// Notes a failed commit: readers do not see it, but a crash may restore it.
    pub(super) fn doubt(&mut self, commit: Commit) {
        self.doubtful.push((self.tail.len(), commit));
    }

    /// Number of failed commits that recovery may still find.
    pub(super) fn doubtful_count(&self) -> usize {
        self.doubtful.len()
    }

    /// Number of commits so far. Later this names the last one.
    pub(super) fn count(&self) -> usize {
        self.durable_count + self.tail.len()
    }

    pub(super) fn all_durable(&mut self) {
        self.durable_up_to(self.count());
        // What a crash left in doubt is settled, too.
        self.durable = self.now.clone();
    }

    /// Notes that the first `count` commits are durable.
    pub(super) fn durable_up_to(&mut self, count: usize) {
        let more = count.saturating_sub(self.durable_count);
        for commit in self.tail.drain(..more) {
            apply(&mut self.durable, &commit);
        }
        self.durable_count += more;
        // A failed commit is cut off by those after it.
        self.doubtful.retain(|(before, _)| *before >= more);
        for (before, _) in &mut self.doubtful {
            *before -= more;
        }
    }

    /// Notes the drop of a keyspace. It makes all earlier commits durable.
    pub(super) fn forget(&mut self, number: usize) {
        self.now.remove(&number);
        self.all_durable();
        for (_, commit) in &mut self.doubtful {
            commit.retain(|op| op.keyspace() != number);
        }
    }

    /// Checks the state found after a crash: it must be a past state that is late enough. `in_flight` may have
    /// happened. The found state is durable from now on.
    pub(super) fn recover(&mut self, found: State, power_lost: bool, in_flight: Option<Commit>) {
        if let Some(commit) = in_flight {
            self.doubt(commit);
        }
        let acknowledged = self.tail.len();
        let least = if power_lost { 0 } else { acknowledged };
        let mut state = std::mem::take(&mut self.durable);
        let mut seen = false;
        for before in 0..=acknowledged {
            if before >= least {
                let doubtful = self.doubtful.iter().filter(|(place, _)| *place == before);
                seen |= same(&state, &found)
                    || doubtful.clone().any(|(_, commit)| same(&with(&state, commit), &found));
            }
            if let Some(commit) = self.tail.get(before) {
                apply(&mut state, commit);
            }
        }
        assert!(
            seen,
            "after a crash: none of the states from commit {least} of {acknowledged} on, {} in doubt; from the last one differ{}",
            self.doubtful.len(),
            difference(&self.now, &found)
        );
        self.now = found;
        self.doubtful.clear();
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
            if expected.and_then(|value| normal(value)) != found.and_then(|value| normal(value)) {
                let (key, expected, found) = (key.escape_ascii(), show(expected), show(found));
                write!(text, "\n  {number} {key}: expected {expected}, found {found}").unwrap();
            }
        }
    }
    // A few differences are enough for the message.
    text.lines().take(30).collect::<Vec<_>>().join("\n")
}
