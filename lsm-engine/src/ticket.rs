use std::pin::Pin;
use std::task::{Context, Poll};

use lsm_core::SequenceNumber;

use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::write::{WritePath, Written};

/// A promise that a write will be durable, that is, survive a power cut.
///
/// The write is visible already. The log syncs it within a second in any case; whoever waits for it asks for the sync at
/// once, and all who wait at the same time share one. After a failed sync, this ticket and every later one fail with
/// its cause, and the database takes no more writes until it is reopened.
///
/// A ticket can be cloned, sent to other threads and dropped; the write becomes durable all the same. It is a future, too,
/// and needs no runtime:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lsm_engine::Db::open(dir.path())?;
/// async fn rename(db: &lsm_engine::Db, from: &str, to: &str) -> lsm_engine::Result<()> {
///     let Some(value) = db.get(from)? else { return Ok(()) };
///     let mut batch = lsm_engine::WriteBatch::new();
///     batch.put(to, value).delete(from);
///     db.submit(batch)?.await
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Ticket {
    /// `None` if nothing was written.
    log: Option<lsm_wal::Ticket>,
    sequence: SequenceNumber,
}

impl Ticket {
    pub(crate) fn new(path: &WritePath, written: Written) -> Result<Self> {
        Ok(Self { log: Some(path.ticket(written)?), sequence: written.sequence })
    }

    /// The ticket of a transaction that wrote nothing and saw the writes up to `sequence`.
    pub(crate) fn of_nothing(sequence: SequenceNumber) -> Self {
        Self { log: None, sequence }
    }

    /// The sequence number of the last operation of the write. A snapshot sees the write if its
    /// [`sequence`](crate::Snapshot::sequence) is not lower. For an empty batch, the number of the last visible write.
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Whether the write is durable by now. Asks nobody to sync.
    pub fn is_durable(&self) -> bool {
        self.log.as_ref().is_none_or(lsm_wal::Ticket::is_durable)
    }

    /// Blocks until the write is durable.
    pub fn wait(&self) -> Result<()> {
        Ok(self.log.as_ref().map_or(Ok(()), lsm_wal::Ticket::wait)?)
    }

    /// Asks for a sync, and calls `callback` once: when the write is durable, or with the error of a sync that failed.
    /// [`Db::close`](crate::Db::close) returns after all callbacks have run.
    ///
    /// If the answer is known already, the callback runs at once, on this thread. Otherwise it runs on a background
    /// thread that holds no lock. It must be short, since others wait behind it. It may read and write the database; a
    /// call that would wait for background work, such as [`flush`](crate::Db::flush), fails. A panic in it is logged
    /// and harms nobody else.
    pub fn on_durable(&self, callback: impl FnOnce(Result<()>) + Send + 'static) {
        if let Some(log) = &self.log {
            return log.on_durable(|result| callback(result.map_err(Error::from)));
        }
        let called = caught("a callback of a ticket", || {
            callback(Ok(()));
            Ok(())
        });
        if let Err(error) = called {
            tracing::error!(%error, "a callback of a ticket panicked");
        }
    }
}

impl IntoFuture for Ticket {
    type Output = Result<()>;
    type IntoFuture = TicketFuture;

    fn into_future(self) -> TicketFuture {
        TicketFuture(self.log.map(lsm_wal::Ticket::into_future))
    }
}

/// Ready when the write of a [`Ticket`] is durable. The first poll asks for a sync. A waiting future costs no thread.
pub struct TicketFuture(Option<lsm_wal::TicketFuture>);

impl Future for TicketFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            Some(log) => Pin::new(log).poll(context).map_err(Error::from),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl std::fmt::Debug for TicketFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketFuture").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
