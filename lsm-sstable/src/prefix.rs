use std::fmt::Debug;
use std::sync::Arc;

/// Names the part of a key by which prefix scans will ask for it, so that the filter can answer whether a table
/// has any key with that prefix.
///
/// # Contract
///
/// - `prefix(key)` is a prefix of `key`, always the same for the same key, or `None` for keys outside the domain.
/// - If `p == prefix(key)`, then `prefix(p) == Some(p)`, and every key that starts with `p` and has a prefix has the prefix `p`,
///   or `p` is not asked for.
/// - `name` identifies the function: it is stored in each table, and a table whose stored name differs from the
///   reader's is read without its prefix filter. Change the name when the function changes.
/// - Both may be called from several threads at once.
pub trait PrefixExtractor: Send + Sync + Debug {
    /// Name of the function, with its parameters.
    fn name(&self) -> String;

    /// The prefix of `key`, if it has one.
    fn prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]>;
}

/// The first `bytes` bytes of a key; shorter keys have no prefix.
///
/// ```
/// use lsm_sstable::{FixedPrefix, PrefixExtractor};
/// assert_eq!(FixedPrefix { bytes: 4 }.prefix(b"user17"), Some(&b"user"[..]));
/// assert_eq!(FixedPrefix { bytes: 4 }.prefix(b"abc"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPrefix {
    /// Length of the prefix.
    pub bytes: usize,
}

impl PrefixExtractor for FixedPrefix {
    fn name(&self) -> String {
        format!("fixed:{}", self.bytes)
    }

    fn prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.get(..self.bytes)
    }
}

/// Everything up to and with the first `delimiter`; keys without one have no prefix.
///
/// ```
/// use lsm_sstable::{DelimitedPrefix, PrefixExtractor};
/// assert_eq!(DelimitedPrefix { delimiter: b'/' }.prefix(b"user/17"), Some(&b"user/"[..]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelimitedPrefix {
    /// The byte that ends a prefix.
    pub delimiter: u8,
}

impl PrefixExtractor for DelimitedPrefix {
    fn name(&self) -> String {
        format!("delimited:{}", self.delimiter)
    }

    fn prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let end = key.iter().position(|&byte| byte == self.delimiter)?;
        key.get(..=end)
    }
}

/// The built-in extractor with this [name](PrefixExtractor::name), if there is one.
///
/// ```
/// use lsm_sstable::built_in_prefix_extractor;
/// assert_eq!(built_in_prefix_extractor("fixed:4").unwrap().prefix(b"user17"), Some(&b"user"[..]));
/// assert!(built_in_prefix_extractor("reversed").is_none());
/// ```
pub fn built_in_prefix_extractor(name: &str) -> Option<Arc<dyn PrefixExtractor>> {
    let (kind, parameter) = name.split_once(':')?;
    Some(match kind {
        "fixed" => Arc::new(FixedPrefix { bytes: parameter.parse().ok()? }),
        "delimited" => Arc::new(DelimitedPrefix { delimiter: parameter.parse().ok()? }),
        _ => return None,
    })
}
