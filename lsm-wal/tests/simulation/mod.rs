//! A log in a simulated world, and what may be left of it after a crash.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::Path;
use std::sync::Arc;

use lsm_core::env::SimEnv;
use lsm_core::vfs::{SimFs, Vfs};
use lsm_core::{Error, Result};
use lsm_wal::{Log, LogExpectation, Position, RecoveryMode, RecoveryReport, Wal, WalOptions, WalReader};

pub(crate) const DIRECTORY: &str = "/log";

/// One thing that is done to a log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Appends a record of so many bytes.
    Append(usize),
    /// Waits until everything is durable.
    Sync,
    /// Lets background jobs run.
    Jobs,
    /// Drops the log and opens it again.
    Reopen,
    /// Closes the log and opens it again.
    Close,
    /// Truncates the front so far that only so many records are needed.
    KeepLast(usize),
    /// Forgets so many records at the end.
    Forget(usize),
    /// Begins a segment, and wipes the window.
    Begin,
}

/// A record as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) tag: u64,
    pub(crate) bytes: usize,
    pub(crate) end: Position,
}

pub(crate) fn payload(tag: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|byte| (byte.wrapping_mul(2 * tag + 1) + tag) as u8).collect()
}

/// What the log must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Records that were acknowledged and not forgotten.
    pub(crate) history: Vec<Known>,
    /// How many of them were acknowledged as durable.
    pub(crate) durable: usize,
    /// How many of them may be gone because the front was truncated.
    pub(crate) front: usize,
    /// What was going on when the log died.
    pending: Option<Step>,
    next_tag: u64,
}

impl Model {
    /// Panics unless `found` is what a crash may leave. Returns how long the history is now.
    pub(crate) fn check(&self, found: &[Known], power_lost: bool, what: &dyn Fn() -> String) -> Vec<Known> {
        let mut history = self.history.clone();
        let mut shortest = if power_lost { self.durable } else { history.len() };
        let mut front = self.front;
        match self.pending {
            // It may have been written completely without having been acknowledged.
            Some(Step::Append(bytes)) if found.last().is_some_and(|last| last.tag == self.next_tag) => {
                let start = history.last().map_or(0, |last| last.end.0);
                let end = Position(start + 40 + bytes.next_multiple_of(8) as u64);
                history.push(Known { tag: self.next_tag, bytes, end });
            }
            Some(Step::Forget(count)) => {
                let left = history.len() - count;
                shortest = shortest.min(left);
                let forgotten = match found.last() {
                    Some(last) => history[..left].last() == Some(last),
                    None => left <= front,
                };
                if !power_lost && forgotten {
                    history.truncate(left);
                }
                if !power_lost {
                    shortest = history.len();
                }
            }
            Some(Step::KeepLast(count)) => front = front.max(history.len() - count),
            _ => {}
        }
        let first = match found.first() {
            Some(first) => history.iter().position(|known| known == first),
            None => Some(front.min(shortest)),
        };
        let Some(first) = first else { panic!("{}: found {:?}, which never was", what(), found[0]) };
        assert!(first <= front, "{}: the first {first} records are missing", what());
        let last = first + found.len();
        assert!(last >= shortest, "{}: {last} records of at least {shortest} are left", what());
        assert!(last <= history.len() && history[first..last] == *found, "{}: {found:?}", what());
        history.truncate(last);
        history
    }
}

pub(crate) fn options(window_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes: 4096, window_bytes, ..WalOptions::default() }
}

pub(crate) fn open(fs: &SimFs, env: &SimEnv, options: &WalOptions) -> Result<(Wal, RecoveryReport)> {
    Wal::open(Arc::new(fs.clone()), Arc::new(env.clone()), Path::new(DIRECTORY), options.clone())
}

/// All records of a reader, whose payloads must be those of their tags.
pub(crate) fn records(mut reader: WalReader) -> Result<Vec<Known>> {
    let mut found = Vec::new();
    while let Some(record) = reader.next()? {
        let bytes = record.payload.len();
        assert_eq!(record.payload, payload(record.tag, bytes), "the payload of record {}", record.tag);
        found.push(Known { tag: record.tag, bytes, end: record.end });
    }
    Ok(found)
}

/// What is on disk, read without opening the log for writing.
pub(crate) fn read_only(fs: &SimFs, mode: RecoveryMode) -> Result<Vec<Known>> {
    if fs.metadata(Path::new(DIRECTORY)).is_err() {
        return Ok(Vec::new());
    }
    records(WalReader::open(Arc::new(fs.clone()), Path::new(DIRECTORY), &LogExpectation::default(), mode)?)
}

/// Runs steps until one fails or the process is dead, and keeps the model.
pub(crate) fn run(fs: &SimFs, env: &SimEnv, options: &WalOptions, steps: &[Step]) -> (Model, Option<Error>) {
    let mut model = Model::default();
    let error = run_on(fs, env, options, steps, &mut model).err();
    env.drop_jobs();
    (model, error)
}

fn run_on(fs: &SimFs, env: &SimEnv, options: &WalOptions, steps: &[Step], model: &mut Model) -> Result<()> {
    let (mut log, _) = open(fs, env, options)?;
    for &step in steps {
        model.pending = Some(step);
        match step {
            Step::Append(bytes) => {
                let tag = model.next_tag;
                let end = log.append(tag, &payload(tag, bytes))?;
                if fs.crashed() {
                    return Ok(());
                }
                model.history.push(Known { tag, bytes, end });
                model.next_tag += 1;
            }
            Step::Sync => {
                let end = log.end();
                log.sync_handle().wait_durable(end)?;
                model.durable = model.history.len();
            }
            Step::Jobs => {
                env.run_until_idle();
            }
            Step::Reopen | Step::Close => {
                if matches!(step, Step::Close) {
                    Box::new(log).close()?;
                } else {
                    drop(log);
                }
                env.run_until_idle();
                if fs.crashed() {
                    return Ok(());
                }
                log = open(fs, env, options)?.0;
                model.durable = model.history.len();
            }
            Step::KeepLast(count) => {
                let front = model.history.len() - count;
                let position = front.checked_sub(1).map_or(Position::ZERO, |last| model.history[last].end);
                log.truncate_front(position)?;
                model.front = model.front.max(front);
            }
            Step::Begin => {
                log.sync_handle().begin_segment()?;
                model.durable = model.history.len();
            }
            Step::Forget(count) => {
                let left = model.history.len() - count;
                let position = left.checked_sub(1).map_or(Position::ZERO, |last| model.history[last].end);
                log.truncate_tail(position)?;
                model.history.truncate(left);
                model.durable = left;
            }
        }
        if fs.crashed() {
            return Ok(());
        }
        model.pending = None;
    }
    Ok(())
}
