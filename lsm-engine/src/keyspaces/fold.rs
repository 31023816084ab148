//! The value that the versions of a key have together, if the newest one is a merge operand.

use std::ops::ControlFlow;

use lsm_core::merge_operator::Operands;
use lsm_core::{Entry, Slice};

use crate::error::Result;
use crate::keyspaces::read_point::{Meaning, ReadPoint};
use crate::keyspaces::read_state::ReadState;

/// Finds the value of one key whose newest visible version is a merge operand.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    operands: Operands,
}

impl Fold {
    /// Takes the next older version of the key. Breaks with the value of the key as soon as that is known.
    pub(crate) fn take(
        &mut self,
        state: &ReadState,
        point: &ReadPoint<'_>,
        entry: Entry<'_>,
        is_covered: bool,
    ) -> Result<ControlFlow<Option<Vec<u8>>>> {
        let meaning = if is_covered { Meaning::Absent } else { point.meaning(entry.kind, entry.value) };
        let resolved;
        let base = match meaning {
            Meaning::Operand(operand) => {
                self.operands.push_older(entry.sequence, operand);
                state.merging.shrink(entry.key, &mut self.operands);
                return Ok(ControlFlow::Continue(()));
            }
            Meaning::Value(base) => Some(base),
            Meaning::Blob(pointer) => {
                resolved = state.at(point.sequence).resolve(entry.key, pointer)?;
                Some(&*resolved)
            }
            Meaning::Absent => None,
            Meaning::Malformed => return Err(state.malformed(entry.key)),
        };
        self.finish(state, entry.key, base).map(ControlFlow::Break)
    }

    /// The value of `key`, if there are no versions below those taken.
    pub(crate) fn end(&mut self, state: &ReadState, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.finish(state, key, None)
    }

    fn finish(&mut self, state: &ReadState, key: &[u8], base: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let value = state.merging.full(key, base, &self.operands);
        self.operands.clear();
        value
    }
}

impl ReadState {
    /// The value of a key whose newest visible version is a merge operand. The caller uses the state for its number.
    #[cold]
    pub(super) fn get_merged(&self, key: &[u8], point: &ReadPoint<'_>) -> Result<Option<Slice>> {
        let mut fold = Fold::default();
        let taken = self
            .versions(key, point.sequence, |entry, is_covered| fold.take(self, point, entry, is_covered))?;
        let value = match taken {
            ControlFlow::Break(value) => value,
            ControlFlow::Continue(()) => fold.end(self, key)?,
        };
        Ok(value.map(Slice::from))
    }
}
