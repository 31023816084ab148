//! A write that does not wait for the disk returns a ticket, which tells when the write is durable: when asked, to a
//! thread that waits, to a task that awaits it, to a callback.

use std::io::ErrorKind as Io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use lsm_engine::env::{Env, Event, SimEnv, ThreadEnv};
use lsm_engine::vfs::{AllLost, Fault, OperationKind, SimFs};
use lsm_engine::{
    BuiltInMerge, Db, Durability, ErrorKind, EventKind, KeyspaceOptions, Options, Result, Ticket, WriteBatch,
};

struct World {
    fs: SimFs,
    env: SimEnv,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: SimEnv::new(1) }
    }

    fn open(&self) -> Db {
        let env = Arc::new(self.env.clone()) as Arc<dyn Env>;
        Options::new().memory(8 << 20).vfs(Arc::new(self.fs.clone())).env(env).open("/db").unwrap()
    }

    /// The database after a power cut now.
    fn after_a_power_cut(&self) -> Db {
        Self { fs: self.fs.power_cut(&mut AllLost), env: SimEnv::new(2) }.open()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

/// What callbacks were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Result<()>>>>);

impl Told {
    fn by(&self, ticket: &Ticket) {
        let told = self.clone();
        ticket.on_durable(move |result| told.0.lock().unwrap().push(result));
    }

    fn take(&self) -> Vec<Result<()>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A task of a small executor: it is polled after it was woken.
struct Task<F> {
    future: F,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool, Event);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        self.1.notify();
    }
}

/// Runs futures to their end, on this thread.
fn run_all<F: IntoFuture<IntoFuture: Unpin>>(
    env: &dyn Env,
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    let event = Event::new();
    let task = |future: F| Task {
        future: future.into_future(),
        woken: Arc::new(Woken(AtomicBool::new(true), event.clone())),
    };
    let mut tasks: Vec<_> = futures.into_iter().map(task).collect();
    let mut results = Vec::new();
    loop {
        let seen = event.epoch();
        tasks.retain_mut(|Task { future, woken }| {
            if !woken.0.swap(false, Ordering::SeqCst) {
                return true;
            }
            let waker = Waker::from(Arc::clone(woken));
            match Pin::new(future).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => results.push(result),
                Poll::Pending => return true,
            }
            false
        });
        if tasks.is_empty() {
            return results;
        }
        env.wait(&event, seen, None);
    }
}

#[test]
fn a_submitted_write_is_visible_at_once_and_durable_when_the_ticket_says_so() {
    let world = World::new();
    let db = world.open();
    let space = db.keyspace("space", KeyspaceOptions::new()).unwrap();
    db.put("deleted", "value").unwrap();
    let mut batch = WriteBatch::new();
    batch.put("batch", "1").put_in(&space, "batch", "2");
    let tickets = [
        db.submit_put("key", "value").unwrap(),
        db.submit_delete("deleted").unwrap(),
        space.submit_put("key", "value").unwrap(),
        space.submit_delete("nothing").unwrap(),
        db.submit(batch).unwrap(),
    ];
    assert_eq!(db.iter().keys_only(), ["batch", "key"]);
    assert_eq!(space.iter().keys_only(), ["batch", "key"]);
    assert!(tickets.iter().all(|ticket| !ticket.is_durable()));
    assert_eq!(world.after_a_power_cut().iter().count(), 0);
    tickets[4].wait().unwrap();
    assert!(tickets.iter().all(Ticket::is_durable));
    let later = world.after_a_power_cut();
    assert_eq!(later.iter().keys_only(), ["batch", "key"]);
    assert_eq!(later.existing_keyspace("space").unwrap().unwrap().iter().keys_only(), ["batch", "key"]);
}

trait KeysOnly {
    fn keys_only(self) -> Vec<String>;
}

impl KeysOnly for lsm_engine::Iter {
    fn keys_only(self) -> Vec<String> {
        self.map(|entry| String::from_utf8(entry.unwrap().0.to_vec()).unwrap()).collect()
    }
}

