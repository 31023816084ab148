//! `CURRENT`: names the current manifest and, after a clean close, records the ends of manifest and log.
//!
//! ```text
//! current := magic:[8] version:u32 flags:u32 manifest:u64 synced:u64 clean encryption:[40] crc:u32
//! clean   := log_end:u64 log_segment:u64 log_length:u64 log_checksum:u64
//! ```
//!
//! `synced` is the position up to which the manifest was durable when `CURRENT` was written; a shorter manifest is
//! damaged. `flags` bit 0: the database was closed cleanly, `synced` is the length of the manifest, and `clean`
//! describes the end of the log. Otherwise `clean` is zero. `encryption` is that of `lsm_core::Encryption`. `crc` is the CRC-32 of everything before it. The file is
//! replaced by a rename, never written in place.

use std::path::Path;

use lsm_core::Encryption;
use lsm_core::checksum::crc32;
use lsm_core::coding::Decoder;
use lsm_core::vfs::Vfs;
use lsm_wal::{CleanClose, Position};

use crate::error::{Error, Result};
use crate::version::files;

const MAGIC: [u8; 8] = *b"lsmCURR\n";
const VERSION: u32 = 1;
const FLAG_CLEAN: u32 = 1;
const ENCRYPTION_OFFSET: usize = 8 + 4 + 4 + 8 + 8 + 4 * 8;
const BYTES: usize = ENCRYPTION_OFFSET + Encryption::BYTES + 4;

/// The content of `CURRENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Current {
    /// Number of the current manifest.
    pub manifest: u64,
    /// Position in the manifest up to which it is known to be durable.
    pub manifest_synced: u64,
    /// The end of the log, if the database was closed cleanly.
    pub clean: Option<CleanClose>,
}

impl Current {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(u32::from(self.clean.is_some()) * FLAG_CLEAN).to_le_bytes());
        out.extend_from_slice(&self.manifest.to_le_bytes());
        out.extend_from_slice(&self.manifest_synced.to_le_bytes());
        let clean = self.clean.map_or([0; 4], |log| [log.end.0, log.segment, log.length, log.checksum]);
        for number in clean {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&Encryption::NONE.encode());
        out.extend_from_slice(&crc32(0, &out).to_le_bytes());
        out
    }

    /// Decodes the bytes of `CURRENT`. Errors name `path`.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let corrupt = |offset, detail: &str| Error::corruption(path, offset, detail);
        let mut decoder = Decoder::new(bytes);
        if decoder.take(MAGIC.len()) != Some(&MAGIC) {
            return Err(corrupt(0, "this is not a CURRENT file: the magic number is missing"));
        }
        let short = || corrupt(0, "too short");
        let version = decoder.u32().ok_or_else(short)?;
        if version != VERSION {
            return Err(Error::Storage(lsm_core::Error::UnsupportedVersion {
                path: std::sync::Arc::new(path.to_owned()),
                found: version,
                supported: VERSION,
            }));
        }
        let (head, crc) = bytes
            .split_at_checked(BYTES - 4)
            .ok_or_else(|| corrupt(0, &format!("expected {BYTES} bytes, found {}", bytes.len())))?;
        if crc != crc32(0, head).to_le_bytes() {
            return Err(corrupt(BYTES as u64 - 4, "the checksum does not match"));
        }
        let flags = decoder.u32().ok_or_else(short)?;
        let manifest = decoder.u64().ok_or_else(short)?;
        let manifest_synced = decoder.u64().ok_or_else(short)?;
        let mut numbers = [0; 4];
        for number in &mut numbers {
            *number = decoder.u64().ok_or_else(short)?;
        }
        let encryption =
            decoder.take(Encryption::BYTES).and_then(|bytes| bytes.first_chunk()).ok_or_else(short)?;
        Encryption::decode(encryption).map_err(|error| error.at(path, ENCRYPTION_OFFSET as u64))?;
        let [end, segment, length, checksum] = numbers;
        let clean =
            (flags & FLAG_CLEAN != 0).then_some(CleanClose { end: Position(end), segment, length, checksum });
        Ok(Self { manifest, manifest_synced, clean })
    }

    /// Reads `CURRENT` of a directory. `None` if the file does not exist.
    pub(crate) fn load(vfs: &dyn Vfs, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(files::CURRENT);
        let file = match vfs.open_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        let len = file.len().map_err(|error| Error::io("read", &path, error))?;
        if len != BYTES as u64 && len < 12 {
            return Err(Error::corruption(&path, len, format!("expected {BYTES} bytes, found {len}")));
        }
        // A newer format may be longer, but its start still gives the version.
        let mut bytes = vec![0; len.min(BYTES as u64) as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", &path, error))?;
        let current = Self::decode(&bytes, &path)?;
        if len > BYTES as u64 {
            return Err(Error::corruption(
                &path,
                BYTES as u64,
                format!("expected {BYTES} bytes, found {len}"),
            ));
        }
        Ok(Some(current))
    }

    /// Replaces `CURRENT`, durably.
    pub(crate) fn store(&self, vfs: &dyn Vfs, directory: &Path) -> Result<()> {
        self.prepare(vfs, directory)?;
        Self::publish(vfs, directory)
    }

    /// Writes the next `CURRENT` to `CURRENT.next`, durably.
    pub(crate) fn prepare(&self, vfs: &dyn Vfs, directory: &Path) -> Result<()> {
        let next = directory.join(files::CURRENT_NEXT);
        match vfs.remove_file(&next) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &next, error));
            }
            _ => {}
        }
        let file = vfs.create_new(&next).map_err(|error| Error::io("create", &next, error))?;
        file.write_at(&self.encode(), 0).map_err(|error| Error::io("write", &next, error))?;
        file.sync_data().map_err(|error| Error::io("sync", &next, error))
    }

    /// Renames `CURRENT.next` to `CURRENT`, durably. After a failure `CURRENT` may be the old or the new one.
    pub(crate) fn publish(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
        let next = directory.join(files::CURRENT_NEXT);
        let path = directory.join(files::CURRENT);
        vfs.rename(&next, &path).map_err(|error| Error::io("rename to", &path, error))?;
        vfs.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Current {
        let log = CleanClose { end: Position(4), segment: 3, length: 9, checksum: 7 };
        Current { manifest: 12, manifest_synced: 99, clean: Some(log) }
    }

    #[test]
    fn current_survives_encoding_and_every_flipped_bit_is_detected() {
        let path = Path::new("CURRENT");
        for current in [sample(), Current { clean: None, ..sample() }] {
            let bytes = current.encode();
            assert_eq!(bytes.len(), BYTES);
            assert_eq!(Current::decode(&bytes, path).unwrap(), current);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Current::decode(&damaged, path).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        for (version, length, hint) in [(0, 68, "an older build"), (2, BYTES, "a newer build")] {
            let mut bytes = sample().encode();
            bytes[8] = version;
            let error = Current::decode(&bytes[..length], Path::new("CURRENT")).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn an_encrypted_database_is_told_from_a_damaged_one() {
        let decode = |at: usize| {
            let mut bytes = sample().encode();
            bytes[at] = 1;
            let crc = crc32(0, &bytes[..BYTES - 4]);
            bytes[BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
            Current::decode(&bytes, Path::new("CURRENT")).unwrap_err()
        };
        let error = decode(ENCRYPTION_OFFSET);
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().contains("encrypted"), "{error}");
        for at in 1..Encryption::BYTES {
            assert_eq!(decode(ENCRYPTION_OFFSET + at).kind(), crate::ErrorKind::Corruption);
        }
    }
}
