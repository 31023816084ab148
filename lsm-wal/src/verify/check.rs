use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::Error;

use super::report::{Extent, VerifiedFile};

/// A file that is being checked.
pub(super) struct Check {
    pub(super) file: VerifiedFile,
    pub(super) errors: Vec<Error>,
}

impl Check {
    pub(super) fn new(path: PathBuf) -> Self {
        let file = VerifiedFile { path, what: String::new(), extent: Extent::Whole, notes: Vec::new() };
        Self { file, errors: Vec::new() }
    }

    pub(super) fn unused(&mut self, why: &str) {
        self.file.extent = Extent::Nothing;
        why.clone_into(&mut self.file.what);
    }

    pub(super) fn note(&mut self, note: String) {
        self.file.notes.push(note);
    }

    pub(super) fn damaged(&mut self, offset: u64, detail: impl Into<Arc<str>>) {
        self.errors.push(Error::corruption(&self.file.path, offset, detail));
    }
}

/// The bits that are set in a stretch of a file.
#[derive(Default)]
pub(super) struct Bits {
    pub(super) count: u64,
    /// Offset of the last byte that has one.
    pub(super) last: u64,
}

impl Bits {
    pub(super) fn add(&mut self, bytes: &[u8], offset: u64) {
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
