//! Making a backup.

use std::collections::BTreeMap;
use std::io::{self, Read};

use lsm_core::checksum::Checksum;
use lsm_core::vfs::LockMode;

use super::backup::{Backup, Generation};
use super::format::{self, Contents, DATABASE_NAME, StoredLog};
use super::objects::numbers;
use super::store::Put;
use crate::checkpoint::{COPY_BYTES, Check, CheckpointOptions, FileReader, Frozen, Proved, freeze};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::version::manifest::ManifestState;

/// Bytes of the log that are rather stored than flushed first.
const FLUSH_ABOVE_BYTES: u64 = 1 << 20;

impl Backup {
    /// Makes a backup of a database, with all writes that have returned by now. Writes go on meanwhile; the files that the
    /// backup needs stay on the disk until it is stored. Works on a database that was opened read-only, too.
    ///
    /// Fails with [`ErrorKind::Foreign`](crate::ErrorKind::Foreign) if the store has backups of another database, and
    /// with [`ErrorKind::Corruption`](crate::ErrorKind::Corruption) if a file of the database is damaged: damage is not
    /// copied.
    pub fn create(&self, db: &Db) -> Result<Generation> {
        self.create_with(db, &CheckpointOptions::new().flush_above(FLUSH_ABOVE_BYTES))
    }

    /// Like [`create`](Self::create), with these options. Without them a database that is open for writing is flushed first
    /// if more than 1 MiB of its log is not in tables: the log is stored anew for each backup, tables are shared.
    pub fn create_with(&self, db: &Db, options: &CheckpointOptions) -> Result<Generation> {
        let _lock = self.objects.lock(LockMode::Shared)?;
        let resources = &db.database.resources;
        let mut frozen = freeze(&db.database, options)?;
        self.claim(db, frozen.database_id())?;
        let stored: BTreeMap<String, u64> =
            self.objects.list()?.into_iter().map(|object| (object.name, object.bytes)).collect();
        let files = frozen.files();
        let new = files.iter().filter(|file| stored.get(&format::file_name(file)) != Some(&file.bytes));
        let new_bytes = frozen.log_bytes() + new.clone().map(|file| file.bytes).sum::<u64>();
        let mut meter = self.meter(new_bytes);
        let mut on_bytes = |bytes| meter.add(bytes);
        let id = ManifestState::random_id(&*resources.env);
        let (bytes, checksum) = (frozen.log_bytes(), self.put_log(&mut frozen, id, &mut on_bytes)?);
        for file in new {
            let name = format::file_name(file);
            if let Some(&found) = stored.get(&name) {
                let detail = format!(
                    "it has {found} bytes instead of {}: delete it, and the next backup stores it again",
                    file.bytes
                );
                return Err(Error::corruption(&self.objects.path(&name), found.min(file.bytes), detail));
            }
            let path = file.path(&resources.directory);
            let content = FileReader::open(&*resources.vfs, &path)?;
            let content = Proved::new(content, path, Check::Table(file.check()), &mut on_bytes);
            self.put(&name, file.bytes, content)?;
        }
        let (sequence, of_log) = (frozen.sequence, frozen.of_log().to_vec());
        let (state, closed) = frozen.into_copy()?;
        let mut contents = Contents {
            number: numbers(&self.objects.list()?).last().copied().unwrap_or(0),
            created_micros: resources.env.unix_micros(),
            sequence,
            salt: resources.env.random(),
            new_bytes,
            log: StoredLog { id, bytes, checksum, closed },
            of_log,
            state,
        };
        // Others may make backups at the same time. Each gets a number of its own.
        loop {
            contents.number = format::next_number(contents.number)?;
            let name = format::generation_name(contents.number);
            if self.objects.store_short(&name, &contents.encode())? {
                return Ok(Generation::of(&contents));
            }
        }
    }

    /// Makes the store one of this database. Fails if it is one of another.
    fn claim(&self, db: &Db, id: u128) -> Result<()> {
        if id == 0 {
            return Err(Error::invalid(format!(
                "the database in {} was made by an older build and has no id yet: open it for writing once",
                db.path().display()
            )));
        }
        let owner = match self.objects.database()? {
            None if self.objects.store_short(DATABASE_NAME, &format::encode_database(id))? => id,
            None => self.objects.database()?.unwrap_or(0),
            Some(owner) => owner,
        };
        if owner == id {
            return Ok(());
        }
        Err(Error::foreign(format!(
            "{} holds backups of database {owner:032x}, but {} is database {id:032x}: use another store",
            self.objects.store.location(),
            db.path().display()
        )))
    }

    /// Stores the log of a copy. Returns its checksum.
    fn put_log(
        &self,
        frozen: &mut Frozen,
        id: u128,
        on_bytes: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<u64> {
        let bytes = frozen.log_bytes();
        let content = LogReader { frozen, piece: Vec::new(), used: 0 };
        let check = Check::Length { bytes, at: 0, found: Checksum::new() };
        let name = format::log_name(id);
        let content = Proved::new(content, self.objects.path(&name), check, on_bytes);
        self.put(&name, bytes, content)
    }

    /// Stores an object whose name says what it holds, unless it is there. Returns its checksum, if that was to be found.
    fn put<R: Read>(&self, name: &str, bytes: u64, mut content: Proved<'_, R>) -> Result<u64> {
        let put = self.objects.store.put_if_absent(name, bytes, &mut content);
        let path = self.objects.path(name);
        if let Some(failure) = content.failure() {
            return Err(failure);
        }
        match put {
            Ok(Put::Stored) if content.is_at_end() => Ok(content.checksum()),
            // Another backup has stored it, or this one before the store repeated the call.
            Ok(Put::AlreadyThere) => {
                let mut buffer = vec![0; COPY_BYTES];
                while content.next(&mut buffer)? > 0 {}
                Ok(content.checksum())
            }
            Ok(Put::Stored) => {
                Err(Error::io("store", &path, io::Error::other("the store did not read it to its end")))
            }
            Err(error) => Err(Error::io("store", &path, error)),
        }
    }
}

/// Reads the log of a copy.
struct LogReader<'f> {
    frozen: &'f mut Frozen,
    piece: Vec<u8>,
    used: usize,
}

impl Read for LogReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() {
            let next = self.frozen.next_log_bytes().map_err(|error| io::Error::other(error.to_string()))?;
            (self.piece, self.used) = (next.unwrap_or_default(), 0);
        }
        let rest = self.piece.get(self.used..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        Ok(count)
    }
}