/// Each kind of write, of the database and of a keyspace, with a durability and with a ticket.
#[test]
fn every_kind_of_write_can_be_synced_and_submitted() -> Result<()> {
    use Durability::Sync;
    const HOUR: Duration = Duration::from_secs(3600);
    let env = Arc::new(SimEnv::new(1));
    let options =
        Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.merge_operator(Arc::new(BuiltInMerge::append(","))).open("/db")?;
    let default = db.default_keyspace();
    let synced: [&dyn Fn() -> Result<()>; 12] = [
        &|| db.put_with("put", "1", Sync),
        &|| db.merge_with("put", "2", Sync),
        &|| db.put_expiring_with("expiring", "1", HOUR, Sync),
        &|| db.delete_with("put", Sync),
        &|| db.single_delete_with("expiring", Sync),
        &|| db.delete_range_with("a".."z", Sync),
        &|| default.put_with("put", "1", Sync),
        &|| default.merge_with("put", "2", Sync),
        &|| default.put_expiring_with("expiring", "1", HOUR, Sync),
        &|| default.delete_with("put", Sync),
        &|| default.single_delete_with("expiring", Sync),
        &|| default.delete_range_with("a".."z", Sync),
    ];
    let submitted: [&dyn Fn() -> Result<Ticket>; 12] = [
        &|| db.submit_put("put", "1"),
        &|| db.submit_merge("put", "2"),
        &|| db.submit_put_expiring("expiring", "1", HOUR),
        &|| db.submit_delete("put"),
        &|| db.submit_single_delete("expiring"),
        &|| db.submit_delete_range("a".."z"),
        &|| default.submit_put("put", "1"),
        &|| default.submit_merge("put", "2"),
        &|| default.submit_put_expiring("expiring", "1", HOUR),
        &|| default.submit_delete("put"),
        &|| default.submit_single_delete("expiring"),
        &|| default.submit_delete_range("a".."z"),
    ];
    // What is there after each of six writes.
    let counts = [1, 1, 2, 1, 0, 0];
    for (index, write) in synced.iter().enumerate() {
        write()?;
        assert_eq!(db.metrics().unsynced_log_bytes, 0, "{index}");
        assert_eq!(db.iter().count(), counts[index % 6], "{index}");
    }
    for (index, write) in submitted.iter().enumerate() {
        let ticket = write()?;
        assert!(!ticket.is_durable(), "{index}");
        assert_eq!(db.iter().count(), counts[index % 6], "{index}");
        ticket.wait()?;
        assert_eq!(db.metrics().unsynced_log_bytes, 0, "{index}");
    }
    for error in [
        db.delete_range_with("b".."a", Sync).unwrap_err(),
        db.submit_delete_range("b".."a").unwrap_err(),
        db.put_expiring_with("key", "1", Duration::MAX, Sync).unwrap_err(),
        db.submit_put_expiring("key", "1", Duration::MAX).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    drop((default, db));
    env.drop_jobs();
    Ok(())
}

#[test]
fn a_ticket_has_the_sequence_number_at_which_its_write_is_visible() {
    let world = World::new();
    let db = world.open();
    let before = db.snapshot().unwrap();
    let mut batch = WriteBatch::new();
    batch.put("a", "1").put("b", "2").put("c", "3");
    let ticket = db.submit(&batch).unwrap();
    assert_eq!(ticket.sequence(), db.snapshot().unwrap().sequence());
    assert_eq!(ticket.sequence(), before.sequence() + 3);
    assert_eq!(db.submit_put("d", "4").unwrap().sequence(), ticket.sequence() + 1);
    let empty = db.submit(WriteBatch::new()).unwrap();
    assert_eq!(empty.sequence(), ticket.sequence() + 1);
    assert!(empty.is_durable(), "nothing has to become durable");
    assert!(!ticket.is_durable());
}

#[test]
fn ten_thousand_tasks_await_their_writes_on_one_thread() {
    let world = World::new();
    let db = world.open();
    let tickets: Vec<_> = (0..10_000_u32).map(|key| db.submit_put(key.to_be_bytes(), "x").unwrap()).collect();
    let (jobs, begun_micros) = (world.env.job_count(), world.env.monotonic_micros());
    let results = run_all(&world.env, tickets);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10_000);
    assert_eq!(world.env.job_count(), jobs);
    // The background sync would come after a second.
    assert!(world.env.monotonic_micros() - begun_micros < 100_000);
    assert_eq!(world.after_a_power_cut().iter().count(), 10_000);
}

