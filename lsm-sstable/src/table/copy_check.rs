//! Proves the bytes of a table while they are copied.

use std::path::Path;

use lsm_core::checksum::Checksum;
use lsm_core::{Error, Result};

use crate::blob::blob_body_checksum;
use crate::format::file_header::FILE_HEADER_BYTES;
use crate::format::footer::{FOOTER_BYTES, Footer};
use crate::meta::{TableId, TableMeta};

/// Proves that bytes which pass by, from first to last, are a certain table or blob file: to be used when a file is copied. It knows
/// nothing of blocks and keys, so it is as fast as the checksum, and finds each changed byte as [`Table::verify`] does.
///
/// [`Table::verify`]: crate::Table::verify
///
/// ```
/// use lsm_core::{Entry, ValueKind, vfs::PosixFs};
/// use lsm_sstable::{CopyCheck, TableId, TableOptions, TableWriter};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("1.sst");
/// let mut writer = TableWriter::create(&PosixFs, &path, TableId(0x5eed), &TableOptions::default())?;
/// writer.add(Entry { key: b"key", sequence: 1, kind: ValueKind::Put, value: b"value" })?;
/// let meta = writer.finish()?;
///
/// let mut bytes = std::fs::read(&path)?;
/// let check = |bytes: &[u8]| {
///     let mut check = CopyCheck::new(meta.id, meta.file_bytes, meta.checksum);
///     bytes.chunks(100).for_each(|chunk| check.update(chunk));
///     check.finish(&path)
/// };
/// assert!(check(&bytes).is_ok());
/// bytes[60] ^= 1;
/// assert!(check(&bytes).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CopyCheck {
    is_blobs: bool,
    id: TableId,
    file_bytes: u64,
    checksum: u64,
    /// Bytes so far.
    at: u64,
    /// Of everything before the footer.
    body: Checksum,
    footer: Vec<u8>,
}

impl CopyCheck {
    /// The table has this id, length of the file and [`TableMeta::checksum`].
    pub fn new(id: TableId, file_bytes: u64, checksum: u64) -> Self {
        let (body, footer) = (Checksum::new(), Vec::new());
        Self { is_blobs: false, id, file_bytes, checksum, at: 0, body, footer }
    }

    /// The same for a blob file; see [`BlobMeta`](crate::BlobMeta).
    pub fn of_blobs(id: TableId, file_bytes: u64, checksum: u64) -> Self {
        Self { is_blobs: true, ..Self::new(id, file_bytes, checksum) }
    }

    /// Takes in the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        let left = self.file_bytes.saturating_sub(FOOTER_BYTES as u64).saturating_sub(self.at);
        let in_body = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (body, footer) = bytes.split_at(in_body);
        self.body.update(body);
        let room = FOOTER_BYTES.saturating_sub(self.footer.len());
        self.footer.extend_from_slice(&footer[..footer.len().min(room)]);
        self.at = self.at.saturating_add(bytes.len() as u64);
    }

    /// Whether all bytes were those of the table. The error is about the file at `path`.
    pub fn finish(self, path: &Path) -> Result<()> {
        let Self { is_blobs, id, file_bytes, checksum, at, body, footer } = self;
        if at != file_bytes || file_bytes < (FILE_HEADER_BYTES + FOOTER_BYTES) as u64 {
            let detail = format!("file has {at} bytes, table {id} has {file_bytes}");
            return Err(Error::corruption(path, at.min(file_bytes), detail));
        }
        if body.value() != checksum {
            let found = body.value();
            let detail =
                format!("the bytes have checksum {found:#018x}, those of table {id} have {checksum:#018x}");
            return Err(Error::corruption(path, 0, detail));
        }
        let short = || Error::corruption(path, at, "the footer is not whole");
        let footer = footer.first_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
        let found = if is_blobs {
            blob_body_checksum(footer, id, file_bytes, path)?
        } else {
            Footer::decode(footer, id, file_bytes, path)?.body_checksum
        };
        if found != checksum {
            let detail = format!("footer has checksum {found:#018x}, expected {checksum:#018x}");
            return Err(Error::corruption(path, file_bytes - FOOTER_BYTES as u64, detail));
        }
        Ok(())
    }
}

impl From<&TableMeta> for CopyCheck {
    fn from(meta: &TableMeta) -> Self {
        Self::new(meta.id, meta.file_bytes, meta.checksum)
    }
}
