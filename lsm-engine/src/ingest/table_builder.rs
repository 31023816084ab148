use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lsm_core::env::system_random;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_core::{Entry, ValueKind, expiry};
use lsm_sstable::{TableId, TableOptions, TableWriter};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::keyspaces::Tree;
use crate::write::{check_key, check_range, check_value};

/// Builds a table to [ingest](crate::Keyspace::ingest), without a database.
///
/// Keys are added in ascending order, each once. Everything in the table counts as one write, at the moment of the ingest:
/// a range delete hides what was in the keyspace before, and nothing in the table. If the builder is dropped before
/// [`finish`](Self::finish), its file is removed.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use lsm_engine::{Db, Ingest, TableBuilder};
///
/// let path = dir.path().join("fruit.sst");
/// let mut table = TableBuilder::create(&path)?;
/// table.put("apple", "red")?;
/// table.delete("lemon")?;
/// table.delete_range("m".."q")?;
/// table.put("plum", "blue")?;
/// assert_eq!(table.finish()?, 3);
///
/// let db = Db::open(dir.path().join("db"))?;
/// db.ingest(Ingest::new().table(&path))?;
/// assert_eq!(db.get("plum")?.unwrap(), "blue");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TableBuilder {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    /// `None` when it is finished.
    writer: Option<TableWriter>,
    last_key: Option<Vec<u8>>,
}

impl TableBuilder {
    /// Creates the file, which must not exist, with the default [`TableOptions`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::create_with(path, &TableOptions::default())
    }

    /// Creates the file, which must not exist. A keyspace that was not given the filter of the table reads it without it;
    /// [`Keyspace::table_builder`](crate::Keyspace::table_builder) uses the options of the keyspace.
    pub fn create_with(path: impl AsRef<Path>, options: &TableOptions) -> Result<Self> {
        let id = u128::from(system_random()) << 64 | u128::from(system_random());
        Self::new(Arc::new(PosixFs), path.as_ref(), TableId(id), options)
    }

    /// With the options of a keyspace.
    pub(crate) fn for_keyspace(database: &Database, tree: &Tree, path: &Path) -> Result<Self> {
        let (resources, keyspace) = (&database.resources, tree.options());
        let options = TableOptions {
            block_bytes: keyspace.block_bytes,
            compression: keyspace.compression,
            filter: keyspace.table_filter(1, []),
            prefix_extractor: keyspace.prefix_extractor.clone(),
            ..TableOptions::default()
        };
        let id = u128::from(resources.env.random()) << 64 | u128::from(resources.env.random());
        Self::new(Arc::clone(&resources.vfs), path, TableId(id), &options)
    }

    fn new(vfs: Arc<dyn Vfs>, path: &Path, id: TableId, options: &TableOptions) -> Result<Self> {
        let writer = TableWriter::create(&*vfs, path, id, options)?;
        Ok(Self { vfs, path: path.to_owned(), writer: Some(writer), last_key: None })
    }

    /// Adds `key` with `value`.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.add(key.as_ref(), ValueKind::Put, value.as_ref())
    }

    /// Adds `key` with `value`, which expires at `time`; see [`Db::put_expiring`](crate::Db::put_expiring).
    pub fn put_expiring_at(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: SystemTime,
    ) -> Result<()> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.add(
            key.as_ref(),
            ValueKind::PutWithExpiry,
            &[&expiry::prefix(micros)[..], value.as_ref()].concat(),
        )
    }

    /// Adds the delete of `key`: the ingest deletes what the keyspace has.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.add(key.as_ref(), ValueKind::Delete, &[])
    }

    /// Adds a merge of `operand` into the value that the keyspace has for `key`; see
    /// [`Keyspace::merge`](crate::Keyspace::merge).
    pub fn merge(&mut self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.add(key.as_ref(), ValueKind::Merge, operand.as_ref())
    }

    /// Adds the delete of all keys from `range.start` up to, but not including, `range.end`, in any order. It hides what
    /// the keyspace has, and no entry of this table or of others that are ingested with it.
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, range: std::ops::Range<K>) -> Result<()> {
        let (start, end) = (range.start.as_ref(), range.end.as_ref());
        check_range(start, end)?;
        if start < end {
            self.writer()?.add_range_tombstone(start, end, 0)?;
        }
        Ok(())
    }

    /// Bytes that the file would have if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, TableWriter::estimated_bytes)
    }

    /// Writes the rest, durably. Returns the number of entries.
    pub fn finish(mut self) -> Result<u64> {
        let Some(writer) = self.writer.take() else { return Err(Error::Closed) };
        let finished = writer.finish().map_err(Error::from).and_then(|meta| {
            let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            self.vfs.sync_dir(parent).map_err(|error| Error::io("sync", parent, error))?;
            Ok(meta.entries)
        });
        if finished.is_err() {
            let _ = self.vfs.remove_file(&self.path);
        }
        finished
    }

    fn add(&mut self, key: &[u8], kind: ValueKind, value: &[u8]) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        match &mut self.last_key {
            Some(last) if &**last >= key => return Err(not_ascending(last, key)),
            Some(last) => {
                last.clear();
                last.extend_from_slice(key);
            }
            last => *last = Some(key.to_vec()),
        }
        Ok(self.writer()?.add(Entry { key, sequence: 0, kind, value })?)
    }

    fn writer(&mut self) -> Result<&mut TableWriter> {
        self.writer.as_mut().ok_or(Error::Closed)
    }
}

impl Drop for TableBuilder {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
            let _ = self.vfs.remove_file(&self.path);
        }
    }
}

impl std::fmt::Debug for TableBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The error for a key that does not come after the one before.
#[cold]
pub(super) fn not_ascending(last: &[u8], key: &[u8]) -> Error {
    let (last, key) = (last.escape_ascii(), key.escape_ascii());
    let detail = if last.clone().eq(key.clone()) {
        format!("key \"{key}\" is added twice")
    } else {
        format!("key \"{key}\" does not come after \"{last}\", the key before it")
    };
    Error::NotAscending(format!("{detail}; keys must ascend, bytewise").into())
}
