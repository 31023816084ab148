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
//! - **The window's area**: the log's records from the base on; behind them what the round before left, and so on:
//!   [`rounds`] works out which record ought to stand where. The window is never synced. After a power cut each sector
//!   of it may be in any state that it ever was in, so a difference counts as damage only if it is a single bit, and no
//!   earlier round explains it. Rounds older than the log that is read are checked record by record, where a sound
//!   record leads to the next; fragments of such are the only bytes that cannot be checked.

mod area;
mod rounds;
mod segments;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_core::{Error, Result};

use crate::chain::Chain;
use crate::directory::LogFile;
use crate::log::{CleanClose, Position};
use crate::reader::WalReader;
use crate::report::{RecoveryMode, RecoveryReport};
use crate::segment::SegmentHeader;
use crate::source::Record;
use crate::window::{Slot, WindowFile};
use rounds::Rounds;
use stream::{Accepted, Part, Taken};

/// What is known of a log that [`verify`] checks, from a manifest for instance. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogExpectation {
    /// Records before this are not needed.
    pub from: Position,
    /// Everything before this was synced.
    pub synced: Position,
    /// Where the log ended, if it was closed.
    pub clean: Option<CleanClose>,
    /// A segment of this number or a later one is there; 0 if that is not known.
    pub begun: u64,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Records at or after the position to read from.
    pub records: u64,
    /// What reading the log found, as far as it came.
    pub recovery: RecoveryReport,
    /// The log's files, by number.
    pub files: Vec<VerifiedFile>,
    /// What is wrong: corruption, each with its file and offset, and files that could not be read.
    pub errors: Vec<Error>,
}

/// A file that [`verify`] looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifiedFile {
    /// Which file.
    pub path: PathBuf,
    /// What it is.
    pub what: String,
    /// How far it was checked.
    pub extent: Extent,
    /// What a crash or an earlier generation left in it, which is no damage.
    pub notes: Vec<String>,
}

/// How far [`verify`] could check a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// Every byte.
    Whole,
    /// What can be said without the log, which is damaged: records were not compared.
    Part,
    /// Not at all: it is left from earlier, and not part of the log.
    Nothing,
}

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
    ) -> Result<Option<Accepted>> {
        let &LogExpectation { from, synced, clean, begun } = expected;
        let mode = RecoveryMode::TolerateTornTail;
        let chain = Chain::read(&**self.vfs, self.directory, mode)?;
        let first = chain.first(from, mode)?;
        // All of the segment, also what need not be replayed.
        let start = first.and_then(|first| chain.header(first)).map_or(from, |header| Position(header.start));
        let vfs = Arc::clone(self.vfs);
        let mut reader = WalReader::open(vfs, self.directory, start, synced, mode, clean)?;
        if begun > 0 {
            reader.expect_begun(begun)?;
        }
        let path = |header: &SegmentHeader| LogFile::Segment(header.number).path(self.directory);
        let parts: Vec<Part> =
            reader.read_segments().map(|header| Part::new(path(header), *header)).collect();
        let window = match parts.last() {
            Some(part) if part.header.window != 0 => {
                WindowFile::open(&**self.vfs, self.directory, part.header.window)?
            }
            _ => None,
        };
        let mut accepted = Accepted::new(parts, window);
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

    fn check_files(&mut self, accepted: Option<&Accepted>, clean: bool) -> Result<()> {
        let chain = Chain::read(&**self.vfs, self.directory, RecoveryMode::Salvage)?;
        for &file in &chain.files {
            let path = file.path(self.directory);
            let mut check = Check::new(path);
            let result = match file {
                LogFile::Segment(number) => {
                    let header = chain.find(number).and_then(|index| chain.header(index));
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
        accepted: Option<&Accepted>,
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

    fn window(&self, check: &mut Check, number: u64, accepted: Option<&Accepted>) -> Result<()> {
        let named = accepted.and_then(|accepted| accepted.parts.last()).map(|part| part.header.window);
        // Where reading failed, it cannot be told.
        if named != Some(number) && (named.is_some() || self.report.errors.is_empty()) {
            check.unused("the window of no segment");
            return Ok(());
        }
        check.file.what = "window".into();
        area::check(&**self.vfs, check, self.directory, number, accepted)
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

/// A file that is being checked.
struct Check {
    file: VerifiedFile,
    errors: Vec<Error>,
}

impl Check {
    fn new(path: PathBuf) -> Self {
        let file = VerifiedFile { path, what: String::new(), extent: Extent::Whole, notes: Vec::new() };
        Self { file, errors: Vec::new() }
    }

    fn unused(&mut self, why: &str) {
        self.file.extent = Extent::Nothing;
        why.clone_into(&mut self.file.what);
    }

    fn note(&mut self, note: String) {
        self.file.notes.push(note);
    }

    fn damaged(&mut self, offset: u64, detail: impl Into<Arc<str>>) {
        self.errors.push(Error::corruption(&self.file.path, offset, detail));
    }
}

/// The bits that are set in a stretch of a file.
#[derive(Default)]
struct Bits {
    count: u64,
    /// Offset of the last byte that has one.
    last: u64,
}

impl Bits {
    fn add(&mut self, bytes: &[u8], offset: u64) {
        // Segments are zeros for the most part: this is one look at many bytes at a time, and no early way out.
        if bytes.iter().fold(0, |any, byte| any | byte) == 0 {
            return;
        }
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            self.count += bytes.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            self.last = offset + last as u64;
        }
    }
}
