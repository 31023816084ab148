use std::ops::Range;
use std::path::{Path, PathBuf};

use lsm_core::Slice;

use crate::error::Result;
use crate::read::KeyRange;
use crate::write::check_range;

/// Which tables to take in, and how; see [`Keyspace::ingest`](crate::Keyspace::ingest).
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use lsm_engine::{Db, Ingest, TableBuilder};
///
/// let (first, second) = (dir.path().join("first.sst"), dir.path().join("second.sst"));
/// let mut table = TableBuilder::create(&first)?;
/// table.put("a", "1")?;
/// table.finish()?;
/// let mut table = TableBuilder::create(&second)?;
/// table.put("m", "2")?;
/// table.finish()?;
///
/// let db = Db::open(dir.path().join("db"))?;
/// db.put("b", "replaced")?;
/// db.ingest(Ingest::new().table(&first).table(&second).replace("a".."z"))?;
/// let all: Vec<_> = db.iter().keys().collect::<Result<_, _>>()?;
/// assert_eq!(all, ["a", "m"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "give it to Keyspace::ingest"]
pub struct Ingest {
    pub(super) tables: Vec<PathBuf>,
    pub(super) replaced: Option<(Slice, Slice)>,
    pub(super) placing: Placing,
}

/// How the files get into the directory of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Placing {
    #[default]
    Copy,
    Link,
    /// Link, and remove the other name in the end.
    Move,
}

impl Ingest {
    /// No tables yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a table. The tables may be given in any order, and must not overlap.
    pub fn table(mut self, path: impl AsRef<Path>) -> Self {
        self.tables.push(path.as_ref().to_owned());
        self
    }

    /// Adds tables.
    pub fn tables<P: AsRef<Path>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.tables.extend(paths.into_iter().map(|path| path.as_ref().to_owned()));
        self
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end` in the same step, except those in the
    /// tables. It costs one range tombstone. The tables may have keys outside the range.
    pub fn replace<K: AsRef<[u8]>>(mut self, range: Range<K>) -> Self {
        self.replaced = Some((range.start.as_ref().into(), range.end.as_ref().into()));
        self
    }

    /// Links the files instead of copying them, where the file system can. That is fast, and takes no space. From then on
    /// both names are one file: **nobody may write to it any more**, by either name, or the database is corrupt.
    pub fn link(mut self) -> Self {
        self.placing = Placing::Link;
        self
    }

    /// Like [`link`](Self::link), and removes the given names when the tables are in the database. A name that cannot be
    /// removed stays. Whoever has a file open for writing must close it first.
    pub fn move_files(mut self) -> Self {
        self.placing = Placing::Move;
        self
    }

    /// The range to replace, if it is not empty.
    pub(super) fn replaced(&self) -> Result<Option<KeyRange>> {
        let Some((start, end)) = &self.replaced else { return Ok(None) };
        check_range(start, end)?;
        Ok((start < end).then(|| KeyRange { start: start.clone(), end: Some(end.clone()) }))
    }
}
