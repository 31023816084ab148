//! The objects of a store.
//!
//! ```text
//! name                                        object
//! database                                    whose backups these are
//! generation-N                                what a backup consists of; N in ten digits, from 1
//! table-ID-CHECKSUM                           a table file: its id in 32 and its checksum in 16 hex digits
//! blobs-ID-CHECKSUM                           a blob file, likewise
//! log-ID                                      a segment of a log; 32 random hex digits
//!
//! database   := head id:u128 crc
//! generation := head number:u64 database:u128 created:u64 sequence:u64 salt:u64 new_bytes:u64 log
//!               count:u64 of_log*count edit crc
//! head       := magic:[8] version:u32 kind:u32    "lsm-bkup", 1, and 1 for a generation, 2 for `database`
//! log        := id:u128 bytes:u64 checksum:u64 end:u64 length:u64 chain:u64
//! of_log     := kind:u8 number:u64 id:u128 bytes:u64 checksum:u64          1 a table, 2 a blob file
//! edit       := a version edit with the whole state, up to the crc
//! crc        := u64                               CRC-64 of everything before
//! ```
//!
//! Integers are little-endian. `created` is the time in microseconds since 1970, `sequence` the last write in the backup,
//! `salt` random, `new_bytes` what was stored for this backup and not shared with earlier ones. The log has segment
//! number 1; `checksum` is the CRC-64 of its `bytes` bytes; `end`, `length` and `chain` say how it was closed, as `CURRENT`
//! does. The edit names the tables and blob files, with id, length and checksum; `of_log` are those that only records of the
//! log name.

use std::path::Path;

use lsm_core::checksum::crc64;
use lsm_core::coding::Decoder;
use lsm_sstable::TableId;
use lsm_wal::{CleanClose, Position};

use crate::error::{Error, Result};
use crate::version::edit::VersionEdit;
use crate::version::manifest::ManifestState;
use crate::version::{LiveFile, LiveKind, files};

const MAGIC: [u8; 8] = *b"lsm-bkup";
const VERSION: u32 = 1;
const GENERATION: u32 = 1;
const DATABASE: u32 = 2;
/// Kinds of files.
const TABLE: u8 = 1;
const BLOBS: u8 = 2;
const HEAD_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;
/// Bytes of a generation between its head and the files that only its log names.
const FIELDS_BYTES: usize = 2 * 16 + 11 * 8;
const OF_LOG_BYTES: usize = 1 + 16 + 3 * 8;

/// Name of the object that says whose backups these are.
pub(super) const DATABASE_NAME: &str = "database";
const GENERATION_PREFIX: &str = "generation-";
const TABLE_PREFIX: &str = "table-";
const BLOBS_PREFIX: &str = "blobs-";
const LOG_PREFIX: &str = "log-";
/// Generations have lower numbers.
const NUMBER_END: u64 = 10_000_000_000;

/// The log of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredLog {
    pub(super) id: u128,
    pub(super) bytes: u64,
    pub(super) checksum: u64,
    /// How it was closed.
    pub(super) closed: CleanClose,
}

impl StoredLog {
    pub(super) fn name(&self) -> String {
        log_name(self.id)
    }
}

/// What a generation consists of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Contents {
    pub(super) number: u64,
    pub(super) created_micros: u64,
    pub(super) sequence: u64,
    pub(super) salt: u64,
    pub(super) new_bytes: u64,
    pub(super) log: StoredLog,
    /// Tables and blob files that only the log names.
    pub(super) of_log: Vec<LiveFile>,
    pub(super) state: ManifestState,
}

pub(super) fn log_name(id: u128) -> String {
    format!("{LOG_PREFIX}{id:032x}")
}

pub(super) fn file_name(file: &LiveFile) -> String {
    let prefix = match file.kind {
        LiveKind::Table => TABLE_PREFIX,
        LiveKind::Blobs => BLOBS_PREFIX,
    };
    format!("{prefix}{:032x}-{:016x}", file.id.0, file.checksum)
}

pub(super) fn generation_name(number: u64) -> String {
    format!("{GENERATION_PREFIX}{number:010}")
}

/// The number of a generation, from the name of its object.
pub(super) fn generation_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(GENERATION_PREFIX)?.parse().ok()?;
    (number > 0 && number < NUMBER_END && generation_name(number) == name).then_some(number)
}

/// Whether an object belongs to generations, so that it can be deleted when none names it.
pub(super) fn is_of_generations(name: &str) -> bool {
    [TABLE_PREFIX, BLOBS_PREFIX, LOG_PREFIX].iter().any(|prefix| name.starts_with(prefix))
}

/// The number after this one.
pub(super) fn next_number(number: u64) -> Result<u64> {
    let next = number + 1;
    if next < NUMBER_END { Ok(next) } else { Err(Error::invalid("all numbers of backups are used up")) }
}

/// The content of the object `database`.
pub(super) fn encode_database(id: u128) -> Vec<u8> {
    let mut out = head(DATABASE);
    out.extend_from_slice(&id.to_le_bytes());
    with_checksum(out)
}

/// Which database the object `database` is about.
pub(super) fn decode_database(bytes: &[u8], path: &Path) -> Result<u128> {
    let body = checked(bytes, DATABASE, path)?;
    let id = <[u8; 16]>::try_from(body).map(u128::from_le_bytes);
    id.map_err(|_| Error::corruption(path, 16, "it has another length than such an object has"))
}

fn head(kind: u32) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out
}

