//! Waiting for durability: those who wait at the same time share one sync.
//!
//! The first to wait opens a batch and leads it; those who come before it starts to sync join. Syncs take turns.
//! A leader whose turn it is first lets those come whom the last sync covered, because they are likely on the way
//! back: it yields the processor until that many have come, or some yields bring nobody. Without that, threads split
//! into two halves that wait for each other's syncs, at half the rate. Each follower has an event of its own: those
//! who wait for one event are woken one by another, each once the one before it runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::env::{self, Env};
use lsm_core::{Error, Result};

use super::calls::{self, Calls};
use super::site::Site;
use super::writer::Writer;
use crate::files::directory::{self, LogFile};
use crate::log::{DurableCallback, LogChange, LogObserver, LogSync, Position};
use crate::sync::{AtomicU64, Event, Mutex, MutexGuard, yield_now};

/// How many yields in a row may bring nobody before a leader goes. On an idle core they take some forty microseconds,
/// in which a sleeping core is woken; a sync that covers half of those who come takes twice that.
const IDLE_YIELDS_MAX: u32 = 128;

/// What appender, waiters and the background job share.
pub(crate) struct GroupCommit {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) site: Site,
    pub(crate) writer: Mutex<Writer>,
    /// Whoever removes segments.
    pub(crate) removing: Mutex<()>,
    /// Everything before this is durable.
    durable: AtomicU64,
    queue: Mutex<Queue>,
    /// More is durable.
    advanced: env::Event,
    /// A sync ended: whoever leads the next batch may go.
    turn: Event,
    /// Whom a sync has an answer for.
    pub(crate) calls: Arc<Calls>,
    /// There is something to do in the background.
    pub(crate) work: env::Event,
}

#[derive(Default)]
struct Queue {
    /// Someone leads the batch that can be joined.
    led: bool,
    /// Who joined it.
    followers: Vec<Arc<Follower>>,
    /// How many the last sync covered.
    covered_before: usize,
    syncing: bool,
    /// Who wants to be called when a position is durable.
    callbacks: Vec<(Position, DurableCallback)>,
}

/// Someone who waits for the leader of a batch.
#[derive(Default)]
struct Follower {
    outcome: Mutex<Option<Result<()>>>,
    told: Event,
}

impl Follower {
    fn tell(&self, outcome: Result<()>) {
        *self.outcome.lock() = Some(outcome);
        self.told.notify();
    }
}

impl GroupCommit {
    pub(crate) fn new(env: Arc<dyn Env>, site: Site, writer: Writer) -> Self {
        Self {
            env,
            site,
            removing: Mutex::default(),
            durable: AtomicU64::new(writer.end()),
            work: writer.background.work.clone(),
            writer: Mutex::new(writer),
            queue: Mutex::default(),
            advanced: env::Event::new(),
            turn: Event::new(),
            calls: Arc::default(),
        }
    }

    /// Makes everything durable that was appended, on this thread. One at a time.
    fn sync(&self) -> Result<()> {
        let Some(unsynced) = self.writer.lock().prepare_sync()? else { return Ok(()) };
        let began_micros = self.env.monotonic_micros();
        for segment in &unsynced.segments {
            if let Err(error) = segment.sync() {
                // What the disk has of the file is anyone's guess now, and asking again would not tell.
                self.writer.lock().stop(&error);
                return Err(error);
            }
        }
        let micros = self.env.monotonic_micros().saturating_sub(began_micros);
        let mut writer = self.writer.lock();
        writer.finish_sync(&unsynced);
        writer.tell(LogChange::Synced(micros));
        drop(writer);
        self.durable.fetch_max(unsynced.end, Ordering::Release);
        self.advanced.notify();
        Ok(())
    }

    /// After the tail of the log was given up: positions from here on will be used again. No sync is running.
    pub(crate) fn set_durable(&self, position: u64) {
        self.durable.store(position, Ordering::Release);
    }

    /// Runs `act` while no sync is running, after everything was made durable.
    pub(crate) fn synced<T>(&self, act: impl FnOnce(&mut Writer) -> Result<T>) -> Result<T> {
        let queue = self.queue.lock();
        self.take_turn(queue);
        let result = self.sync().and_then(|()| act(&mut self.writer.lock()));
        self.end_turn(&[], &result);
        result
    }

