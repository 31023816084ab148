//! Opening databases the way every command does, and what their errors mean to the shell.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_engine::inspect::{Kind, kind_of};
use lsm_engine::{Db, Error, ErrorKind, Follower, Keyspace, KeyspaceOptions, MEMORY_BYTES_DEFAULT, Options};

use crate::escape::{decode_hex, escaped, unescape};
use crate::exit::{Failure, Result};
use crate::warnings::warn;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        // What cannot be read by this build is not damaged, nor newer.
        if matches!(error, Error::NotADirectory(_) | Error::Storage(lsm_core::Error::Unsupported { .. })) {
            return Self::Io(message);
        }
        match error.kind() {
            ErrorKind::InvalidArgument
            | ErrorKind::OptionsMismatch
            | ErrorKind::RefusedTable
            | ErrorKind::NotAscending => Self::Usage(message),
            ErrorKind::Corruption | ErrorKind::Unsupported => Self::Corruption(message),
            _ => Self::Io(message),
        }
    }
}

/// Memory for each byte of the log, which stays in memory while a database is open for reading: less than half of it is
/// for memtables, where entries take more than in the log.
const MEMORY_PER_LOG_BYTE: usize = 4;

/// Opens an existing database without changing anything on disk.
pub(crate) fn open_for_reading(path: &Path) -> Result<Db> {
    open(options_for_reading(path), path)
}

fn options_for_reading(path: &Path) -> Options {
    let memory = log_bytes(path).saturating_mul(MEMORY_PER_LOG_BYTE).max(MEMORY_BYTES_DEFAULT);
    Options::new().memory(memory).read_only(true).create_if_missing(false)
}

/// Whether to read beside the process that writes the database.
#[derive(Args, Debug)]
pub(crate) struct FollowArg {
    /// Read while another process has the database open for writing
    ///
    /// Shows all that was written before the command began. Writes nothing but a lease, a small file that keeps the
    /// other process from removing what is being read, and that is gone at the end.
    #[arg(long)]
    follow: bool,
}

impl FollowArg {
    /// Opens an existing database. If it is followed, the handle holds the lease.
    pub(crate) fn open_for_reading(&self, path: &Path) -> Result<Db> {
        if !self.follow {
            return open_for_reading(path);
        }
        Ok(Follower::open_with(path, options_for_reading(path))?.db())
    }
}

/// Bytes of all files of the log; what cannot be read is reported by whoever opens the database.
fn log_bytes(path: &Path) -> usize {
    let is_log = |name: &str| kind_of(name) == Some(Kind::Log);
    let names = PosixFs.read_dir(path).unwrap_or_default().into_iter().filter(|name| is_log(name));
    let bytes = names.filter_map(|name| PosixFs.metadata(&path.join(name)).ok()).map(|file| file.len);
    usize::try_from(bytes.sum::<u64>()).unwrap_or(usize::MAX)
}

/// Opens an existing database for writing.
pub(crate) fn open_for_writing(path: &Path) -> Result<Db> {
    open(Options::new().create_if_missing(false), path)
}

/// Opens a database for writing, or makes one in a new or empty directory.
pub(crate) fn open_or_create(path: &Path, options: Options) -> Result<Db> {
    refuse_foreign_directory(path)?;
    open(options.create_if_missing(true), path)
}

/// Opens a database, and warns of writes at the end of its log that were lost.
fn open(options: Options, path: &Path) -> Result<Db> {
    let db = options.open(path)?;
    for dropped in &db.recovery().dropped {
        warn(format_args!("the log ends early, and the rest was left out: {dropped}"));
    }
    Ok(db)
}

/// A typing error must not put the files of a database into a home directory.
#[expect(
    clippy::disallowed_methods,
    reason = "looks before anything is opened, at files that are not the store's"
)]
fn refuse_foreign_directory(path: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(path) else { return Ok(()) }; // the engine says what is wrong
    let mut stranger = None;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == "CURRENT" {
            return Ok(());
        }
        if name.to_str().and_then(kind_of).is_none() {
            stranger = Some(name);
        }
    }
    match stranger {
        None => Ok(()),
        Some(name) => Err(Failure::Usage(format!(
            "{} holds no database, but other files, such as {}: give a new or an empty directory",
            path.display(),
            name.display()
        ))),
    }
}

/// Which keyspace a command works on.
#[derive(Args, Debug)]
pub(crate) struct KeyspaceArg {
    /// Work on this keyspace instead of the default one
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    keyspace: Option<String>,
}

impl KeyspaceArg {
    /// The keyspace, which must exist.
    pub(crate) fn existing(&self, db: &Db) -> Result<Keyspace> {
        let Some(name) = &self.keyspace else { return Ok(db.default_keyspace()) };
        db.existing_keyspace(name)?.ok_or_else(|| {
            Failure::NotFound(format!("there is no keyspace {name:?}; `lsm stats` lists them"))
        })
    }

    /// The keyspace, made if it does not exist.
    pub(crate) fn or_create(&self, db: &Db) -> Result<Keyspace> {
        let Some(name) = &self.keyspace else { return Ok(db.default_keyspace()) };
        Ok(db.keyspace(name, KeyspaceOptions::default())?)
    }
}

/// A key of a database, which must exist.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// Directory of the database
    pub(crate) db: PathBuf,
    /// The key
    key: OsString,
    #[command(flatten)]
    pub(crate) keyspace: KeyspaceArg,
    /// The key is given in hex digits
    #[arg(long)]
    hex: bool,
}

impl KeyArgs {
    /// The key that the argument stands for.
    pub(crate) fn key(&self) -> Result<Vec<u8>> {
        bytes_of_argument(&self.key, self.hex)
    }

    /// What to say of a key that is not there.
    pub(crate) fn not_found(key: &[u8]) -> Failure {
        Failure::NotFound(format!("there is no key \"{}\"", escaped(key)))
    }
}

/// The bytes that a key or value on the command line stands for: text with the escapes of `scan`, or hex digits.
pub(crate) fn bytes_of_argument(argument: &OsStr, hex: bool) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let text = argument.as_encoded_bytes();
    if hex { decode_hex(text, &mut bytes) } else { unescape(text, &mut bytes) }
        .map_err(|reason| Failure::Usage(format!("\"{}\": {reason}", text.escape_ascii())))?;
    Ok(bytes)
}
