//! The way of a bulk load from the thread of the user to the tables: chunks of records, which a job takes in, so that one
//! thread makes the stream while another builds, compresses and writes the blocks.
//!
//! The job exists only while there are chunks, and at most once, so the order stays. The user waits while too many chunks
//! are on their way.

use std::collections::VecDeque;
use std::sync::Arc;

use lsm_core::coding::{Decoder, put_bytes};
use lsm_core::env::{Event, Job, Priority, Step};
use lsm_core::{Entry, ValueKind};
use parking_lot::Mutex;

use crate::background::{JobContext, JobToken, NewFiles, Output};
use crate::callbacks::caught;
use crate::error::{Error, Result};

/// Chunks on their way at most, besides the one that the user fills.
const CHUNKS_MAX: usize = 4;

/// Size of a chunk, if memory is not short.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Where the user fills chunks. Dropping it ends the load.
pub(super) struct Pipeline {
    context: Arc<JobContext>,
    shared: Arc<Shared>,
    chunk: Vec<u8>,
    chunk_bytes: usize,
}

/// What the user and the job share.
struct Shared {
    queue: Mutex<Queue>,
    output: Mutex<Output>,
    /// Notified when a chunk was taken in, and when the job ends.
    taken: Event,
    buffer_bytes: usize,
}

#[derive(Default)]
struct Queue {
    /// In order.
    full: VecDeque<Vec<u8>>,
    /// Empty ones, to use again.
    free: Vec<Vec<u8>>,
    is_running: bool,
    failed: Option<Error>,
}

impl Pipeline {
    pub(super) fn new(context: &Arc<JobContext>, output: Output) -> Self {
        let budget = &context.resources.memory.budget;
        let chunk_bytes = (budget.write_buffer_bytes / CHUNKS_MAX).clamp(4 << 10, CHUNK_BYTES_MAX);
        let shared = Shared {
            queue: Mutex::default(),
            output: Mutex::new(output),
            taken: Event::new(),
            buffer_bytes: chunk_bytes * (CHUNKS_MAX + 2),
        };
        Self { context: Arc::clone(context), shared: Arc::new(shared), chunk: Vec::new(), chunk_bytes }
    }

    /// Adds a record, which must come after the ones before.
    #[inline]
    pub(super) fn add(&mut self, key: &[u8], kind: ValueKind, value: &[u8]) -> Result<()> {
        if self.chunk.len() + key.len() + value.len() + 16 > self.chunk_bytes {
            self.hand_over()?;
        }
        self.chunk.push(kind as u8);
        put_bytes(&mut self.chunk, key);
        put_bytes(&mut self.chunk, value);
        Ok(())
    }

    /// Gives the chunk to the job.
    #[cold]
    fn hand_over(&mut self) -> Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.context.resources.check_process()?;
        self.context.status.check_open()?;
        {
            let mut queue = self.shared.queue.lock();
            if let Some(error) = &queue.failed {
                return Err(error.clone());
            }
            let next = queue.free.pop().unwrap_or_else(|| Vec::with_capacity(self.chunk_bytes));
            queue.full.push_back(std::mem::replace(&mut self.chunk, next));
            if !std::mem::replace(&mut queue.is_running, true) {
                let job = TakeIn { shared: Arc::clone(&self.shared), _token: JobToken::new(&self.context) };
                self.context.resources.env.spawn(Priority::High, Box::new(job));
            }
        }
        self.wait_until(|queue| queue.full.len() < CHUNKS_MAX)
    }

    /// Waits until the job has come so far. Fails if it has failed.
    fn wait_until(&self, is_done: impl Fn(&Queue) -> bool) -> Result<()> {
        self.context.resources.wait_until(&self.shared.taken, || {
            let queue = self.shared.queue.lock();
            queue.failed.as_ref().map_or(Ok(()), |error| Err(error.clone()))?;
            Ok(is_done(&queue))
        })
    }

    /// Ends the stream. Returns the files, which are durable except for their names.
    pub(super) fn finish(mut self) -> Result<NewFiles> {
        self.hand_over()?;
        self.wait_until(|queue| !queue.is_running)?;
        let mut output = self.shared.output.lock();
        caught("the end of a bulk load", || output.finish())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // The job ends after the chunk that it takes in now. The last of the two drops the output.
        self.shared.queue.lock().full.clear();
    }
}

/// The job: takes chunks in until there are none.
struct TakeIn {
    shared: Arc<Shared>,
    _token: JobToken,
}

impl Job for TakeIn {
    fn step(&mut self) -> Step {
        let chunk = {
            let mut queue = self.shared.queue.lock();
            let chunk = queue.full.pop_front();
            queue.is_running = chunk.is_some();
            chunk
        };
        let Some(mut chunk) = chunk else {
            self.shared.taken.notify();
            return Step::Done;
        };
        let taken = caught("a bulk load", || self.shared.take_in(&chunk));
        {
            let mut queue = self.shared.queue.lock();
            chunk.clear();
            // One that grew for a huge record is freed.
            if chunk.capacity() <= 2 * CHUNK_BYTES_MAX {
                queue.free.push(chunk);
            }
            if let Err(error) = taken {
                queue.failed.get_or_insert(error);
                queue.full.clear();
            }
        }
        self.shared.taken.notify();
        Step::Again
    }
}

impl Shared {
    fn take_in(&self, chunk: &[u8]) -> Result<()> {
        let mut output = self.output.lock();
        let mut records = Decoder::new(chunk);
        while let Some(kind) = records.u8().and_then(ValueKind::from_u8) {
            let (Some(key), Some(value)) = (records.bytes(), records.bytes()) else { break };
            output.add(Entry { key, sequence: 0, kind, value })?;
        }
        output.charge(self.buffer_bytes);
        Ok(())
    }
}
