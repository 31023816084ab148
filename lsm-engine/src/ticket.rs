use lsm_core::SequenceNumber;

use crate::error::Result;
use crate::write::{WritePath, Written};

/// A promise that a write will be durable, that is, survive a power cut.
///
/// The write is visible already. The log syncs it within a second in any case; whoever waits for it asks for the sync at
/// once, and all who wait at the same time share one. After a failed sync, this ticket and every later one fail with
/// its cause, and the database takes no more writes until it is reopened.
///
/// A ticket can be cloned, sent to other threads and dropped; the write becomes durable all the same.
#[derive(Clone)]
pub struct Ticket {
    log: lsm_wal::Ticket,
    sequence: SequenceNumber,
}

impl Ticket {
    pub(crate) fn new(path: &WritePath, written: Written) -> Result<Self> {
        Ok(Self { log: path.ticket(written)?, sequence: written.sequence })
    }

    /// The sequence number of the last operation of the write. A snapshot sees the write if its
    /// [`sequence`](crate::Snapshot::sequence) is not lower. For an empty batch, the number of the last visible write.
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Whether the write is durable by now. Asks nobody to sync.
    pub fn is_durable(&self) -> bool {
        self.log.is_durable()
    }

    /// Blocks until the write is durable.
    pub fn wait(&self) -> Result<()> {
        Ok(self.log.wait()?)
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