    /// Waits until no sync is running and claims the next.
    fn take_turn<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) {
        while queue.syncing {
            let seen = self.turn.epoch();
            drop(queue);
            self.env.wait(&self.turn, seen, None);
            queue = self.queue.lock();
        }
        queue.syncing = true;
    }

    /// Gives the turn to the next, tells the followers, and has those called whom the sync concerned.
    fn end_turn<T>(&self, followers: &[Arc<Follower>], result: &Result<T>) {
        let mut queue = self.queue.lock();
        queue.syncing = false;
        let failed = result.as_ref().err();
        let durable = self.durable();
        let due = queue.callbacks.extract_if(.., |(position, _)| *position <= durable || failed.is_some());
        let due: Vec<_> = due.collect();
        let more = !queue.callbacks.is_empty();
        drop(queue);
        self.turn.notify();
        for follower in followers {
            follower.tell(failed.map_or(Ok(()), |error| Err(error.clone())));
        }
        if more {
            self.work.notify();
        }
        self.call(due, failed);
    }

    /// Has these called: with the error, if there is one, unless their position is durable.
    fn call(&self, due: Vec<(Position, DurableCallback)>, failed: Option<&Error>) {
        let durable = self.durable();
        let result = |position| match failed {
            Some(error) if position > durable => Err(error.clone()),
            _ => Ok(()),
        };
        self.calls.add(&*self.env, due.into_iter().map(|(position, callback)| (callback, result(position))));
    }

    /// Leads a batch.
    fn lead<'a>(&'a self, queue: MutexGuard<'a, Queue>) -> Result<()> {
        let waits = queue.syncing;
        self.take_turn(queue);
        let mut queue = self.queue.lock();
        // Everyone whom the last sync covered is on the way back, and who waited for that sync's end is none of them.
        let expected = if waits {
            queue.followers.len() + queue.covered_before
        } else {
            queue.covered_before.saturating_sub(1)
        };
        let mut idle_yields = 0;
        while queue.followers.len() < expected && idle_yields < IDLE_YIELDS_MAX {
            let joined = queue.followers.len();
            drop(queue);
            yield_now();
            queue = self.queue.lock();
            idle_yields = if queue.followers.len() == joined { idle_yields + 1 } else { 0 };
        }
        let followers = std::mem::take(&mut queue.followers);
        queue.covered_before = 1 + followers.len();
        queue.led = false;
        drop(queue);
        let result = self.sync();
        self.end_turn(&followers, &result);
        result
    }

    /// Waits for the leader of the batch that was joined.
    fn follow(&self, follower: &Follower) -> Result<()> {
        loop {
            let seen = follower.told.epoch();
            if let Some(outcome) = &*follower.outcome.lock() {
                return outcome.clone();
            }
            self.env.wait(&follower.told, seen, None);
        }
    }

    /// For the background job: syncs for callbacks and for records that waited long enough, unless someone else
    /// is syncing already. Returns when to look again.
    pub(crate) fn sync_in_background(&self, lag_micros: Option<u64>) -> Option<u64> {
        let due_micros = {
            let writer = self.writer.lock();
            lag_micros
                .zip(writer.background.oldest_unsynced_micros)
                .map(|(lag, oldest)| oldest.saturating_add(lag))
        };
        let mut queue = self.queue.lock();
        let overdue = due_micros.is_some_and(|due| due <= self.env.monotonic_micros());
        if queue.callbacks.is_empty() && !overdue {
            return due_micros;
        }
        if queue.syncing {
            // Whoever is at it notifies `work` when callbacks remain; and a record that is still due then is
            // covered by the sync that begins now or was appended since.
            return lag_micros.map(|lag| self.env.monotonic_micros().saturating_add(lag));
        }
        queue.syncing = true;
        drop(queue);
        let result = self.sync();
        self.end_turn(&[], &result);
        None
    }

    /// The background job neither has nor makes a spare any more.
    pub(crate) fn end_preparing(&self) {
        self.writer.lock().background.preparing = false;
        self.turn.notify();
    }

    /// Ends the background job. It creates no file after this returns.
    pub(crate) fn retire(&self) {
        self.writer.lock().abandon();
        self.work.notify();
        loop {
            let seen = self.turn.epoch();
            if !self.writer.lock().background.preparing {
                return;
            }
            self.env.wait(&self.turn, seen, None);
        }
    }

    /// Microseconds since the oldest record was appended that is not durable and not being synced.
    pub(crate) fn sync_lag_micros(&self) -> u64 {
        let oldest = self.writer.lock().background.oldest_unsynced_micros;
        oldest.map_or(0, |oldest| self.env.monotonic_micros().saturating_sub(oldest))
    }

    /// Takes part in one sync, which covers `position` unless another one did or does.
    fn sync_with_others(&self, position: Position) -> Result<()> {
        if let Some(error) = self.hopeless(position) {
            return Err(error);
        }
        let mut queue = self.queue.lock();
        if queue.led {
            let follower = Arc::<Follower>::default();
            queue.followers.push(Arc::clone(&follower));
            drop(queue);
            self.follow(&follower)
        } else {
            queue.led = true;
            self.lead(queue)
        }
    }

    /// Why `position` cannot become durable, unless it is already; if that is known without a sync.
    fn hopeless(&self, position: Position) -> Option<Error> {
        let writer = self.writer.lock();
        if let Some(cause) = writer.stopped() {
            return Some(Error::Stopped { cause: Arc::clone(cause) });
        }
        let end = writer.end();
        (position.0 > end)
            .then(|| Error::invalid(format!("position {position} is beyond the end of the log, {end}")))
    }
}

