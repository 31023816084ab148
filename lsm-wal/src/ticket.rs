use std::sync::Arc;

use lsm_core::Result;

use crate::log::{DurableCallback, LogSync, Position};

/// A promise that a record will be durable, to be asked for, waited for or heard of.
///
/// Dropping it changes nothing about the record.
#[derive(Clone)]
pub struct Ticket {
    log: Arc<dyn LogSync>,
    position: Position,
}

impl Ticket {
    /// A ticket for everything before `position`.
    pub fn new(log: Arc<dyn LogSync>, position: Position) -> Self {
        Self { log, position }
    }

    /// The position that this is about.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether it is durable by now.
    pub fn is_durable(&self) -> bool {
        self.log.durable() >= self.position
    }

    /// Blocks until it is durable; see [`LogSync::wait_durable`].
    pub fn wait(&self) -> Result<()> {
        self.log.wait_durable(self.position)
    }

    /// Calls back when it is durable; see [`LogSync::on_durable`].
    pub fn on_durable(&self, callback: DurableCallback) {
        self.log.on_durable(self.position, callback);
    }
}
