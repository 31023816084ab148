use super::{MergeError, MergeOperator};
use crate::key::{SequenceNumber, VALUE_BYTES_MAX};

/// Operands of one key, gathered from the newest down.
///
/// They are kept in few bytes each. [`shrink`](Self::shrink) lets the operator fold them on the way, so that a key with
/// very many takes bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Operands {
    bytes: Vec<u8>,
    /// Sequence number and end of each, the newest first.
    ends: Vec<(SequenceNumber, usize)>,
    /// Bytes beyond which shrinking is worth another try.
    shrink_at: usize,
}

/// Operands that take less stay as they are. A small part of the smallest memory that a database may have.
const SHRINK_BYTES_MIN: usize = 128 << 10;

impl Operands {
    /// Adds an operand that is older than the others.
    #[inline]
    pub fn push_older(&mut self, sequence: SequenceNumber, operand: &[u8]) {
        self.bytes.extend_from_slice(operand);
        self.ends.push((sequence, self.bytes.len()));
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Number of operands.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Removes all, and keeps the buffers unless they are large.
    pub fn clear(&mut self) {
        if self.memory_bytes() > SHRINK_BYTES_MIN {
            *self = Self::default();
        }
        self.bytes.clear();
        self.ends.clear();
        self.shrink_at = 0;
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<(SequenceNumber, usize)>()
    }

    /// Whether they take much memory, so that it is time to [`shrink`](Self::shrink) them.
    #[inline]
    pub fn are_many(&self) -> bool {
        let bytes = self.bytes.len() + self.ends.len() * size_of::<(SequenceNumber, usize)>();
        bytes > SHRINK_BYTES_MIN && bytes > self.shrink_at
    }

    /// The sequence number of the newest.
    pub fn newest_sequence(&self) -> Option<SequenceNumber> {
        self.ends.first().map(|&(sequence, _)| sequence)
    }

    /// The operand at a position, the newest first, and its sequence number.
    pub fn get(&self, index: usize) -> Option<(SequenceNumber, &[u8])> {
        let &(sequence, end) = self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|newer| self.ends.get(newer)).map_or(0, |&(_, end)| end);
        self.bytes.get(start..end).map(|operand| (sequence, operand))
    }

    /// All, from the oldest to the newest, as operators take them.
    pub fn oldest_first(&self) -> Vec<&[u8]> {
        (0..self.len()).rev().filter_map(|index| self.get(index)).map(|(_, operand)| operand).collect()
    }

    /// Calls `call` with all, from the oldest to the newest. Most keys have few operands: they need no allocation.
    #[inline]
    fn with_oldest_first<T>(&self, call: impl FnOnce(&[&[u8]]) -> T) -> T {
        match self.ends.len() {
            1 => call(&[&self.bytes]),
            2 => {
                let [newer, older] =
                    [0, 1].map(|index| self.get(index).map_or(&[][..], |(_, operand)| operand));
                call(&[older, newer])
            }
            _ => call(&self.oldest_first()),
        }
    }

    /// Replaces all by the one operand that stands for them, with the number of the newest. Returns `false`, and
    /// changes nothing, if the operator has none.
    pub fn shrink(&mut self, operator: &dyn MergeOperator, key: &[u8]) -> bool {
        let Some(newest) = self.newest_sequence() else { return false };
        if self.len() == 1 {
            return true;
        }
        // Next time when twice as much has come together, so that the cost stays linear.
        self.shrink_at = 2 * (self.bytes.len() + self.ends.len() * size_of::<(SequenceNumber, usize)>());
        let partial = self.with_oldest_first(|operands| operator.partial(key, operands));
        let Some(operand) = partial.filter(|operand| operand.len() as u64 <= VALUE_BYTES_MAX) else {
            return false;
        };
        self.shrink_at = 2 * operand.len();
        self.bytes = operand;
        self.ends.clear();
        self.ends.push((newest, self.bytes.len()));
        true
    }

    /// The value that they make of `base`.
    ///
    /// # Errors
    /// The operator's, and if the value is longer than a value may be.
    pub fn full(
        &self,
        operator: &dyn MergeOperator,
        key: &[u8],
        base: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, MergeError> {
        let value = self.with_oldest_first(|operands| operator.full(key, base, operands))?;
        match value.as_ref().map(|value| value.len() as u64) {
            Some(bytes) if bytes > VALUE_BYTES_MAX => Err(MergeError::new(format!(
                "the value has {bytes} bytes, over the limit of {VALUE_BYTES_MAX}"
            ))),
            _ => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge_operator::BuiltInMerge;

    #[test]
    fn a_million_operands_take_bounded_memory_when_the_operator_has_parts() {
        let add = BuiltInMerge::add_u64();
        let mut operands = Operands::default();
        let mut memory_bytes_max = 0;
        for number in (1..=1_000_000_u64).rev() {
            operands.push_older(number, &number.to_le_bytes());
            if operands.are_many() {
                assert!(operands.shrink(&add, b"key"));
            }
            memory_bytes_max = memory_bytes_max.max(operands.memory_bytes());
        }
        assert!(memory_bytes_max < 1 << 20, "{memory_bytes_max}");
        assert_eq!(operands.newest_sequence(), Some(1_000_000));
        let sum = operands.full(&add, b"key", None).unwrap().unwrap();
        assert_eq!(sum, 500_000_500_000_u64.to_le_bytes());
    }

    #[test]
    fn operands_come_back_oldest_first() {
        let mut operands = Operands::default();
        for (sequence, operand) in [(9, "c"), (7, ""), (3, "a")] {
            operands.push_older(sequence, operand.as_bytes());
        }
        assert_eq!(operands.oldest_first(), [&b"a"[..], b"", b"c"]);
        assert_eq!(operands.get(0), Some((9, &b"c"[..])));
        assert_eq!(operands.get(2), Some((3, &b"a"[..])));
        assert_eq!(operands.get(3), None);
        operands.clear();
        assert!(operands.is_empty());
    }
}
