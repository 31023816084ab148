use std::fmt;
use std::str::FromStr;

use lsm_core::SequenceNumber;
use lsm_core::checksum::crc32;
use lsm_core::coding::Decoder;

/// A place in the history of a database: between two batches of the change feed.
///
/// Get one from [`Snapshot::change_position`](crate::Snapshot::change_position),
/// [`ChangeBatch::position`](crate::ChangeBatch::position) or [`ChangeSlot::position`](crate::ChangeSlot::position), store
/// it as [bytes](Self::to_bytes) or as text, and give it to [`Db::changes`](crate::Db::changes), also after the database was
/// reopened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChangePosition {
    pub(crate) database: u128,
    pub(crate) epoch: u64,
    pub(crate) epoch_id: u64,
    /// Log position of the end of the last record before it.
    pub(crate) log: u64,
    pub(crate) sequence: SequenceNumber,
    /// Number of the last event of a keyspace before it.
    pub(crate) events: u64,
}

impl ChangePosition {
    /// Length of the encoded position.
    pub const BYTES: usize = 64;
    const FORMAT: u32 = 1;

    /// The sequence number of the last write before the position.
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// The position in the log, in bytes since the database was created.
    pub fn log_position(&self) -> u64 {
        self.log
    }

    /// The number of the epoch: how often the database had been opened for writing.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The position as bytes with a checksum.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut out = Vec::with_capacity(Self::BYTES);
        out.extend_from_slice(&Self::FORMAT.to_le_bytes());
        out.extend_from_slice(&self.database.to_le_bytes());
        for number in [self.epoch, self.epoch_id, self.log, self.sequence, self.events] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&crc32(0, &out).to_le_bytes());
        out.first_chunk().copied().unwrap_or([0; Self::BYTES])
    }

    /// The position that [`to_bytes`](Self::to_bytes) made these bytes of. Fails if they are not such
    /// bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAPosition> {
        Self::decode(bytes).ok_or_else(|| NotAPosition(format!("{} bytes, or a part of them", bytes.len())))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, crc) = bytes.split_at_checked(Self::BYTES - 4)?;
        let mut decoder = Decoder::new(head);
        let is_sound = crc == crc32(0, head).to_le_bytes() && decoder.u32()? == Self::FORMAT;
        let database = decoder.u128()?;
        let mut number = || decoder.u64();
        let (epoch, epoch_id, log) = (number()?, number()?, number()?);
        let position = Self { database, epoch, epoch_id, log, sequence: number()?, events: number()? };
        is_sound.then_some(position)
    }
}

/// Prints the position as text, which can be parsed: `epoch.sequence.log.events.epoch-id.database-id`.
impl fmt::Display for ChangePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, epoch, epoch_id, log, sequence, events } = self;
        write!(f, "{epoch}.{sequence}.{log}.{events}.{epoch_id:016x}.{database:032x}")
    }
}

impl FromStr for ChangePosition {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let parse = || {
            let mut parts = text.split('.');
            let mut number = |radix| u128::from_str_radix(parts.next()?, radix).ok();
            let mut decimal = || u64::try_from(number(10)?).ok();
            let (epoch, sequence, log, events) = (decimal()?, decimal()?, decimal()?, decimal()?);
            let (epoch_id, database) = (u64::try_from(number(16)?).ok()?, number(16)?);
            parts.next().is_none().then_some(Self { database, epoch, epoch_id, log, sequence, events })
        };
        parse().ok_or_else(|| NotAPosition(format!("{text:?}")))
    }
}

/// Some bytes or text are not a [`ChangePosition`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a change position: {0}")]
pub struct NotAPosition(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_encoding_and_others_are_refused() {
        let position = ChangePosition {
            database: u128::MAX,
            epoch: 1,
            epoch_id: u64::MAX,
            log: 3,
            sequence: 4,
            events: 5,
        };
        let bytes = position.to_bytes();
        assert_eq!(ChangePosition::from_bytes(&bytes).unwrap(), position);
        assert_eq!(position.to_string().parse::<ChangePosition>().unwrap(), position);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ChangePosition::from_bytes(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(ChangePosition::from_bytes(&bytes[..length]).is_err());
        }
        for text in ["", "1", "1.2.3.4.5", "1.2.3.4.x.6", "1.2.3.4.5.6.7", "-1.2.3.4.5.6"] {
            assert!(text.parse::<ChangePosition>().is_err(), "{text}");
        }
    }
}