#[test]
fn tasks_of_many_threads_are_woken() {
    let env = Arc::new(ThreadEnv::new(2));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (db, env) = (&db, &env);
            scope.spawn(move || {
                for round in 0..20 {
                    let put = |key| db.submit_put([thread, round, key].map(u32::to_be_bytes).concat(), "x");
                    let results = run_all(&**env, (0..50).map(|key| put(key).unwrap()));
                    assert!(results.iter().all(Result::is_ok));
                }
            });
        }
    });
    assert_eq!(db.iter().count(), 4 * 20 * 50);
    db.close().unwrap();
}

#[test]
fn callbacks_run_in_the_background_or_at_once_if_the_answer_is_known() {
    let world = World::new();
    let (db, told) = (world.open(), Told::default());
    let ticket = db.submit_put("key", "value").unwrap();
    told.by(&ticket);
    assert!(told.take().is_empty());
    world.env.run_until_idle();
    assert!(matches!(told.take()[..], [Ok(())]), "asked for, so not after the usual second");
    told.by(&ticket);
    assert!(matches!(told.take()[..], [Ok(())]));
    db.close().unwrap();
    told.by(&ticket);
    assert!(matches!(told.take()[..], [Ok(())]), "the database is closed, and the write is durable");
    ticket.wait().unwrap();
}

#[test]
fn closing_a_database_calls_every_callback_once() {
    for close in [true, false] {
        let world = World::new();
        let (db, told) = (world.open(), Told::default());
        for key in 0..100_u32 {
            told.by(&db.submit_put(key.to_be_bytes(), "value").unwrap());
        }
        if close {
            db.close().unwrap();
        } else {
            drop(db);
        }
        let results = told.take();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100, "{results:?}");
    }
}

#[test]
fn a_failed_sync_fails_its_tickets_and_all_later_ones_with_its_cause() {
    for close in [true, false] {
        let world = World::new();
        let (db, told) = (world.open(), Told::default());
        let durable = db.submit_put("durable", "value").unwrap();
        durable.wait().unwrap();
        world.fs.inject(Fault::on(OperationKind::Sync, Io::Other).named(".wal").sticky());
        let tickets = [(); 3].map(|()| db.submit_put("key", "value").unwrap());
        for ticket in &tickets {
            told.by(ticket);
        }
        if close {
            db.clone().close().unwrap_err();
        } else {
            world.env.run_until_idle();
        }
        let results = told.take();
        assert_eq!(results.len(), 3);
        for error in results.into_iter().chain(run_all(&world.env, tickets.clone())) {
            let error = error.unwrap_err();
            assert!(error.to_string().contains("cannot sync"), "{error}");
        }
        for ticket in tickets {
            assert!(!ticket.is_durable());
            assert_eq!(ticket.wait().unwrap_err().kind(), ErrorKind::ReadOnly);
        }
        assert!(db.submit_put("later", "value").is_err());
        durable.wait().unwrap();
        assert!(told.take().is_empty());
    }
}

