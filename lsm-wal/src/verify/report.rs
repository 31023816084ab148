use std::path::PathBuf;

use lsm_core::Error;

use crate::report::RecoveryReport;

/// What [`verify`](crate::verify()) found.
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

/// A file that [`verify`](crate::verify()) looked at.
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

/// How far [`verify`](crate::verify()) could check a file.
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
