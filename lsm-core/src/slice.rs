use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

const INLINE_BYTES_MAX: usize = 22;

/// Bytes that are cheap to clone: short ones inline, longer ones shared.
///
/// A slice is what reads return. It never borrows from the store, so it may be kept and sent anywhere. One made
/// by [`Slice::pinned`] keeps alive the buffer that it points into.
///
/// ```
/// let slice = lsm_core::Slice::from("hello");
/// assert_eq!(slice, b"hello");
/// assert_eq!(&slice[1..3], b"el");
/// ```
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared(Arc<[u8]>),
    Pinned(Arc<Pinned>),
}

struct Pinned {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Slice {
    /// An empty slice.
    pub const fn new() -> Self {
        Self(Repr::Inline { len: 0, bytes: [0; INLINE_BYTES_MAX] })
    }

    /// A copy of `bytes`.
    #[inline]
    pub fn copy_from(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_BYTES_MAX {
            let mut inline = [0; INLINE_BYTES_MAX];
            inline[..bytes.len()].copy_from_slice(bytes);
            Self(Repr::Inline { len: bytes.len() as u8, bytes: inline })
        } else {
            Self(Repr::Shared(Arc::from(bytes)))
        }
    }

    /// The bytes of `owner` in `range`, without a copy; `owner` lives as long as the slice.
    ///
    /// # Panics
    /// If `range` is out of bounds of `owner`.
    pub fn pinned(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= (*owner).as_ref().len(), "range out of bounds");
        Self(Repr::Pinned(Arc::new(Pinned { owner, range })))
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
            Repr::Pinned(pinned) => &(*pinned.owner).as_ref()[pinned.range.clone()],
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Slice {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copy_from(bytes)
    }
}

impl From<&str> for Slice {
    fn from(text: &str) -> Self {
        Self::copy_from(text.as_bytes())
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE_BYTES_MAX {
            Self::copy_from(&bytes)
        } else {
            Self(Repr::Shared(Arc::from(bytes)))
        }
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Self {
        slice.to_vec()
    }
}

impl fmt::Debug for Slice {
    /// Text is shown as text, the rest escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Slice {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_every_kind_hold_the_same_bytes() {
        let bytes: Vec<u8> = (0..100).collect();
        for len in [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 100] {
            assert_eq!(Slice::copy_from(&bytes[..len]), bytes[..len]);
            assert_eq!(Slice::from(bytes[..len].to_vec()), bytes[..len]);
            assert_eq!(Slice::pinned(Arc::new(bytes.clone()), 0..len), bytes[..len]);
        }
    }

    #[test]
    fn a_slice_is_three_words() {
        assert_eq!(size_of::<Slice>(), 24);
    }

    #[test]
    fn debug_shows_text_and_escapes_the_rest() {
        assert_eq!(format!("{:?}", Slice::from(b"a\xff")), r#""a\xff""#);
    }
}