#[test]
fn a_callback_may_use_the_database_but_not_wait_for_background_work() {
    let world = World::new();
    let db = world.open();
    let (space, results) = (db.keyspace("space", KeyspaceOptions::new()).unwrap(), Told::default());
    let (inner, told) = (db.clone(), results.clone());
    db.submit_put("key", "value").unwrap().on_durable(move |result| {
        result.unwrap();
        assert_eq!(inner.get("key").unwrap().unwrap(), b"value");
        inner.put("put", "value").unwrap();
        let nested = inner.submit_put("nested", "value").unwrap();
        told.by(&nested);
        space.submit_put("waited for", "value").unwrap().wait().unwrap();
        for waits in [inner.flush(), inner.wait_for_compactions(), inner.clone().close()] {
            let error = waits.unwrap_err();
            assert!(error.to_string().contains("callback"), "{error}");
        }
        told.0.lock().unwrap().push(Ok(()));
    });
    world.env.run_until_idle();
    assert_eq!(results.take().len(), 2, "the callback and the nested one have run to their ends");
    assert_eq!(db.iter().keys_only(), ["key", "nested", "put"]);
    db.close().unwrap();
}

#[test]
fn a_callback_may_hold_the_last_handle() {
    let world = World::new();
    let (db, told) = (world.open(), Told::default());
    let tickets = [(); 3].map(|()| db.submit_put("key", "value").unwrap());
    tickets[0].on_durable(move |_| drop(db));
    told.by(&tickets[1]);
    told.by(&tickets[2]);
    world.env.run_until_idle();
    assert_eq!(told.take().iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(world.open().iter().keys_only(), ["key"]);
}

#[test]
fn a_panic_in_a_callback_harms_nobody_else() {
    let world = World::new();
    let (db, told) = (world.open(), Told::default());
    let tickets = [(); 3].map(|()| db.submit_put("key", "value").unwrap());
    told.by(&tickets[0]);
    let mut events = db.events();
    tickets[1].on_durable(|_| panic!("of a callback"));
    told.by(&tickets[2]);
    world.env.run_until_idle();
    assert_eq!(told.take().iter().filter(|result| result.is_ok()).count(), 2);
    let is_reported = |kind: &EventKind| match kind {
        EventKind::Error { message, .. } => message.contains("of a callback"),
        _ => false,
    };
    assert!(std::iter::from_fn(|| events.try_next()).any(|event| is_reported(&event.kind)));
    // Also one that runs at once.
    tickets[1].on_durable(|_| panic!("of a callback"));
    let of_nothing = db.transaction().unwrap().commit().unwrap();
    of_nothing.on_durable(|_| panic!("of a callback"));
    told.by(&db.submit_put("key", "value").unwrap());
    db.put("other", "value").unwrap();
    db.close().unwrap();
    assert!(matches!(told.take()[..], [Ok(())]));
}

/// A callback may take a lock that a thread holds while it writes durably.
#[test]
fn callbacks_do_not_run_on_threads_that_write() {
    let env = Arc::new(ThreadEnv::new(1));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    for _ in 0..100 {
        let (by, called) = (Arc::new(Mutex::new(None)), Event::new());
        let (slot, notified) = (Arc::clone(&by), called.clone());
        db.submit_put("key", "value").unwrap().on_durable(move |_| {
            *slot.lock().unwrap() = Some(thread::current().id());
            notified.notify();
        });
        db.sync().unwrap();
        env.wait(&called, 0, None);
        assert_ne!(by.lock().unwrap().unwrap(), thread::current().id());
    }
    db.close().unwrap();
}

#[test]
fn a_forked_child_cannot_wait_for_a_ticket() {
    let world = World::new();
    let (db, told) = (world.open(), Told::default());
    let ticket = db.submit_put("key", "value").unwrap();
    world.env.set_forked(true);
    let before = (world.env.steps(), world.fs.operations());
    let error = ticket.wait().unwrap_err();
    assert!(error.to_string().contains("forked"), "{error}");
    told.by(&ticket);
    let error = told.take().pop().unwrap().unwrap_err();
    assert!(error.to_string().contains("forked"), "{error}");
    assert_eq!((world.env.steps(), world.fs.operations()), before);
    world.env.set_forked(false);
    ticket.wait().unwrap();
    db.close().unwrap();
}
