//! Reading and writing objects of a store, with errors that name them.

use std::io::{self, ErrorKind as Io, Read};
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::vfs::{LockGuard, LockMode};

use super::format::{self, Contents, DATABASE_NAME};
use super::store::{BackupStore, Put, StoredObject};
use crate::error::{Error, Result};

/// Bytes that are read at a time.
pub(super) const GET_BYTES: usize = 4 << 20;
/// Longest object that is read into memory: that of a generation with millions of tables.
const WHOLE_BYTES_MAX: u64 = 1 << 30;

/// A store, whose errors name the object that they are about.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) store: Arc<dyn BackupStore>,
}

impl Objects {
    /// The place of an object, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}/{name}", self.store.location()))
    }

    pub(super) fn lock(&self, mode: LockMode) -> Result<Box<dyn LockGuard>> {
        let location = PathBuf::from(self.store.location());
        self.store.lock(mode).map_err(|error| match error.kind() {
            Io::WouldBlock => Error::StoreBusy(Arc::new(location)),
            _ => Error::io("lock the store", &location, error),
        })
    }

    pub(super) fn list(&self) -> Result<Vec<StoredObject>> {
        let location = PathBuf::from(self.store.location());
        self.store.list().map_err(|error| Error::io("list the store", &location, error))
    }

    pub(super) fn delete(&self, names: &[String]) -> Result<()> {
        let first = names.first().map_or("", String::as_str);
        self.store.delete(names).map_err(|error| Error::io("delete", &self.path(first), error))
    }

    pub(super) fn clean_up(&self) -> Result<()> {
        let location = PathBuf::from(self.store.location());
        self.store.clean_up().map_err(|error| Error::io("clean up", &location, error))
    }

    /// Reads a short object; `None` if it is not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        loop {
            let at = bytes.len() as u64;
            let piece = match self.store.get(name, at..at + GET_BYTES as u64) {
                Err(error) if error.kind() == Io::NotFound => return Ok(None),
                piece => piece.map_err(|error| Error::io("read", &self.path(name), error))?,
            };
            bytes.extend_from_slice(&piece);
            if piece.len() < GET_BYTES {
                return Ok(Some(bytes));
            }
            if bytes.len() as u64 > WHOLE_BYTES_MAX {
                return Err(Error::corruption(&self.path(name), at, "it is longer than any such object"));
            }
        }
    }

    /// Stores a short object, if its name is free. Returns whether the store has it: if not, there is another of that
    /// name. An error does not tell what the store has, so it is asked.
    pub(super) fn store_short(&self, name: &str, content: &[u8]) -> Result<bool> {
        let put = self.store.put_if_absent(name, content.len() as u64, &mut &*content);
        match put {
            Ok(Put::Stored) => Ok(true),
            Ok(Put::AlreadyThere) => Ok(self.read(name)?.is_some_and(|found| found == content)),
            Err(error) => match self.read(name) {
                Ok(Some(found)) if found == content => Ok(true),
                _ => Err(Error::io("store", &self.path(name), error)),
            },
        }
    }

    /// Whose backups these are; `None` if the store is new.
    pub(super) fn database(&self) -> Result<Option<u128>> {
        let Some(bytes) = self.read(DATABASE_NAME)? else { return Ok(None) };
        format::decode_database(&bytes, &self.path(DATABASE_NAME)).map(Some)
    }

    /// Reads a generation.
    pub(super) fn generation(&self, number: u64) -> Result<Contents> {
        let name = format::generation_name(number);
        let bytes = self.read(&name)?.ok_or_else(|| {
            let error = io::Error::new(Io::NotFound, format!("there is no backup of number {number}"));
            Error::io("read", &self.path(&name), error)
        })?;
        Contents::decode(&bytes, number, &self.path(&name))
    }

    /// Reads an object from front to back.
    pub(super) fn reader(&self, name: &str) -> ObjectReader<'_> {
        ObjectReader {
            objects: self,
            name: name.to_owned(),
            at: 0,
            piece: Vec::new(),
            used: 0,
            is_last: false,
        }
    }
}

/// The numbers of the generations among some objects, ascending.
pub(super) fn numbers(objects: &[StoredObject]) -> Vec<u64> {
    let mut numbers: Vec<u64> =
        objects.iter().filter_map(|object| format::generation_number(&object.name)).collect();
    numbers.sort_unstable();
    numbers
}

/// Reads an object from front to back, in pieces.
pub(super) struct ObjectReader<'o> {
    objects: &'o Objects,
    name: String,
    at: u64,
    piece: Vec<u8>,
    used: usize,
    is_last: bool,
}

impl Read for ObjectReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() && !self.is_last {
            let range = self.at..self.at + GET_BYTES as u64;
            self.piece = self.objects.store.get(&self.name, range)?;
            self.is_last = self.piece.len() < GET_BYTES;
            self.at += self.piece.len() as u64;
            self.used = 0;
        }
        let rest = self.piece.get(self.used..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        Ok(count)
    }
}
