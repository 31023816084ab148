//! Checks every byte of a log's files, those too that a reader has no need of.
//!
//! Records stand in a segment and in the window, and a reader is content with one sound copy. What each byte may be:
//!
//! - **A segment that is read**: its header has a checksum, its records are the log. A record that the reader took from
//!   the window was not drained, or a power cut took the drained copy: each 512-byte sector of its place in the segment
//!   then is a beginning of what belongs there, and zeros, and nothing that is known to be synced may be missing.
//! - **Behind its last record**: zeros; or records that were given up, sound and chained, the closing one among them;
//!   or a torn end. A single bit set among zeros is damage.
//! - **A segment without a header**: zeros, the spare; or records whose header a power cut took, all of it or a part.
//! - **The window before its area**: the header has a checksum, so have the slots, of which one may be in the middle
//!   of a change: then its check is zero, and its base where a record begins or ends, or behind the log, where a power cut
//!   may have taken the record. The rest is zero.
//! - **The window's area**: the log's records from the base on; behind them what the generation before left, and so on:
//!   [`generations`] works out which record ought to stand where. The window is never synced. After a power cut each sector
//!   of it may be in any state that it ever was in, so a difference counts as damage only if it is a single bit, and no
//!   earlier generation explains it. Generations older than the log that is read are checked record by record, where a sound
//!   record leads to the next; fragments of such are the only bytes that cannot be checked.

mod accepted_log;
mod check;
mod generations;
mod log_bytes;
mod report;
mod segments;
mod window;

use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_core::{Error, Result};

use self::accepted_log::{AcceptedLog, AcceptedSegment};
use self::check::Check;
pub use self::report::{Extent, VerifiedFile, VerifyReport};
use crate::files::directory::LogFile;
use crate::files::record_reader::Record;
use crate::files::window_file::WindowFile;
use crate::format::segment::SegmentHeader;
use crate::log::Position;
use crate::read::segment_list::SegmentList;
use crate::read::wal_reader::WalReader;
use crate::report::{LogExpectation, RecoveryMode};

/// Checks every byte of a log's files and hands out its records, reading each file a few times. Changes nothing.
///
/// A log that is being written meanwhile may seem damaged where it changes; what is still there on a second call is.
///
/// ```
/// # use std::sync::Arc;
/// # use lsm_core::{env::ThreadEnv, vfs::{PosixFs, Vfs}};
/// # use lsm_wal::{Log, LogExpectation, Wal, WalOptions, verify};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let vfs: Arc<dyn Vfs> = Arc::new(PosixFs);
/// let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
/// let (mut log, _) = Wal::open(vfs.clone(), Arc::new(ThreadEnv::new(1)), directory, options)?;
/// log.append(7, b"hello")?;
/// let clean = Some(Box::new(log).close()?);
///
/// let expected = LogExpectation { clean, ..LogExpectation::default() };
/// let report = verify(&vfs, directory, &expected, &mut |record| assert_eq!(record.payload, b"hello"));
/// assert!(report.errors.is_empty() && report.records == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify(
    vfs: &Arc<dyn Vfs>,
    directory: &Path,
    expected: &LogExpectation,
    each: &mut dyn FnMut(&Record<'_>),
) -> VerifyReport {
    let mut verifier = Verifier { vfs, directory, report: VerifyReport::default() };
    let accepted = match verifier.read(expected, each) {
        Ok(accepted) => accepted,
        Err(error) => {
            verifier.report.errors.push(error);
            None
        }
    };
    if let Err(error) = verifier.check_files(accepted.as_ref(), expected.clean.is_some()) {
        verifier.add(error);
    }
    verifier.report
}

struct Verifier<'a> {
    vfs: &'a Arc<dyn Vfs>,
    directory: &'a Path,
    report: VerifyReport,
}

