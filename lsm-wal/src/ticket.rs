use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lsm_core::Result;

use crate::log::{LogSync, Position};
use crate::sync::Mutex;

/// A promise that a record will be durable, to be asked for, waited for, awaited or heard of.
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

    /// Whether it is durable by now. Asks nobody to sync.
    pub fn is_durable(&self) -> bool {
        self.log.durable() >= self.position
    }

    /// Blocks until it is durable; see [`LogSync::wait_durable`].
    pub fn wait(&self) -> Result<()> {
        self.log.wait_durable(self.position)
    }

    /// Calls back when it is durable; see [`LogSync::on_durable`].
    pub fn on_durable(&self, callback: impl FnOnce(Result<()>) + Send + 'static) {
        self.log.on_durable(self.position, Box::new(callback));
    }
}

impl IntoFuture for Ticket {
    type Output = Result<()>;
    type IntoFuture = TicketFuture;

    fn into_future(self) -> TicketFuture {
        TicketFuture { ticket: self, answer: None }
    }
}

/// Ready when the record of a [`Ticket`] is durable. It needs no runtime and costs no thread: the first poll asks for a
/// sync, and whoever answers that wakes the task.
pub struct TicketFuture {
    ticket: Ticket,
    /// Shared with the callback, from the first poll on.
    answer: Option<Arc<Mutex<Answer>>>,
}

enum Answer {
    Awaited(Waker),
    Known(Result<()>),
}

impl Future for TicketFuture {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let answer = match &this.answer {
            Some(answer) => answer,
            None if this.ticket.is_durable() => return Poll::Ready(Ok(())),
            None => {
                let answer = Arc::new(Mutex::new(Answer::Awaited(context.waker().clone())));
                let told = Arc::clone(&answer);
                this.ticket.on_durable(move |result| {
                    let before = std::mem::replace(&mut *told.lock(), Answer::Known(result));
                    if let Answer::Awaited(waker) = before {
                        waker.wake();
                    }
                });
                this.answer.insert(answer)
            }
        };
        match &mut *answer.lock() {
            Answer::Known(result) => Poll::Ready(result.clone()),
            Answer::Awaited(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
        }
    }
}
