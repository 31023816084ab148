//! The syncing end of the log, as tickets hold it. It runs callbacks of users, and refuses a forked child.

use std::sync::Arc;

use lsm_core::Error;
use lsm_core::env::Event;
use lsm_wal::{DurableCallback, LogObserver, LogSync, Position};

use crate::callbacks::caught;
use crate::events::{EventKind, WaitReason};
use crate::reentry::Inside;
use crate::resources::Resources;

pub(crate) struct LogHandle {
    log: Arc<dyn LogSync>,
    resources: Arc<Resources>,
}

impl LogHandle {
    pub(super) fn new(log: Arc<dyn LogSync>, resources: Arc<Resources>) -> Self {
        Self { log, resources }
    }

    /// Like `wait_durable`, for a job: no caller waits.
    pub(super) fn sync_up_to(&self, position: Position) -> lsm_core::Result<()> {
        self.log.wait_durable(position)
    }

    fn check_process(&self) -> lsm_core::Result<()> {
        self.resources.check_process().map_err(|error| Error::invalid(error.to_string()))
    }
}

impl LogSync for LogHandle {
    /// Registers the wait, if there is one.
    fn wait_durable(&self, position: Position) -> lsm_core::Result<()> {
        self.check_process()?;
        if self.log.durable() >= position {
            return Ok(());
        }
        let _waiting = self.resources.waits.begin(WaitReason::LogSync, None);
        self.log.wait_durable(position)
    }

    fn durable(&self) -> Position {
        self.log.durable()
    }

    fn advanced(&self) -> Event {
        self.log.advanced()
    }

    fn truncate_front(&self, position: Position) -> lsm_core::Result<()> {
        self.log.truncate_front(position)
    }

    fn begin_segment(&self) -> lsm_core::Result<Position> {
        self.log.begin_segment()
    }

    fn observe(&self, observer: LogObserver) {
        self.log.observe(observer);
    }

    /// The callback may read and write, but not wait for background work: it may run in place of that.
    fn on_durable(&self, position: Position, callback: DurableCallback) {
        let resources = Arc::clone(&self.resources);
        let call = move |result| {
            let _inside = resources.enter(Inside::Job);
            let called = caught("a callback of a ticket", || {
                callback(result);
                Ok(())
            });
            if let Err(error) = called {
                tracing::error!(%error, "a callback of a ticket panicked");
                let (during, message) = ("a callback of a ticket".into(), error.to_string().into());
                resources.events.emit(EventKind::Error { during, keyspace: None, message });
            }
        };
        match self.check_process() {
            Ok(()) => self.log.on_durable(position, Box::new(call)),
            Err(error) => call(Err(error)),
        }
    }
}