impl Verifier<'_> {
    /// Reads the log. `None` if there is none.
    fn read(
        &mut self,
        expected: &LogExpectation,
        each: &mut dyn FnMut(&Record<'_>),
    ) -> Result<Option<AcceptedLog>> {
        let from = expected.from;
        let mode = RecoveryMode::TolerateTornTail;
        let list = SegmentList::read(&**self.vfs, self.directory, mode)?;
        let first = list.first(from, mode)?;
        // All of the segment, also what need not be replayed.
        let start = first.and_then(|first| list.header(first)).map_or(from, |header| Position(header.start));
        let vfs = Arc::clone(self.vfs);
        let mut reader =
            WalReader::open(vfs, self.directory, &LogExpectation { from: start, ..*expected }, mode)?;
        let path = |header: &SegmentHeader| LogFile::Segment(header.number).path(self.directory);
        let parts: Vec<AcceptedSegment> =
            reader.read_segments().map(|header| AcceptedSegment::new(path(header), *header)).collect();
        let window = match parts.last() {
            Some(part) if part.header.window != 0 => {
                WindowFile::open(&**self.vfs, self.directory, part.header.window)?
            }
            _ => None,
        };
        let mut accepted = AcceptedLog::new(parts, window);
        let result = loop {
            match reader.next_located() {
                Ok(Some((record, located))) => {
                    if record.start >= from {
                        self.report.records += 1;
                        each(&record);
                    }
                    accepted.add(&record, located);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.report.recovery = reader.report().clone();
        result?;
        accepted.finish(&self.report.recovery);
        Ok((!accepted.parts.is_empty()).then_some(accepted))
    }

    fn check_files(&mut self, accepted: Option<&AcceptedLog>, clean: bool) -> Result<()> {
        let list = SegmentList::read(&**self.vfs, self.directory, RecoveryMode::Salvage)?;
        for &file in &list.files {
            let path = file.path(self.directory);
            let mut check = Check::new(path);
            let result = match file {
                LogFile::Segment(number) => {
                    let header = list.find(number).and_then(|index| list.header(index));
                    self.segment(&mut check, header, number, accepted, clean)
                }
                LogFile::Window(number) => self.window(&mut check, number, accepted),
                LogFile::Unfinished(_) => {
                    check.unused("left by a recovery that was cut short");
                    Ok(())
                }
            };
            let Check { file, errors } = check;
            for error in errors.into_iter().chain(result.err()) {
                self.add(error);
            }
            self.report.files.push(file);
        }
        Ok(())
    }

    /// Adds an error, unless the reader named it already.
    fn add(&mut self, error: Error) {
        if !self.report.errors.iter().any(|known| same_place(known, &error)) {
            self.report.errors.push(error);
        }
    }

    fn segment(
        &self,
        check: &mut Check,
        header: Option<&SegmentHeader>,
        number: u64,
        accepted: Option<&AcceptedLog>,
        clean: bool,
    ) -> Result<()> {
        let Some(header) = header else { return segments::check_headless(&**self.vfs, check, number) };
        let Some(accepted) = accepted else {
            check.file.what = "segment".into();
            check.file.extent = Extent::Part;
            return Ok(());
        };
        let Some(index) = accepted.parts.iter().position(|part| part.header.number == number) else {
            check.unused(match accepted.parts.first() {
                Some(first) if header.start < first.header.start => "before the records that are needed",
                _ => "not a part of the log",
            });
            return Ok(());
        };
        segments::check(&**self.vfs, check, accepted, index, clean)
    }

    fn window(&self, check: &mut Check, number: u64, accepted: Option<&AcceptedLog>) -> Result<()> {
        let named = accepted.and_then(|accepted| accepted.parts.last()).map(|part| part.header.window);
        // Where reading failed, it cannot be told.
        if named != Some(number) && (named.is_some() || self.report.errors.is_empty()) {
            check.unused("the window of no segment");
            return Ok(());
        }
        check.file.what = "window".into();
        window::check(&**self.vfs, check, self.directory, number, accepted)
    }
}

/// Two errors about the same byte, or about one file that was lost or is not readable.
fn same_place(one: &Error, other: &Error) -> bool {
    match (one, other) {
        (Error::Corruption { path, offset, .. }, Error::Corruption { path: its, offset: at, .. }) => {
            path == its && offset == at
        }
        (Error::Corruption { .. }, _) | (_, Error::Corruption { .. }) => false,
        _ => one.to_string() == other.to_string(),
    }
}
