//! A ticket can be asked, waited for, awaited without a runtime, and tells a callback. Callbacks are called once, in the
//! background, whatever happens to the log.

use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use lsm_core::env::{Env, Event, SimEnv, ThreadEnv};
use lsm_core::vfs::{AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_core::{Error, Result};
use lsm_wal::{
    FirstSegment, Log, LogExpectation, Position, RecoveryMode, Ticket, TicketFuture, Wal, WalOptions,
    WalReader,
};
use parking_lot::Mutex;

fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/log")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

fn create(fs: &SimFs, env: Arc<dyn Env>) -> Wal {
    let options = WalOptions { segment_bytes: 64 << 10, window_bytes: 4096, ..WalOptions::default() };
    Wal::create(Arc::new(fs.clone()), env, Path::new("/log"), FirstSegment::default(), options).unwrap()
}

fn ticket(log: &mut Wal) -> Ticket {
    let position = log.append(1, b"record").unwrap();
    log.ticket(position)
}

/// Where the log would end if the power failed now.
fn end_on_disk(fs: &SimFs) -> Position {
    let disk = Arc::new(fs.power_cut(&mut AllLost));

    let mut reader =
        WalReader::open(disk, Path::new("/log"), &LogExpectation::default(), RecoveryMode::default())
            .unwrap();
    while reader.next().unwrap().is_some() {}
    reader.report().end
}

/// What callbacks were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Result<()>>>>);

impl Told {
    fn by(&self, ticket: &Ticket) {
        let told = self.clone();
        ticket.on_durable(move |result| told.0.lock().push(result));
    }

    fn take(&self) -> Vec<Result<()>> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// An executor in ten lines: polls the futures that were woken, and waits for the next wake through the environment.
#[derive(Clone, Default)]
struct Woken(Event, Arc<AtomicBool>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.notify();
    }
}

fn run_all(env: &dyn Env, futures: impl IntoIterator<Item = TicketFuture>) -> Vec<Result<()>> {
    let woken = Woken::default();
    let mut tasks: Vec<_> = futures
        .into_iter()
        .map(|future| (future, Woken(woken.0.clone(), Arc::new(AtomicBool::new(true)))))
        .collect();
    let mut results = Vec::new();
    while !tasks.is_empty() {
        let seen = woken.0.epoch();
        tasks.retain_mut(|(future, own)| {
            if !own.1.swap(false, Ordering::SeqCst) {
                return true;
            }
            let waker = Waker::from(Arc::new(own.clone()));
            match Pin::new(future).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => results.push(result),
                Poll::Pending => return true,
            }
            false
        });
        if !tasks.is_empty() {
            env.wait(&woken.0, seen, None);
        }
    }
    results
}

#[test]
fn ten_thousand_records_are_awaited_on_one_thread_with_a_few_syncs() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let tickets: Vec<Ticket> = (0..10_000).map(|_| ticket(&mut log)).collect();
    let before = fs.operations();
    let (last, jobs) = (tickets.last().unwrap().clone(), env.job_count());
    let results = run_all(&env, tickets.into_iter().map(Ticket::into_future));
    assert_eq!(results.len(), 10_000);
    assert!(results.iter().all(Result::is_ok));
    assert!(end_on_disk(&fs) >= last.position());
    assert_eq!(env.job_count(), jobs, "the job that woke them has ended");
    let operations = fs.operations() - before;
    assert!(operations < 500, "{operations} operations of the file system");
    drop(log);
    env.drop_jobs();
}

#[test]
fn an_awaited_record_is_synced_at_once_and_not_after_the_lag() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let ticket = ticket(&mut log);
    assert!(!ticket.is_durable());
    let begun_micros = env.monotonic_micros();
    run_all(&env, [ticket.clone().into_future()]).pop().unwrap().unwrap();
    assert!(ticket.is_durable());
    let micros = env.monotonic_micros() - begun_micros;
    assert!(micros < 1000, "{micros} microseconds");
    drop(log);
    env.drop_jobs();
}

#[test]
fn a_future_wakes_the_task_that_polled_it_last() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let mut future = ticket(&mut log).into_future();
    let (first, second) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    for task in [&first, &second] {
        let waker = Waker::from(Arc::clone(task));
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    env.run_until_idle();
    assert_eq!((first.0.epoch(), second.0.epoch()), (0, 1));
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(Pin::new(&mut future).poll(&mut context), Poll::Ready(Ok(()))));
    drop(log);
    env.drop_jobs();
}

/// Whoever syncs for itself may hold locks that a callback of somebody else takes.
#[test]
fn a_callback_is_not_called_by_a_thread_that_syncs_for_itself() {
    let (fs, env) = (disk(), Arc::new(ThreadEnv::new(1)));
    let mut log = create(&fs, Arc::clone(&env) as Arc<dyn Env>);
    for _ in 0..100 {
        let (first, second) = (ticket(&mut log), ticket(&mut log));
        let (by, called) = (Arc::new(Mutex::new(None)), Event::new());
        let (slot, notified) = (Arc::clone(&by), called.clone());
        first.on_durable(move |result| {
            result.unwrap();
            *slot.lock() = Some(thread::current().id());
            notified.notify();
        });
        second.wait().unwrap();
        env.wait(&called, 0, None);
        assert_ne!(by.lock().unwrap(), thread::current().id());
    }
}

