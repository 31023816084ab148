use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::checksum::crc64;
use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Error, Result};

use crate::files::record_reader::{Found, Record, RecordArea, RecordReader};
use crate::format::record::{self, RecordHeader, RecordType};
use crate::format::segment::{self, HeaderState, SegmentHeader};
use crate::log::{CleanClose, Position};
use crate::read::damage;
use crate::report::{Dropped, RecoveryMode, RecoveryReport};

/// One file of records in the format of the log, without window, rotation or threads: what a manifest needs.
///
/// Positions count from 0 at the first record. Nothing is durable before [`sync`](Self::sync), and the file's
/// name not before its directory was synced by the caller. After a failure the file takes no more records: go
/// on in a new one.
///
/// ```
/// use lsm_core::vfs::PosixFs;
/// use lsm_wal::{RecordFile, RecordFileReader, RecoveryMode};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("MANIFEST-7");
/// let mut file = RecordFile::create(&PosixFs, &path, 7, 0x1234_5678)?;
/// let end = file.append(1, b"an edit")?;
/// file.sync()?;
///
/// let mut reader = RecordFileReader::open(&PosixFs, &path, end.0, RecoveryMode::default())?;
/// assert_eq!(reader.next()?.expect("one record").payload, b"an edit");
/// assert!(reader.next()?.is_none());
/// assert_eq!(reader.report().end, end);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RecordFile {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    number: u64,
    end: u64,
    synced: u64,
    chain: u64,
    record_seed: u32,
    scratch: Vec<u8>,
    failure: Option<Arc<Error>>,
}

impl RecordFile {
    /// Creates the file, which must not exist. `file_number` goes into its header, and so does `record_seed`: a number
    /// that nobody can guess, so that no payload can hold what passes for a record.
    pub fn create(vfs: &dyn Vfs, path: &Path, file_number: u64, record_seed: u32) -> Result<Self> {
        let file = vfs.create_new(path).map_err(|error| Error::io("create", path, error))?;
        let seed = crc64(0, &file_number.to_le_bytes());
        let header = SegmentHeader { number: file_number, seed, record_seed, ..SegmentHeader::default() };
        file.write_at(&header.encode(), 0).map_err(|error| Error::io("write", path, error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            number: file_number,
            end: 0,
            synced: 0,
            chain: seed,
            record_seed,
            scratch: Vec::new(),
            failure: None,
        })
    }

    /// Appends a record of at most 4 GiB - 1 bytes and returns the position of its end.
    pub fn append(&mut self, tag: u64, payload: &[u8]) -> Result<Position> {
        self.check()?;
        let length = record::payload_length(payload, self.end)?;
        let header =
            RecordHeader { length, position: self.end, kind: RecordType::Data, tag, synced: self.synced };
        self.scratch.clear();
        let checksum = record::encode(&mut self.scratch, &header, payload, self.chain, self.record_seed);
        let offset = segment::HEADER_BYTES as u64 + self.end;
        if let Err(error) = self.file.write_at(&self.scratch, offset) {
            return Err(self.fail("append to", error));
        }
        self.chain = checksum;
        self.end = header.end();
        Ok(Position(self.end))
    }

    /// After an append that failed: cuts off what it may have written, all of the record perhaps, and makes that
    /// durable. Until then a reader may find the record.
    pub fn take_back(&self) -> Result<()> {
        let cut = self.file.set_len(self.file_bytes()).map_err(|error| Error::io("cut", &self.path, error));
        cut.and_then(|()| self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error)))
    }

    /// Makes all records durable.
    pub fn sync(&mut self) -> Result<()> {
        self.check()?;
        if let Err(error) = self.file.sync_data() {
            return Err(self.fail("sync", error));
        }
        self.synced = self.end;
        Ok(())
    }

    /// Position of the end of the last record.
    pub fn end(&self) -> Position {
        Position(self.end)
    }

    /// Everything before this is durable, the file's name aside.
    pub fn synced(&self) -> Position {
        Position(self.synced)
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        segment::HEADER_BYTES as u64 + self.end
    }

    /// Where the file ends now, for a marker outside of it.
    pub fn clean_close(&self) -> CleanClose {
        CleanClose { end: self.end(), segment: self.number, length: self.file_bytes(), checksum: self.chain }
    }

    fn check(&self) -> Result<()> {
        match &self.failure {
            Some(cause) => Err(Error::Stopped { cause: Arc::clone(cause) }),
            None => Ok(()),
        }
    }

    fn fail(&mut self, operation: &'static str, error: std::io::Error) -> Error {
        let error = Error::io(operation, &self.path, error);
        self.failure = Some(Arc::new(error.clone()));
        error
    }
}

/// Reads what a [`RecordFile`] wrote, changing nothing.
pub struct RecordFileReader {
    reader: RecordReader,
    number: Option<u64>,
    mode: RecoveryMode,
    position: u64,
    chain: u64,
    claimed: u64,
    finished: bool,
    report: RecoveryReport,
}

