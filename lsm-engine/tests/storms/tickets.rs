use std::sync::{Arc, Mutex};

use lsm_engine::{Result, Ticket};

use super::world::World;

/// A write that was submitted, and what its callback was told.
pub(super) struct Submitted {
    ticket: Ticket,
    /// Number of commits up to this one.
    count: usize,
    told: Arc<Mutex<Vec<Result<()>>>>,
}

impl World {
    /// Keeps the ticket of the last commit. Sometimes asks for a callback, which asks for a sync.
    pub(super) fn keep(&mut self, ticket: Ticket) {
        let submitted = Submitted { ticket, count: self.promises.count(), told: Arc::default() };
        if self.random.one_in(2) {
            let told = Arc::clone(&submitted.told);
            submitted.ticket.on_durable(move |result| told.lock().unwrap().push(result));
            self.called.push(submitted);
        } else {
            self.tickets.push(submitted);
        }
    }

    /// Takes the promises of tickets and callbacks. With `ended`, all callbacks must have been called.
    pub(super) fn hear(&mut self, ended: bool) {
        let (may_fail, mut durable) = (self.may_fail(), 0);
        self.called.retain(|Submitted { ticket, count, told }| {
            let told = std::mem::take(&mut *told.lock().unwrap());
            assert!(told.len() <= 1, "called {} times", told.len());
            match told.first() {
                Some(Ok(())) => {
                    assert!(ticket.is_durable());
                    durable = durable.max(*count);
                }
                Some(Err(error)) => assert!(may_fail, "a ticket fails for no reason: {error}"),
                None => assert!(!ended, "a callback was never called"),
            }
            told.is_empty()
        });
        self.tickets.retain(|Submitted { ticket, count, .. }| {
            if ticket.is_durable() {
                durable = durable.max(*count);
            }
            !ticket.is_durable()
        });
        self.promises.durable_up_to(durable);
    }

    /// Waits for a ticket.
    pub(super) fn wait_for_a_ticket(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        let index = self.random.below(self.tickets.len());
        let Submitted { ticket, count, .. } = self.tickets.swap_remove(index);
        let result = self.risking(|| ticket.wait());
        if self.fs.crashed() {
            return;
        }
        match result {
            Ok(()) => {
                assert!(ticket.is_durable());
                self.promises.durable_up_to(count);
            }
            Err(error) => {
                assert!(self.may_fail(), "a ticket fails for no reason: {error}");
                self.reopen_somehow();
            }
        }
    }
}