#[test]
fn a_known_answer_is_told_at_once() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let (ticket, told) = (ticket(&mut log), Told::default());
    ticket.wait().unwrap();
    told.by(&ticket);
    assert!(matches!(told.take()[..], [Ok(())]));
    let beyond = log.ticket(Position(ticket.position().0 + 8));
    told.by(&beyond);
    assert!(matches!(told.take()[..], [Err(Error::InvalidArgument { .. })]));
    drop(log);
    told.by(&ticket);
    assert!(matches!(told.take()[..], [Ok(())]), "the log is gone");
    env.drop_jobs();
}

#[test]
fn a_failed_sync_fails_every_ticket_with_its_cause_and_each_once() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let told = Told::default();
    let durable = ticket(&mut log);
    durable.wait().unwrap();
    let (first, second) = (ticket(&mut log), ticket(&mut log));
    fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other).named("000001.wal"));
    told.by(&first);
    told.by(&second);
    let awaited = run_all(&env, [second.clone().into_future()]);
    env.run_until_idle();
    assert!(matches!(told.take()[..], [Err(Error::Io { .. }), Err(Error::Io { .. })]));
    assert!(matches!(awaited[..], [Err(Error::Io { .. })]));
    told.by(&second);
    let Some(Err(error @ Error::Stopped { .. })) = told.take().pop() else {
        panic!("a later ticket is told why")
    };
    assert!(error.to_string().contains("sync"), "{error}");
    assert!(matches!(run_all(&env, [second.into_future()])[..], [Err(Error::Stopped { .. })]));
    assert!(first.wait().is_err());
    durable.wait().unwrap();
    told.by(&durable);
    assert!(matches!(told.take()[..], [Ok(())]));
    assert!(Box::new(log).close().is_err());
    assert!(told.take().is_empty());
    env.drop_jobs();
}

/// A failed write is no failed sync: what it had to write is still in the window.
#[test]
fn a_sync_that_finds_the_disk_full_fails_its_callbacks_and_a_later_one_succeeds() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let (ticket, told) = (ticket(&mut log), Told::default());
    fs.inject(Fault::on(OperationKind::Write, ErrorKind::StorageFull).named("000001.wal"));
    told.by(&ticket);
    env.run_until_idle();
    assert!(matches!(&told.take()[..], [Err(error)] if error.is_disk_full()));
    assert!(!ticket.is_durable());
    told.by(&ticket);
    env.run_until_idle();
    assert!(matches!(told.take()[..], [Ok(())]));
    assert!(end_on_disk(&fs) >= ticket.position());
    drop(log);
    env.drop_jobs();
}

#[test]
fn closing_calls_everybody_once_before_it_returns() {
    for env in [None, Some(2)] {
        let fs = disk();
        let simulated = SimEnv::new(1);
        let env: Arc<dyn Env> = match env {
            None => Arc::new(simulated.clone()),
            Some(threads) => Arc::new(ThreadEnv::new(threads)),
        };
        let mut log = create(&fs, env);
        let told = Told::default();
        (0..200).for_each(|_| told.by(&ticket(&mut log)));
        Box::new(log).close().unwrap();
        let results = told.take();
        assert_eq!(results.len(), 200);
        assert!(results.iter().all(Result::is_ok));
        simulated.drop_jobs();
    }
}

#[test]
fn a_callback_may_own_the_log_and_close_it() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let (first, second) = (ticket(&mut log), ticket(&mut log));
    let told = Told::default();
    first.on_durable(move |_| {
        Box::new(log).close().unwrap();
    });
    told.by(&second);
    env.run_until_idle();
    assert!(matches!(told.take()[..], [Ok(())]));
    second.wait().unwrap();
    env.drop_jobs();
}

#[test]
fn a_panic_in_a_callback_does_not_stop_the_others() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let (first, second) = (ticket(&mut log), ticket(&mut log));
    let told = Told::default();
    first.on_durable(|_| panic!("of a callback"));
    told.by(&second);
    env.run_until_idle();
    assert!(matches!(told.take()[..], [Ok(())]));
    let third = ticket(&mut log);
    told.by(&third);
    env.run_until_idle();
    assert!(matches!(told.take()[..], [Ok(())]));
    drop(log);
    env.drop_jobs();
}

/// Jobs are dropped when their process or their environment ends.
#[test]
fn a_log_whose_jobs_are_gone_can_be_closed() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let told = Told::default();
    let first = ticket(&mut log);
    told.by(&first);
    first.wait().unwrap();
    env.drop_jobs();
    told.by(&ticket(&mut log));
    Box::new(log).close().unwrap();
    drop(first);
    let results = told.take();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(Result::is_ok));
}

/// The last thread of the environment ends before it has called everybody.
#[test]
fn everybody_is_called_when_the_environment_ends() {
    let (fs, env) = (disk(), SimEnv::new(1));
    let mut log = create(&fs, Arc::new(env.clone()));
    let called = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let called = Arc::clone(&called);
        ticket(&mut log).on_durable(move |_| {
            called.fetch_add(1, Ordering::Relaxed);
        });
    }
    drop(log);
    assert_eq!(called.load(Ordering::Relaxed), 0, "a drop does not wait");
    env.drop_jobs();
    assert_eq!(called.load(Ordering::Relaxed), 3);
}
