use super::MergeError;

/// A number in eight bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    I64,
    U64,
    F64,
}

impl Number {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::F64 => "f64",
        }
    }

    /// The sum of all. Integers are summed without a bound, so that only the result must fit.
    pub(super) fn sum<'v>(self, values: impl Iterator<Item = &'v [u8]>) -> Result<[u8; 8], MergeError> {
        let outside = |sum: i128| MergeError::new(format!("the sum {sum} does not fit {}", self.name()));
        match self {
            Self::I64 => {
                let sum = values.map(|value| bytes(value).map(|bytes| i128::from(i64::from_le_bytes(bytes))));
                let sum = sum.sum::<Result<i128, _>>()?;
                i64::try_from(sum).map(i64::to_le_bytes).map_err(|_| outside(sum))
            }
            Self::U64 => {
                let sum = values.map(|value| bytes(value).map(|bytes| i128::from(u64::from_le_bytes(bytes))));
                let sum = sum.sum::<Result<i128, _>>()?;
                u64::try_from(sum).map(u64::to_le_bytes).map_err(|_| outside(sum))
            }
            Self::F64 => {
                // From the oldest on, and not from 0.0, so that a sum of one number is that number, -0.0 as well.
                let mut sum = -0.0;
                for value in values {
                    sum += f64::from_le_bytes(bytes(value)?);
                }
                Ok(f64::to_le_bytes(sum))
            }
        }
    }

    /// The order of two numbers; floating-point numbers in their total order, NaN included.
    pub(super) fn compare(self, one: &[u8], other: &[u8]) -> Result<std::cmp::Ordering, MergeError> {
        let (one, other) = (bytes(one)?, bytes(other)?);
        Ok(match self {
            Self::I64 => i64::from_le_bytes(one).cmp(&i64::from_le_bytes(other)),
            Self::U64 => u64::from_le_bytes(one).cmp(&u64::from_le_bytes(other)),
            Self::F64 => f64::from_le_bytes(one).total_cmp(&f64::from_le_bytes(other)),
        })
    }

    /// Fails unless `value` is a number.
    pub(super) fn check(value: &[u8]) -> Result<(), MergeError> {
        bytes(value).map(|_| ())
    }
}

#[inline]
fn bytes(value: &[u8]) -> Result<[u8; 8], MergeError> {
    value.try_into().map_err(|_| {
        MergeError::new(format!("a number takes 8 bytes, little-endian; one has {}", value.len()))
    })
}
