//! Compaction filters: user code that decides about each value on its way through a merge.

use std::fmt;
use std::sync::OnceLock;

use lsm_core::Slice;

/// Decides about values that a merge rewrites anyway: which to keep, which to delete, which to change.
///
/// It is asked once in each merge for the newest version of a key, if that is a put which every reader sees that has no
/// snapshot: not for what a snapshot sees, for tombstones, for what has expired, or for operands of a merge operator. The
/// same value is asked about again in later merges, and some are never: those of tables that are moved or dropped as a
/// whole. So a filter must not count, and no program may rely on when it is asked.
///
/// It is called on background threads, several at a time, and must not panic. It may be asked about a value that was
/// overwritten or deleted since, since newer versions may be outside of the merge: what it decides has no effect then.
///
/// ```
/// use lsm_compaction::{CompactionAt, CompactionFilter, Decision, LazyValue};
///
/// /// Drops sessions that were logged out.
/// #[derive(Debug)]
/// struct LoggedOut;
///
/// impl CompactionFilter for LoggedOut {
///     fn decide(&self, key: &[u8], value: LazyValue<'_>, _: CompactionAt) -> Decision {
///         if key.starts_with(b"session/") && value.get().ends_with(b" out") { Decision::Delete } else { Decision::Keep }
///     }
/// }
/// ```
pub trait CompactionFilter: Send + Sync + fmt::Debug {
    /// What becomes of a value. The key and the value are borrowed for the call.
    fn decide(&self, key: &[u8], value: LazyValue<'_>, at: CompactionAt) -> Decision;
}

/// What a [`CompactionFilter`] decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The value stays.
    Keep,
    /// The key is deleted. A tombstone takes the place of the value, unless there is nothing older for it to hide, so that
    /// nothing comes back.
    Delete,
    /// The key has this value from now on, at most 4 GiB. A value that expires keeps its time.
    Replace(Vec<u8>),
}

/// A value that is read when it is asked for.
#[derive(Clone, Copy)]
pub struct LazyValue<'v>(Lazy<'v>);

#[derive(Clone, Copy)]
enum Lazy<'v> {
    Here(&'v [u8]),
    InBlob(&'v LazyBlob<'v>),
}

/// Reads values in blob files.
pub trait BlobSource: Send + Sync {
    /// The value that an encoded [`BlobPointer`](lsm_core::BlobPointer) points to; `None` if it cannot be read, or takes too
    /// much memory.
    fn read(&self, pointer: &[u8]) -> Option<Slice>;
}

/// A value in a blob file, read when it is asked for.
pub(crate) struct LazyBlob<'v> {
    source: &'v dyn BlobSource,
    pointer: &'v [u8],
    bytes: usize,
    value: OnceLock<Option<Slice>>,
}

impl<'v> LazyBlob<'v> {
    pub(crate) fn new(source: &'v dyn BlobSource, pointer: &'v [u8], bytes: usize) -> Self {
        Self { source, pointer, bytes, value: OnceLock::new() }
    }

    fn get(&self) -> &[u8] {
        self.value.get_or_init(|| self.source.read(self.pointer)).as_deref().unwrap_or_default()
    }

    /// The value was asked for and could not be read.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.value.get(), Some(None))
    }
}

impl<'v> LazyValue<'v> {
    pub(crate) fn new(value: &'v [u8]) -> Self {
        Self(Lazy::Here(value))
    }

    pub(crate) fn of_blob(blob: &'v LazyBlob<'v>) -> Self {
        Self(Lazy::InBlob(blob))
    }

    /// The value, without the time at which it expires. If it is in a blob file that cannot be read, this is empty, and
    /// whatever is decided the value stays.
    pub fn get(&self) -> &'v [u8] {
        match self.0 {
            Lazy::Here(value) => value,
            Lazy::InBlob(blob) => blob.get(),
        }
    }

    /// Its length, which takes no read.
    pub fn len(&self) -> usize {
        match self.0 {
            Lazy::Here(value) => value.len(),
            Lazy::InBlob(blob) => blob.bytes,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for LazyValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyValue").field("len", &self.len()).finish()
    }
}

/// The merge in which a [`CompactionFilter`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionAt {
    /// The level that the merge writes to.
    pub level: usize,
    /// No level below has data.
    pub is_last_level: bool,
    /// The time at which the merge began, in microseconds since 1970.
    pub now_micros: u64,
}

impl CompactionAt {
    /// A merge into this level.
    pub fn new(level: usize, is_last_level: bool, now_micros: u64) -> Self {
        Self { level, is_last_level, now_micros }
    }
}
