//! Merge operators: how the operands that were merged into a key become its value.
//!
//! A merge writes an *operand* without reading the key. The value of the key is what the operator makes of its *base*,
//! the newest put below the operands, and of the operands in the order in which they were written. A key without a put,
//! or whose put was deleted, has no base.

mod built_in;
mod number;
mod operands;
mod set;

use std::fmt;
use std::sync::Arc;

pub use built_in::BuiltInMerge;
pub use operands::Operands;
pub use set::{decode_set, encode_set};

/// Makes one value of a base and operands.
///
/// An operator must be a pure function: the store calls it when it pleases, in reads, flushes and compactions, and may
/// call it for any part of the operands first. For all bases `b` and operands `x`, `y` in the order of writing:
///
/// - `full(full(b, x), y)` is `full(b, x ++ y)`, where a result of `None` is a missing base;
/// - `full(b, [partial(x)] ++ y)` is `full(b, x ++ y)`, if `partial(x)` is some operand.
///
/// It is called by several threads at once, and must not call the store. Time and memory should grow with its arguments
/// only.
///
/// ```
/// use lsm_core::merge_operator::{MergeError, MergeOperator};
///
/// /// Bits that were ever set, of at most eight.
/// #[derive(Debug)]
/// struct Flags;
///
/// impl MergeOperator for Flags {
///     fn name(&self) -> &str {
///         "example.flags"
///     }
///
///     fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Option<Vec<u8>>, MergeError> {
///         let mut flags = 0;
///         for value in base.iter().chain(operands) {
///             let [bits] = value else { return Err(MergeError::new("flags take one byte")) };
///             flags |= bits;
///         }
///         Ok(Some(vec![flags]))
///     }
///
///     fn partial(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
///         self.full(key, None, operands).ok().flatten()
///     }
/// }
///
/// assert_eq!(Flags.full(b"key", Some(&[1]), &[&[4], &[2]]), Ok(Some(vec![7])));
/// ```
pub trait MergeOperator: fmt::Debug + Send + Sync + 'static {
    /// The name that the store records, 1 to 255 bytes. Another name means another meaning of stored operands, so change
    /// it when the meaning changes. Names that begin with `lsm.` are those of [`BuiltInMerge`].
    fn name(&self) -> &str;

    /// The value of `key`: what `operands`, at least one, oldest first, make of `base`. `None` as a base means that the
    /// key has no value below the operands; as a result, that it has none at all.
    ///
    /// # Errors
    /// If the operands do not fit. The store then keeps base and operands as they are, and a read of the key fails with
    /// this error until a put or delete replaces them.
    fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Option<Vec<u8>>, MergeError>;

    /// One operand that stands for `operands`, at least two, oldest first, whatever the base may be. `None` if there is
    /// none; then the store keeps them all.
    ///
    /// An operator without it works, but operands pile up until a compaction meets them together with their base.
    fn partial(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        let _ = (key, operands);
        None
    }
}

/// Why a merge operator could not make a value. The message is for people; the store adds key and operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeError(Arc<str>);

impl MergeError {
    /// An error with this message, such as "the operand has 3 bytes instead of 8".
    pub fn new(message: impl Into<Arc<str>>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MergeError {}
