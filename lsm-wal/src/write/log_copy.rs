//! A log of one segment that is complete: a copy of a part of another log.

use crate::files::directory::LogFile;
use crate::format::record::{self, Boundary, RecordHeader, RecordType};
use crate::format::segment::{self, SegmentHeader};
use crate::log::{CleanClose, Position};
use lsm_core::Result;

/// The bytes of a log that is complete when it is written: one segment, closed, without a window. It goes wherever its
/// owner writes it: to a file of the name [`file_name`](Self::file_name), or elsewhere for a while.
///
/// Records that follow each other in one log have the same positions in its copy, if the copy starts where the first of
/// them does.
///
/// ```
/// # use std::sync::Arc;
/// use lsm_core::vfs::{PosixFs, Vfs, VfsFile};
/// use lsm_wal::{LogCopy, LogExpectation, Position, RecoveryMode, WalReader};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let mut copy = LogCopy::begin(1, Position(512), 0x5eed_5eed_5eed, 0x1234_5678);
/// copy.append(7, b"hello")?;
/// let closed = copy.finish()?;
/// let file = PosixFs.create_new(&directory.join(copy.file_name()))?;
/// file.write_at(&copy.take(), 0)?;
///
/// let expected = LogExpectation { from: Position(512), clean: Some(closed), ..LogExpectation::default() };
/// let mut reader = WalReader::open(Arc::new(PosixFs), directory, &expected, RecoveryMode::Strict)?;
/// assert_eq!(reader.next()?.expect("one record").payload, b"hello");
/// assert!(reader.next()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LogCopy {
    number: u64,
    start: u64,
    end: Boundary,
    record_seed: u32,
    /// What was not taken yet.
    bytes: Vec<u8>,
}

impl LogCopy {
    /// Begins segment `number` of a log at the position `start`. `seed` and `record_seed` are random numbers that nobody
    /// can guess, so that no payload can hold what passes for a record.
    pub fn begin(number: u64, start: Position, seed: u64, record_seed: u32) -> Self {
        let record_seed = record_seed.max(1);
        let Position(start) = start;
        let header =
            SegmentHeader { number, start, seed, synced: start, record_seed, ..SegmentHeader::default() };
        let end = Boundary { position: start, checksum: seed };
        Self { number, start, end, record_seed, bytes: header.encode().to_vec() }
    }

    /// The name of the file that holds it.
    pub fn file_name(&self) -> String {
        LogFile::Segment(self.number).name()
    }

    /// Bytes of the whole file, if the log starts and ends at these positions.
    pub fn file_bytes(start: Position, end: Position) -> u64 {
        segment::HEADER_BYTES as u64 + end.0.saturating_sub(start.0) + record::record_bytes(0)
    }

    /// Appends one record of at most 4 GiB - 1 bytes.
    pub fn append(&mut self, tag: u64, payload: &[u8]) -> Result<()> {
        let length = record::payload_length(payload, self.end.position)?;
        self.push(RecordType::Data, length, tag, payload);
        Ok(())
    }

    /// Ends the log. Nothing is appended afterwards.
    pub fn finish(&mut self) -> Result<CleanClose> {
        let Boundary { position, checksum } = self.end;
        let length = segment::HEADER_BYTES as u64 + position - self.start;
        let closed = CleanClose { end: Position(position), segment: self.number, length, checksum };
        let none = record::payload_length(&[], position)?;
        self.push(RecordType::Close, none, 0, &[]);
        Ok(closed)
    }

    /// The bytes that have come since the last call, and go behind those.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// How many bytes wait to be taken.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn push(&mut self, kind: RecordType, length: u32, tag: u64, payload: &[u8]) {
        let Boundary { position, checksum } = self.end;
        let synced = if kind == RecordType::Close { position } else { self.start };
        let header = RecordHeader { length, position, kind, tag, synced };
        let checksum = record::encode(&mut self.bytes, &header, payload, checksum, self.record_seed);
        self.end = Boundary { position: header.end(), checksum };
    }
}
