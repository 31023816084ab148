//! The lease of a follower: a small file in which it says which obsolete files it still reads.
//!
//! ```text
//! lease := magic "lsmlease"        offset 0
//!          version u32   1                8
//!          zero u32                      12
//!          id u64        random          16
//!          renewals u64  one more at each renewal       24
//!          micros u64    how long a renewal lasts       32
//!          manifest u64  number of a manifest           40
//!          position u64  position in that manifest      48
//!          log u64       position in the log, 2^64 - 1 for none    56
//!          zero u32                      64
//!          crc u32       CRC-32 of the 68 bytes before  68
//! ```
//!
//! The file is `FOLLOWER-NN`, with NN from 00 to 31. The follower creates it, writes it anew when it renews it, and
//! removes it at its end. It never syncs it: a power cut ends followers, too. The owner of the database keeps the files
//! that edits beyond `manifest` and `position` removed, and the log from `log` on. It measures by its own clock how long
//! the bytes of the file have not changed; after `micros` of that it removes the lease. So the clocks need not agree.

use std::path::{Path, PathBuf};

use lsm_core::checksum::crc32;
use lsm_core::coding::Decoder;
use lsm_core::vfs::Vfs;

use crate::version::files;

const MAGIC: [u8; 8] = *b"lsmlease";
const VERSION: u32 = 1;
const BYTES: usize = 72;
const NO_LOG: u64 = u64::MAX;

/// A place in the sequence of all edits: number of the manifest, and position of the end of the edit in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct EditPosition {
    /// Number of the manifest.
    pub manifest: u64,
    /// Position in it.
    pub position: u64,
}

/// The content of a lease of a [follower](crate::Follower).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// Random.
    pub id: u64,
    /// How often it was renewed.
    pub renewals: u64,
    /// How long it lasts after a renewal, in microseconds.
    pub micros: u64,
    /// Files that were removed by later edits are needed.
    pub edits: EditPosition,
    /// The log is needed from here on, if at all.
    pub log: Option<u64>,
}

impl Lease {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let EditPosition { manifest, position } = self.edits;
        let log = self.log.unwrap_or(NO_LOG);
        for number in [self.id, self.renewals, self.micros, manifest, position, log] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32(0, &out).to_le_bytes());
        out
    }

    /// `None` for a lease that is being written, is damaged, or has another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, crc) = bytes.split_at_checked(BYTES - 4)?;
        if crc != crc32(0, head).to_le_bytes() {
            return None;
        }
        let mut decoder = Decoder::new(head);
        if decoder.take(MAGIC.len())? != MAGIC || decoder.u32()? != VERSION || decoder.u32()? != 0 {
            return None;
        }
        let mut numbers = [0; 6];
        for number in &mut numbers {
            *number = decoder.u64()?;
        }
        let [id, renewals, micros, manifest, position, log] = numbers;
        if decoder.u32()? != 0 {
            return None;
        }
        let edits = EditPosition { manifest, position };
        Some(Self { id, renewals, micros, edits, log: Some(log).filter(|&log| log != NO_LOG) })
    }

    /// The file of a slot.
    pub(crate) fn path(directory: &Path, slot: u8) -> PathBuf {
        files::lease(directory, slot)
    }

    /// The bytes of a lease, as many as a lease has at most and one more. `None` if there is no such file.
    pub fn read(vfs: &dyn Vfs, path: &Path) -> std::io::Result<Option<Vec<u8>>> {
        let file = match vfs.open_read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; BYTES + 1];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(bytes.get_mut(filled..).unwrap_or_default(), filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_survives_encoding_and_every_flipped_bit_is_noticed() {
        let edits = EditPosition { manifest: 7, position: 640 };
        for log in [None, Some(0), Some(4096)] {
            let lease = Lease { id: 3, renewals: 9, micros: 30_000_000, edits, log };
            let bytes = lease.encode();
            assert_eq!(bytes.len(), BYTES);
            assert_eq!(Lease::decode(&bytes), Some(lease));
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Lease::decode(&damaged), None, "bit {bit}");
            }
            for length in 0..bytes.len() {
                assert_eq!(Lease::decode(&bytes[..length]), None);
            }
            assert_eq!(Lease::decode(&[bytes, vec![0]].concat()), None);
        }
    }
}
