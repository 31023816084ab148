//! Reads a whole blob file and checks every byte and every count.

use lsm_core::checksum::Checksum;
use lsm_core::{Error, Result};

use super::footer::Footer;
use super::reader::{BlobExpectation, BlobReader, read_ends};
use super::writer::BlobPlace;
use super::{CHECK_BYTES, CHUNK_BYTES, ENTRY_BYTES, PIECE_BYTES, check_bytes};
use crate::format::file_header::{BLOB, FILE_HEADER_BYTES};

/// Directory entries read at a time.
const ENTRIES_PER_READ: u64 = 4096;

/// What [`BlobReader::verify`] found to be intact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobVerifyReport {
    /// Bytes of the file: all of them were read and proved.
    pub file_bytes: u64,
    /// Values.
    pub values: u64,
}

impl BlobReader {
    /// Reads every byte of the file again and proves it. Takes a few megabytes of memory.
    ///
    /// Fails with the first `Corruption`, which names the offset.
    pub fn verify(&self) -> Result<BlobVerifyReport> {
        let expected = BlobExpectation::from(&self.meta());
        let footer = read_ends(&*self.file, &self.path, Some(&expected))?;
        if footer != self.footer {
            let detail = "footer changed since the file was opened";
            return Err(Error::corruption(&self.path, footer.offset(), detail));
        }
        let mut pass = Pass { blobs: self, at: FILE_HEADER_BYTES as u64, checksum: Checksum::new() };
        pass.checksum.update(&BLOB.encode(footer.id));
        let (mut values, mut value_bytes) = (0, 0);
        self.for_each(|place| {
            pass.value(place)?;
            values += 1;
            value_bytes += place.bytes;
            Ok(())
        })?;
        pass.directory(&footer)?;
        if pass.checksum.value() != footer.body_checksum {
            let detail = format!(
                "file has checksum {:#018x}, its footer says {:#018x}",
                pass.checksum.value(),
                footer.body_checksum
            );
            return Err(Error::corruption(&self.path, footer.offset() + 40, detail));
        }
        if (values, value_bytes) != (footer.values, footer.value_bytes) {
            let detail = format!(
                "file has {values} values of {value_bytes} bytes, its footer says {} of {}",
                footer.values, footer.value_bytes
            );
            return Err(Error::corruption(&self.path, footer.offset() + 16, detail));
        }
        Ok(BlobVerifyReport { file_bytes: footer.file_bytes, values })
    }

    /// Calls `visit` with the place of each value that is there, in the order of their numbers.
    pub fn for_each(&self, mut visit: impl FnMut(BlobPlace) -> Result<()>) -> Result<()> {
        let mut number = 0;
        let mut buffer = Vec::new();
        while number < self.footer.numbers {
            let count = (self.footer.numbers - number).min(ENTRIES_PER_READ);
            let mut at = self.footer.directory + number * ENTRY_BYTES;
            buffer.resize((count * ENTRY_BYTES) as usize, 0);
            self.read_exact(&mut buffer, at)?;
            for entry in buffer.as_chunks().0 {
                if let Some(place) = self.decode_entry(number, at, entry)? {
                    visit(place)?;
                }
                number += 1;
                at += ENTRY_BYTES;
            }
        }
        Ok(())
    }
}

/// One pass over the file, from front to back.
struct Pass<'b> {
    blobs: &'b BlobReader,
    /// Where the next value must be.
    at: u64,
    /// Of everything so far.
    checksum: Checksum,
}

impl Pass<'_> {
    fn value(&mut self, place: BlobPlace) -> Result<()> {
        let BlobPlace { number, offset, bytes } = place;
        let end = offset.checked_add(bytes).and_then(|end| end.checked_add(check_bytes(bytes)));
        let end = end.filter(|&end| end <= self.blobs.footer.directory);
        let (true, Some(end)) = (offset == self.at, end) else {
            let detail = format!(
                "value {number} of {bytes} bytes is said to be at {offset}, the one before ends here"
            );
            return Err(Error::corruption(&self.blobs.path, self.at, detail));
        };
        let mut checks_at = offset + bytes;
        let (mut piece, mut checks) = (Vec::new(), Vec::new());
        while self.at < offset + bytes {
            let count = (offset + bytes - self.at).min(PIECE_BYTES);
            piece.resize(count as usize, 0);
            checks.resize((count.div_ceil(CHUNK_BYTES) * CHECK_BYTES) as usize, 0);
            self.blobs.read_exact(&mut piece, self.at)?;
            self.blobs.read_exact(&mut checks, checks_at)?;
            self.blobs.check_chunks(self.at, &piece, &checks)?;
            self.checksum.update(&piece);
            self.at += count;
            checks_at += checks.len() as u64;
        }
        // The checksums come behind the value, so they are read again in their place.
        self.pass_up_to(end)
    }

    fn directory(&mut self, footer: &Footer) -> Result<()> {
        if self.at != footer.directory {
            let detail = format!("values end here, and the directory starts at {}", footer.directory);
            return Err(Error::corruption(&self.blobs.path, self.at, detail));
        }
        self.pass_up_to(footer.offset())
    }

    /// Adds what comes next to the checksum of the file.
    fn pass_up_to(&mut self, end: u64) -> Result<()> {
        let mut buffer = Vec::new();
        while self.at < end {
            buffer.resize((end - self.at).min(PIECE_BYTES) as usize, 0);
            self.blobs.read_exact(&mut buffer, self.at)?;
            self.checksum.update(&buffer);
            self.at += buffer.len() as u64;
        }
        Ok(())
    }
}
