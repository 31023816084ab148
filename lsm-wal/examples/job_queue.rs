//! A durable queue of jobs in one file: whoever puts a job in has it done at least once, whatever crashes.
//!
//! Two kinds of records suffice: a job, and the note that a job is done. Jobs are named by their positions, and
//! what lies before the oldest open job is truncated away.
//!
//! Run it twice, or kill it in between: `cargo run -p lsm-wal --example job_queue -- /tmp/queue`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lsm_core::Result;
use lsm_core::env::ThreadEnv;
use lsm_core::vfs::PosixFs;
use lsm_wal::{Log, Position, Wal, WalOptions};

/// Tag of a record that holds a job.
const JOB: u64 = 0;
/// Tag of a record that holds the position of a job that is done.
const DONE: u64 = 1;

struct JobQueue {
    log: Wal,
    open: BTreeMap<Position, String>,
}

impl JobQueue {
    fn open(directory: &Path) -> Result<Self> {
        let options = WalOptions { segment_bytes: 64 << 10, ..WalOptions::default() };
        let (log, report) = Wal::open(Arc::new(PosixFs), Arc::new(ThreadEnv::new(1)), directory, options)?;
        for dropped in &report.dropped {
            println!("not recovered: {dropped}");
        }
        let mut open = BTreeMap::new();
        let mut reader = log.read_from(Position::ZERO)?;
        while let Some(record) = reader.next()? {
            if record.tag == JOB {
                open.insert(record.end, String::from_utf8_lossy(record.payload).into_owned());
            } else if let Some(bytes) = record.payload.first_chunk() {
                open.remove(&Position(u64::from_le_bytes(*bytes)));
            }
        }
        Ok(Self { log, open })
    }

    /// Puts a job in; it survives a power cut once this returns.
    fn put(&mut self, job: &str) -> Result<Position> {
        let position = self.log.append(JOB, job.as_bytes())?;
        self.log.ticket(position).wait()?;
        self.open.insert(position, job.to_owned());
        Ok(position)
    }

    /// Notes that a job is done. If the note is lost in a power cut, the job is done once more.
    fn done(&mut self, job: Position) -> Result<()> {
        self.log.append(DONE, &job.0.to_le_bytes())?;
        self.open.remove(&job);
        // The oldest open job begins where something before it ends, so what is before this job can go if all
        // jobs before it are done.
        match self.open.keys().next() {
            Some(&oldest) if oldest < job => Ok(()),
            _ => self.log.truncate_front(job),
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let temporary;
    let directory = if let Some(directory) = std::env::args_os().nth(1) {
        directory.into()
    } else {
        temporary = tempfile::tempdir()?;
        temporary.path().to_owned()
    };
    let mut queue = JobQueue::open(&directory)?;
    println!("{} jobs are left from last time", queue.open.len());
    for number in 0..5 {
        let position = queue.put(&format!("send letter {number}"))?;
        println!("put a job in at {position}");
    }
    // All but two are done now; those two are what the next run begins with.
    while queue.open.len() > 2 {
        let Some((&position, job)) = queue.open.first_key_value() else { break };
        println!("doing: {job}");
        queue.done(position)?;
    }
    Box::new(queue.log).close()?;
    Ok(())
}