fn with_checksum(mut out: Vec<u8>) -> Vec<u8> {
    let checksum = crc64(0, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// What stands between head and checksum of an object of this kind.
fn checked<'b>(bytes: &'b [u8], kind: u32, path: &Path) -> Result<&'b [u8]> {
    let corrupt = |offset: usize, detail: &str| Error::corruption(path, offset as u64, detail);
    let mut decoder = Decoder::new(bytes);
    if decoder.take(MAGIC.len()) != Some(&MAGIC) {
        return Err(corrupt(0, "this is no object of a backup: the magic number is missing"));
    }
    let version = decoder.u32().ok_or_else(|| corrupt(8, "it is too short"))?;
    if version != VERSION {
        let path = std::sync::Arc::new(path.to_owned());
        return Err(Error::Storage(lsm_core::Error::UnsupportedVersion {
            path,
            found: version,
            supported: VERSION,
        }));
    }
    let end = bytes.len().saturating_sub(CHECKSUM_BYTES);
    let (covered, checksum) = bytes.split_at_checked(end).ok_or_else(|| corrupt(0, "it is too short"))?;
    if checksum != crc64(0, covered).to_le_bytes() {
        return Err(corrupt(end, "the checksum does not match"));
    }
    match covered.get(HEAD_BYTES..) {
        Some(body) if decoder.u32() == Some(kind) => Ok(body),
        _ => Err(corrupt(12, "it is of another kind than its name says")),
    }
}

impl Contents {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { number, created_micros, sequence, salt, new_bytes, log, of_log, state } = self;
        let mut out = head(GENERATION);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&state.database_id.to_le_bytes());
        for value in [created_micros, sequence, salt, new_bytes] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&log.id.to_le_bytes());
        let CleanClose { end, length, checksum, .. } = log.closed;
        for value in [log.bytes, log.checksum, end.0, length, checksum] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&(of_log.len() as u64).to_le_bytes());
        for file in of_log {
            out.push(match file.kind {
                LiveKind::Table => TABLE,
                LiveKind::Blobs => BLOBS,
            });
            out.extend_from_slice(&file.number.to_le_bytes());
            out.extend_from_slice(&file.id.0.to_le_bytes());
            out.extend_from_slice(&file.bytes.to_le_bytes());
            out.extend_from_slice(&file.checksum.to_le_bytes());
        }
        out.extend_from_slice(&state.to_edit().encode());
        with_checksum(out)
    }

    pub(super) fn decode(bytes: &[u8], number: u64, path: &Path) -> Result<Self> {
        let body = checked(bytes, GENERATION, path)?;
        let corrupt = |detail: String| Error::corruption(path, HEAD_BYTES as u64, detail);
        let mut decoder = Decoder::new(body);
        let (contents, database) =
            Self::decode_fields(&mut decoder).ok_or_else(|| corrupt("it is malformed".into()))?;
        let edit_offset = (FIELDS_BYTES + contents.of_log.len() * OF_LOG_BYTES).min(body.len());
        let edit = body.get(edit_offset..).unwrap_or_default();
        if contents.number != number {
            return Err(corrupt(format!("it is generation {} under the name of another", contents.number)));
        }
        let edit =
            VersionEdit::decode(edit).map_err(|error| error.at(path, (HEAD_BYTES + edit_offset) as u64))?;
        let mut state = ManifestState::default();
        state.apply(&edit).map_err(corrupt)?;
        if state.database_id != database || !state.keyspaces.contains_key(&0) {
            return Err(corrupt("its state is of another database, or lacks the default keyspace".into()));
        }
        Ok(Self { state, ..contents })
    }

    /// The contents without the state, and the id of the database.
    fn decode_fields(decoder: &mut Decoder<'_>) -> Option<(Self, u128)> {
        let (number, database) = (decoder.u64()?, decoder.u128()?);
        let (created_micros, sequence) = (decoder.u64()?, decoder.u64()?);
        let (salt, new_bytes) = (decoder.u64()?, decoder.u64()?);
        let id = decoder.u128()?;
        let (bytes, checksum) = (decoder.u64()?, decoder.u64()?);
        let (end, length, chain) = (Position(decoder.u64()?), decoder.u64()?, decoder.u64()?);
        let closed = CleanClose { end, segment: crate::checkpoint::SEGMENT, length, checksum: chain };
        let log = StoredLog { id, bytes, checksum, closed };
        let mut of_log = Vec::new();
        for _ in 0..decoder.u64()? {
            // Ends with the input.
            let kind = match decoder.u8()? {
                TABLE => LiveKind::Table,
                BLOBS => LiveKind::Blobs,
                _ => return None,
            };
            let number = decoder.u64().filter(|&number| number < files::NUMBER_END)?;
            let (id, bytes, checksum) = (TableId(decoder.u128()?), decoder.u64()?, decoder.u64()?);
            of_log.push(LiveFile { kind, number, id, bytes, checksum });
        }
        let state = ManifestState::default();
        let contents = Self { number, created_micros, sequence, salt, new_bytes, log, of_log, state };
        Some((contents, database))
    }

    /// The files of the database, apart from its log.
    pub(super) fn files(&self) -> Vec<LiveFile> {
        [&self.state.live_files()[..], &self.of_log].concat()
    }

    /// The objects that it needs, with their lengths.
    pub(super) fn objects(&self) -> Vec<(String, u64)> {
        let tables = self.files();
        let tables = tables.iter().map(|file| (file_name(file), file.bytes));
        tables.chain([(self.log.name(), self.log.bytes)]).collect()
    }
}
