//! The part of file headers that says how a file is encrypted.
//!
//! ```text
//! encryption := suite:u8 zero:[u8; 3] key:u32 salt:[u8; 32]      40 bytes; all zero: not encrypted
//! ```

use crate::error::DecodeError;

/// How a file is encrypted: the same bytes in the header of every file. Nothing is encrypted yet, so all of them are zero,
/// and a file in which they are not is refused.
///
/// ```
/// use lsm_core::Encryption;
/// let mut bytes = Encryption::NONE.encode();
/// assert_eq!(Encryption::decode(&bytes), Ok(Encryption::NONE));
/// bytes[0] = 1;
/// assert!(Encryption::decode(&bytes).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encryption {
    /// The algorithms; 0 for none.
    pub suite: u8,
    /// Which key the key of the file is derived from.
    pub key: u32,
    /// What else the key of the file is derived from: random for each file.
    pub salt: [u8; 32],
}

impl Encryption {
    /// Length of the encoding.
    pub const BYTES: usize = 40;

    /// Not encrypted.
    pub const NONE: Self = Self { suite: 0, key: 0, salt: [0; 32] };

    /// The bytes in a header.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.suite;
        bytes[4..8].copy_from_slice(&self.key.to_le_bytes());
        bytes[8..].copy_from_slice(&self.salt);
        bytes
    }

    /// Decodes the bytes of a header. Fails if the file is encrypted, since this version cannot read it, and if it is not
    /// but has a key or salt.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, DecodeError> {
        match bytes {
            [0, rest @ ..] if rest.iter().all(|&byte| byte == 0) => Ok(Self::NONE),
            [0, ..] => Err("the file is not encrypted, but its header has a key or salt for that".into()),
            [suite, ..] => Err(DecodeError::Unknown(format!("an encrypted file, of suite {suite}"))),
        }
    }
}
