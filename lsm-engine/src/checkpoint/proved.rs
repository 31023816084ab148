//! Bytes that are compared with a checksum while they pass by.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::checksum::Checksum;
use lsm_core::vfs::{Access, Vfs, VfsFile};
use lsm_sstable::CopyCheck;

use crate::error::{Error, Result};

/// What bytes must be.
pub(crate) enum Check {
    /// Those of a table.
    Table(CopyCheck),
    /// So many bytes with this CRC-64.
    Whole { bytes: u64, checksum: u64, at: u64, found: Checksum },
    /// So many bytes, whose CRC-64 is to be found.
    Length { bytes: u64, at: u64, found: Checksum },
}

impl Check {
    fn update(&mut self, passed: &[u8]) {
        match self {
            Self::Table(check) => check.update(passed),
            Self::Whole { at, found, .. } | Self::Length { at, found, .. } => {
                *at += passed.len() as u64;
                found.update(passed);
            }
        }
    }

    /// Whether all bytes have passed, and what they had to be. Returns their checksum if it was to be found.
    fn finish(self, path: &Path) -> Result<u64> {
        match self {
            Self::Table(check) => Ok(check.finish(path).map(|()| 0)?),
            Self::Whole { bytes, at, .. } | Self::Length { bytes, at, .. } if at != bytes => {
                Err(Error::corruption(path, at.min(bytes), format!("it has {at} bytes instead of {bytes}")))
            }
            Self::Whole { checksum, found, .. } if found.value() != checksum => {
                let found = found.value();
                let detail = format!("its bytes have checksum {found:#018x} instead of {checksum:#018x}");
                Err(Error::corruption(path, 0, detail))
            }
            Self::Whole { found, .. } | Self::Length { found, .. } => Ok(found.value()),
        }
    }
}

/// What is called with the number of bytes that have passed.
pub(crate) type OnBytes<'p> = &'p mut dyn FnMut(u64) -> Result<()>;

/// Reads from front to back. Its end comes only if all bytes were those that they should be: a reader of damaged bytes
/// fails instead.
pub(crate) struct Proved<'p, R> {
    content: R,
    path: PathBuf,
    /// `None` after the end was proved.
    check: Option<Check>,
    on_bytes: OnBytes<'p>,
    checksum: u64,
    failure: Option<Error>,
}

impl<'p, R: Read> Proved<'p, R> {
    /// Errors name `path`.
    pub(crate) fn new(content: R, path: PathBuf, check: Check, on_bytes: OnBytes<'p>) -> Self {
        Self { content, path, check: Some(check), on_bytes, checksum: 0, failure: None }
    }

    /// Reads some bytes; 0 at the end.
    pub(crate) fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        self.try_next(buffer).inspect_err(|error| self.failure = Some(error.clone()))
    }

    fn try_next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = loop {
            match self.content.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path, error)),
                Ok(count) => break count,
            }
        };
        if count > 0 {
            if let Some(check) = &mut self.check {
                check.update(&buffer[..count]);
            }
            (self.on_bytes)(count as u64)?;
        } else if let Some(check) = self.check.take() {
            self.checksum = check.finish(&self.path)?;
        }
        Ok(count)
    }

    /// Why it failed. The error of [`Read`] says less.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.clone()
    }

    /// The CRC-64 of all bytes; 0 for a table, and before the end.
    pub(crate) fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Whether the end was reached, and all bytes were right.
    pub(crate) fn is_at_end(&self) -> bool {
        self.check.is_none() && self.failure.is_none()
    }
}

impl<R: Read> Read for Proved<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Reads a file from front to back.
pub(crate) struct FileReader {
    file: Arc<dyn VfsFile>,
    at: u64,
}

impl FileReader {
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path) -> Result<Self> {
        let file = vfs.open_read(path).map_err(|error| Error::io("open", path, error))?;
        file.advise(Access::Sequential);
        Ok(Self { file, at: 0 })
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