impl LogSync for GroupCommit {
    fn wait_durable(&self, position: Position) -> Result<()> {
        while self.durable() < position {
            let result = self.sync_with_others(position);
            // The sync before may have covered the position, and the one that failed others.
            if self.durable() < position {
                result?;
            }
        }
        Ok(())
    }

    fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    fn advanced(&self) -> env::Event {
        self.advanced.clone()
    }

    fn truncate_front(&self, position: Position) -> Result<()> {
        if self.writer.lock().oldest_below(position.0).is_none() {
            return Ok(());
        }
        // What remains must have a durable beginning when the rest is gone.
        self.synced(|_| Ok(()))?;
        let _one_at_a_time = self.removing.lock();
        let Site { vfs, directory, .. } = &self.site;
        loop {
            let oldest = self.writer.lock().oldest_below(position.0);
            let Some(number) = oldest else { return Ok(()) };
            let path = LogFile::Segment(number).path(directory);
            directory::remove(&**vfs, &path)?;
            // One by one, so that what a power cut leaves has no gap.
            directory::sync(&**vfs, directory)?;
            let mut writer = self.writer.lock();
            writer.forget_oldest();
            writer.tell(LogChange::Removed(&path));
        }
    }

    fn begin_segment(&self) -> Result<Position> {
        let (begin, window) = self.synced(Writer::begin_segment)?;
        if let Some(path) = window {
            // A window is never synced while it is in use. What was wiped must not come back after a power cut.
            let synced = self.site.vfs.open_write(&path).and_then(|file| file.sync_data());
            synced.map_err(|error| Error::io("sync", &path, error))?;
        }
        Ok(Position(begin))
    }

    fn observe(&self, observer: LogObserver) {
        self.writer.lock().observe(observer);
    }

    fn on_durable(&self, position: Position, callback: DurableCallback) {
        let hopeless = self.hopeless(position);
        // Asked second: a sync may have covered the position before another one failed.
        let known = if self.durable() >= position { Some(Ok(())) } else { hopeless.map(Err) };
        if let Some(result) = known {
            return calls::call(callback, result);
        }
        self.queue.lock().callbacks.push((position, callback));
        self.work.notify();
        // The log may have been stopped or closed meanwhile, and with it the job.
        let ended = self.writer.lock().check();
        if ended.is_err() {
            let due = std::mem::take(&mut self.queue.lock().callbacks);
            self.call(due, ended.as_ref().err());
        }
    }
}