impl RecordFileReader {
    /// Opens a file. `claimed_synced` is a position up to which the caller knows it to be durable, 0 if it
    /// knows nothing: what is missing below is corruption in every mode but [`RecoveryMode::Salvage`].
    pub fn open(vfs: &dyn Vfs, path: &Path, claimed_synced: u64, mode: RecoveryMode) -> Result<Self> {
        let file = vfs.open_read(path).map_err(|error| Error::io("open", path, error))?;
        let len = file.len().map_err(|error| Error::io("read the length of", path, error))?;
        let area = RecordArea { first_offset: segment::HEADER_BYTES as u64, ..RecordArea::default() };
        let mut reader = RecordReader::new(file, path.to_owned(), len, area);
        let header = match SegmentHeader::decode(reader.load(0, segment::HEADER_BYTES)?) {
            HeaderState::Valid(header) => Some(header),
            HeaderState::Undecodable(error) => return Err(error.at(path, segment::ENCRYPTION_OFFSET)),
            HeaderState::OtherVersion(found) => {
                return Err(Error::UnsupportedVersion {
                    path: Arc::new(path.to_owned()),
                    found,
                    supported: segment::VERSION,
                });
            }
            HeaderState::Flipped => {
                return Err(Error::corruption(path, 0, "one bit of the file's header was flipped"));
            }
            HeaderState::Empty | HeaderState::Garbage => None,
        };
        let seed = match header {
            Some(header) => Some(header.record_seed),
            None => reader.guess_seed()?,
        };
        reader.set_record_seed(seed);
        let mut reader = Self {
            reader,
            number: header.map(|header| header.number),
            mode,
            position: 0,
            chain: header.map_or(0, |header| header.seed),
            claimed: claimed_synced,
            finished: header.is_none(),
            report: RecoveryReport::default(),
        };
        if header.is_none() {
            reader.end_of_log(0)?;
        }
        Ok(reader)
    }

    /// The number that the file was created with; `None` if its header was lost before it was synced.
    pub fn file_number(&self) -> Option<u64> {
        self.number
    }

    /// The next record, borrowed until the next call; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "the record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        let found = loop {
            if self.finished {
                return Ok(None);
            }
            match self.reader.record_at(self.position, self.chain)? {
                Found::Record(found) => break found,
                Found::Nothing => {
                    self.finished = true;
                    let offset = self.reader.offset_of(self.position).unwrap_or(0);
                    self.end_of_log(offset)?;
                }
            }
        };
        self.position = found.header.end();
        self.chain = found.checksum;
        self.claimed = self.claimed.max(found.header.synced);
        self.report.records += 1;
        self.report.bytes += u64::from(found.header.length);
        self.report.last_tag = Some(found.header.tag);
        Ok(Some(self.reader.record(&found)))
    }

    /// Looks again behind the last record that was returned, in a file that somebody may be writing: whatever
    /// [`next`](Self::next) said last, its next call returns the record there, if there is one now. The
    /// [`report`](Self::report) begins anew.
    pub fn look_again(&mut self) -> Result<()> {
        self.reader.refresh()?;
        self.finished = self.number.is_none();
        self.report = RecoveryReport::default();
        Ok(())
    }

    /// Position of the end of the last record that was returned.
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// What was found, complete once [`next`](Self::next) returned `None`.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Decides what it means that no sound record stands at `offset`.
    fn end_of_log(&mut self, offset: u64) -> Result<()> {
        let Self { reader, position, chain, claimed, mode, .. } = self;
        let headless = offset < reader.first_offset();
        let seen = damage::scan_tail(reader, offset.max(reader.first_offset()), !headless)?;
        let corrupt = if let Some((synced, at)) = seen.claim.filter(|&(synced, _)| synced > *position) {
            *claimed = (*claimed).max(synced);
            Some((
                offset,
                format!("the record at offset {at} says that everything up to position {synced} was synced"),
            ))
        } else if *claimed > *position {
            Some((offset, format!("everything up to position {claimed} was synced")))
        } else if headless {
            None
        } else {
            damage::flipped_byte(reader, *position, *chain)?
                .map(|byte| (byte, "one bit of this byte was flipped".to_owned()))
        };
        let reason = match (&corrupt, headless) {
            (Some((_, reason)), _) => reason.as_str(),
            (None, true) => "the file's header was lost before it was synced",
            (None, false) => "the record there was not written completely",
        };
        let damaged = format!("no sound record at position {position}: {reason}");
        if *mode == RecoveryMode::Salvage {
            return self.salvage(offset, damaged, seen.nonzero_end);
        }
        if let Some((offset, _)) = corrupt {
            return Err(Error::corruption(reader.path(), offset, damaged));
        }
        if *mode == RecoveryMode::Strict && seen.nonzero_end > offset {
            return Err(Error::corruption(reader.path(), offset, damaged));
        }
        let bytes = seen.nonzero_end.saturating_sub(offset);
        self.drop_and_close(offset, bytes, damaged);
        Ok(())
    }

    fn salvage(&mut self, offset: u64, reason: String, nonzero_end: u64) -> Result<()> {
        let search = offset.max(self.reader.first_offset()) + 8;
        match damage::next_sound(&mut self.reader, search)? {
            Some((next, found)) => {
                self.report.drop_bytes(Dropped {
                    path: self.reader.path().to_owned(),
                    offset,
                    bytes: next - offset,
                    reason,
                });
                self.position = found.header.position;
                self.chain = found.chain_before;
                self.finished = false;
            }
            None => self.drop_and_close(offset, nonzero_end.saturating_sub(offset), reason),
        }
        Ok(())
    }

    fn drop_and_close(&mut self, offset: u64, bytes: u64, reason: String) {
        let path = self.reader.path().to_owned();
        self.report.drop_bytes(Dropped { path, offset, bytes, reason });
        self.report.end = Position(self.position);
        self.report.synced = Position(self.claimed.min(self.position));
        self.report.segment = self.number.unwrap_or(0);
        self.report.length = segment::HEADER_BYTES as u64 + self.position;
        self.report.checksum = self.chain;
    }
}
