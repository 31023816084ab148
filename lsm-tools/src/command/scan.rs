use std::ffi::OsString;
use std::ops::Bound;
use std::path::PathBuf;

use clap::Args;
use lsm_engine::Keyspace;

use crate::database::{FollowArg, KeyspaceArg, bytes_of_argument};
use crate::escape::escaped;
use crate::exit::{Failure, Result};
use crate::output::{Format, Output};

/// Print the records of a range, in the order of their keys
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm scan lsm-demo --prefix Iceland/
  lsm scan lsm-demo --from Japan/ --to Jordan/ --limit 10
  lsm scan lsm-demo --prefix Japan/ --reverse --limit 5
  lsm scan lsm-demo --format json | jq .key
  lsm scan old | lsm load new -            # a copy
  lsm scan db --follow                     # while a program has it open

Records are written one a line, key TAB value, so that `load` reads them back as they were.")]
pub(crate) struct Scan {
    /// Directory of the database
    db: PathBuf,
    #[command(flatten)]
    range: RangeArgs,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Print at most this many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How to print records
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the keys only
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    follow: FollowArg,
}

impl Scan {
    pub(crate) fn run(self) -> Result<()> {
        let db = self.follow.open_for_reading(&self.db)?;
        let mut records = self.range.records(&db)?;
        let mut out = Output::stdout();
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            left -= 1;
            let Some(record) = (if self.reverse { records.next_back() } else { records.next() }) else {
                break;
            };
            let (key, value) = match record {
                Ok(record) => record,
                Err(error) => {
                    out.flush()?; // what was read before the damage is good
                    return Err(error.into());
                }
            };
            if self.keys {
                out.field(self.format, "key", &key)?;
            } else {
                out.record(self.format, &key, &value)?;
            }
        }
        out.flush()
    }
}

/// A range of keys in a keyspace.
#[derive(Args, Debug)]
pub(crate) struct RangeArgs {
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Only keys that begin with this
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    prefix: Option<OsString>,
    /// Only keys from this one on
    #[arg(long, value_name = "A", allow_hyphen_values = true)]
    from: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "B", allow_hyphen_values = true)]
    to: Option<OsString>,
    /// Prefix and bounds are given in hex digits
    #[arg(long)]
    hex: bool,
}

impl RangeArgs {
    /// The records of the range.
    pub(crate) fn records(&self, db: &lsm_engine::Db) -> Result<lsm_engine::Iter> {
        let bytes = |argument: &Option<OsString>| {
            argument.as_deref().map(|argument| bytes_of_argument(argument, self.hex)).transpose()
        };
        let range = KeyRange::new(bytes(&self.prefix)?, bytes(&self.from)?, bytes(&self.to)?)?;
        Ok(range.iter(&self.keyspace.existing(db)?))
    }
}

/// Bounds, and the prefix if it is all there is, which an engine can use better.
#[derive(Debug, PartialEq, Eq)]
struct KeyRange {
    prefix: Option<Vec<u8>>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

impl KeyRange {
    fn new(prefix: Option<Vec<u8>>, from: Option<Vec<u8>>, to: Option<Vec<u8>>) -> Result<Self> {
        if let (Some(from), Some(to)) = (&from, &to)
            && from > to
        {
            return Err(Failure::Usage(format!(
                "the range from \"{}\" to \"{}\" ends before it starts",
                escaped(from),
                escaped(to)
            )));
        }
        let Some(prefix) = prefix else { return Ok(Self { prefix: None, from, to }) };
        if from.is_none() && to.is_none() {
            return Ok(Self { prefix: Some(prefix), from: None, to: None });
        }
        let prefix_end = end_of_prefix(&prefix);
        let from = Some(from.map_or(prefix.clone(), |from| from.max(prefix)));
        let to = match (to, prefix_end) {
            (Some(to), Some(end)) => Some(to.min(end)),
            (to, end) => to.or(end),
        };
        Ok(Self { prefix: None, from, to })
    }

    fn iter(self, keyspace: &Keyspace) -> lsm_engine::Iter {
        if let Some(prefix) = self.prefix {
            return keyspace.prefix(prefix);
        }
        let from = self.from.map_or(Bound::Unbounded, Bound::Included);
        let mut to = self.to.map_or(Bound::Unbounded, Bound::Excluded);
        if let (Bound::Included(start), Bound::Excluded(end)) = (&from, &to)
            && start > end
        {
            to = Bound::Excluded(start.clone()); // prefix and bounds do not meet: nothing, and no error
        }
        keyspace.range((from, to))
    }
}

/// The least key that is greater than every key with this prefix; `None` if there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(prefix: Option<&str>, from: Option<&str>, to: Option<&str>) -> Result<KeyRange> {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        KeyRange::new(bytes(prefix), bytes(from), bytes(to))
    }

    #[test]
    fn prefix_and_bounds_narrow_each_other() {
        let narrowed = |prefix, from, to| {
            let range = range(prefix, from, to).unwrap();
            (range.from.map(|key| escaped(&key)), range.to.map(|key| escaped(&key)))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(narrowed(Some("b"), Some("a"), None), (some("b"), some("c")));
        assert_eq!(narrowed(Some("b"), Some("bc"), Some("z")), (some("bc"), some("c")));
        assert_eq!(narrowed(Some("b"), None, Some("bb")), (some("b"), some("bb")));
        assert_eq!(narrowed(None, Some("a"), Some("a")), (some("a"), some("a")));
        assert!(matches!(range(None, Some("b"), Some("a")), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_prefix_ends_where_no_key_can_begin_with_it() {
        assert_eq!(end_of_prefix(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(end_of_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of_prefix(b"\xff"), None);
        assert_eq!(end_of_prefix(b""), None);
    }
}
