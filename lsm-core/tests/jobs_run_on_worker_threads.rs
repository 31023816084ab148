//! `ThreadEnv`: who runs when. Nothing here sleeps or measures time; a broken promise shows as a wrong order or as
//! a test that never ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use lsm_core::env::{Env, Event, Job, Priority, Step, ThreadEnv};

/// A job made of a closure.
struct Steps<F>(F);

impl<F: FnMut() -> Step + Send> Job for Steps<F> {
    fn step(&mut self) -> Step {
        (self.0)()
    }
}

fn job(step: impl FnMut() -> Step + Send + 'static) -> Box<dyn Job> {
    Box::new(Steps(step))
}

/// Occupies one worker until the returned sender sends, having begun.
fn block(env: &ThreadEnv, priority: Priority) -> Sender<()> {
    let (release, released) = channel();
    let (begin, running) = channel();
    env.spawn(
        priority,
        job(move || {
            begin.send(()).unwrap();
            released.recv().unwrap();
            Step::Done
        }),
    );
    running.recv().unwrap();
    release
}

fn recorder<T: Send + 'static>(
    env: &ThreadEnv,
    priority: Priority,
    sender: &Sender<T>,
    mut step: impl FnMut(&Sender<T>) -> Step + Send + 'static,
) {
    let sender = sender.clone();
    env.spawn(priority, job(move || step(&sender)));
}

#[test]
fn higher_priorities_go_first() {
    let env = ThreadEnv::new(1);
    assert_eq!(env.worker_count(), 1);
    let release = block(&env, Priority::Low);
    let (sender, order) = channel();
    for (name, priority) in [
        ("low", Priority::Low),
        ("normal", Priority::Normal),
        ("high", Priority::High),
        ("high too", Priority::High),
    ] {
        recorder(&env, priority, &sender, move |sender| {
            sender.send(name).unwrap();
            Step::Done
        });
    }
    release.send(()).unwrap();
    assert_eq!(order.iter().take(4).collect::<Vec<_>>(), ["high", "high too", "normal", "low"]);
}

#[test]
fn equal_jobs_take_turns() {
    let env = ThreadEnv::new(1);
    let release = block(&env, Priority::Normal);
    let (sender, order) = channel();
    for name in ["a", "b"] {
        let mut left = 3;
        recorder(&env, Priority::Normal, &sender, move |sender| {
            sender.send(name).unwrap();
            left -= 1;
            if left == 0 { Step::Done } else { Step::Again }
        });
    }
    release.send(()).unwrap();
    assert_eq!(order.iter().take(6).collect::<Vec<_>>(), ["a", "b", "a", "b", "a", "b"]);
}

#[test]
fn long_low_steps_never_hold_up_a_high_job() {
    for worker_count in [2, 3] {
        let env = ThreadEnv::new(worker_count);
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for _ in 0..4 {
            let released = Arc::clone(&released);
            // Steps that are not over before everything else is.
            env.spawn(
                Priority::Low,
                job(move || {
                    let _ = released.lock().unwrap().recv();
                    Step::Done
                }),
            );
        }
        let (sender, done) = channel();
        for round in 0..300 {
            recorder(&env, Priority::High, &sender, move |sender| {
                sender.send(round).unwrap();
                Step::Done
            });
            assert_eq!(done.recv().unwrap(), round);
        }
        drop(release);
    }
}

#[test]
fn a_pending_job_wakes_with_its_event() {
    let env = ThreadEnv::new(2);
    let (event, flag) = (Event::new(), Arc::new(AtomicU64::new(0)));
    let (sender, steps) = channel();
    let (seen_event, seen_flag) = (event.clone(), Arc::clone(&flag));
    recorder(&env, Priority::Normal, &sender, move |sender| {
        let seen = seen_event.epoch();
        let value = seen_flag.load(Ordering::SeqCst);
        sender.send(value).unwrap();
        if value == 3 {
            Step::Done
        } else {
            Step::Pending { event: seen_event.clone(), seen, deadline_micros: None }
        }
    });
    assert_eq!(steps.recv().unwrap(), 0);
    for value in 1..=3 {
        flag.store(value, Ordering::SeqCst);
        event.notify();
        assert_eq!(steps.iter().find(|seen| *seen == value), Some(value));
    }
}

#[test]
fn a_notification_before_the_job_is_set_aside_is_not_lost() {
    let env = ThreadEnv::new(1);
    let event = Event::new();
    let (sender, steps) = channel();
    let mut first = true;
    let notified = event.clone();
    recorder(&env, Priority::Normal, &sender, move |sender| {
        sender.send(()).unwrap();
        let seen = notified.epoch();
        // Whoever notifies here comes between the look and the wait.
        notified.notify();
        let step = if first {
            Step::Pending { event: notified.clone(), seen, deadline_micros: None }
        } else {
            Step::Done
        };
        first = false;
        step
    });
    steps.recv().unwrap();
    steps.recv().unwrap();
}

#[test]
fn a_pending_job_wakes_at_its_deadline() {
    let env = Arc::new(ThreadEnv::new(1));
    let (sender, deadlines) = channel();
    let mut deadline = None;
    let clock = Arc::downgrade(&env);
    recorder(&env, Priority::Low, &sender, move |sender| {
        let now = clock.upgrade().map_or(0, |env| env.monotonic_micros());
        match deadline {
            Some(deadline) if now >= deadline => {
                sender.send((deadline, now)).unwrap();
                Step::Done
            }
            _ => {
                let at = *deadline.get_or_insert(now + 2000);
                Step::Pending { event: Event::new(), seen: 0, deadline_micros: Some(at) }
            }
        }
    });
    let (deadline, now) = deadlines.recv().unwrap();
    assert!(now >= deadline);
}

#[test]
fn a_nearer_deadline_does_not_wait_for_a_farther_one() {
    let env = Arc::new(ThreadEnv::new(2));
    let (sender, done) = channel();
    // Both workers end up asleep until the far deadline, which never comes.
    for deadline in [u64::MAX, u64::MAX / 2, env.monotonic_micros() + 3000] {
        let mut stepped = false;
        recorder(&env, Priority::Normal, &sender, move |sender| {
            if stepped {
                sender.send(deadline).unwrap();
                return Step::Done;
            }
            stepped = true;
            Step::Pending { event: Event::new(), seen: 0, deadline_micros: Some(deadline) }
        });
    }
    let deadline = done.recv().unwrap();
    assert!(env.monotonic_micros() >= deadline);
}

#[test]
fn an_idle_worker_takes_over_the_deadline_of_a_busy_one() {
    let env = ThreadEnv::new(2);
    let (sender, done) = channel();
    recorder(&env, Priority::Normal, &sender, |_| Step::Pending {
        event: Event::new(),
        seen: 0,
        deadline_micros: Some(u64::MAX / 2),
    });
    let deadline = env.monotonic_micros() + 3000;
    let (release, released) = channel();
    let (begin, running) = channel();
    let mut first = true;
    recorder(&env, Priority::Normal, &sender, move |sender| {
        if !first {
            sender.send(()).unwrap();
            return Step::Done;
        }
        first = false;
        begin.send(()).unwrap();
        released.recv().unwrap();
        Step::Pending { event: Event::new(), seen: 0, deadline_micros: Some(deadline) }
    });
    running.recv().unwrap();
    // Keeps the worker that takes low jobs, most likely the one above, from its timers.
    let (unblock, blocked) = channel::<()>();
    recorder(&env, Priority::Low, &sender, move |_| {
        let _ = blocked.recv();
        Step::Done
    });
    release.send(()).unwrap();
    done.recv().unwrap();
    drop(unblock);
}

#[test]
fn a_panicking_job_is_dropped_and_the_worker_goes_on() {
    let env = ThreadEnv::new(1);
    let (sender, done) = channel();
    recorder(&env, Priority::High, &sender, |_| panic!("this panic is part of the test"));
    recorder(&env, Priority::Low, &sender, |sender| {
        sender.send("alive").unwrap();
        Step::Done
    });
    drop(sender);
    assert_eq!(done.iter().collect::<Vec<_>>(), ["alive"], "and the panicking job has dropped its sender");
}

#[test]
fn dropping_the_environment_drops_every_job() {
    let env = ThreadEnv::new(2);
    let (sender, messages): (Sender<()>, Receiver<()>) = channel();
    let release = block(&env, Priority::High);
    let (begin, running) = channel();
    for event in [Event::new(), Event::new()] {
        let begin = begin.clone();
        recorder(&env, Priority::Normal, &sender, move |_| {
            begin.send(()).unwrap();
            Step::Pending { event: event.clone(), seen: 0, deadline_micros: None }
        });
        running.recv().unwrap();
    }
    recorder(&env, Priority::Low, &sender, |_| Step::Again);
    drop(sender);
    release.send(()).unwrap();
    drop(env);
    assert!(messages.recv().is_err(), "pending, running and queued jobs are gone with their senders");
}

#[test]
fn a_job_may_hold_the_last_reference() {
    let env = Arc::new(ThreadEnv::new(1));
    let (sender, done) = channel();
    let release = block(&env, Priority::Normal);
    let mut held = Some(Arc::clone(&env));
    recorder(&env, Priority::Normal, &sender, move |sender| {
        drop(held.take());
        sender.send(()).unwrap();
        Step::Done
    });
    drop(env);
    release.send(()).unwrap();
    done.recv().unwrap();
}

#[test]
fn waiting_ends_at_the_deadline_or_with_the_event() {
    let env = ThreadEnv::new(1);
    let event = Event::new();
    let deadline = env.monotonic_micros() + 1500;
    assert!(!env.wait(&event, 0, Some(deadline)));
    assert!(env.monotonic_micros() >= deadline);
    assert!(!env.wait(&event, 0, Some(0)), "a deadline in the past");
    event.notify();
    assert!(env.wait(&event, 0, None), "notified before");
    let seen = event.epoch();
    let notified = event.clone();
    env.spawn(
        Priority::Low,
        job(move || {
            notified.notify();
            Step::Done
        }),
    );
    assert!(env.wait(&event, seen, Some(u64::MAX)));
}

#[test]
fn no_notification_is_lost_between_many_clients_and_a_job() {
    const CLIENTS: u64 = 4;
    const REQUESTS: u64 = 2000;
    let env = ThreadEnv::new(2);
    let (requested, answered) = (Event::new(), Event::new());
    let queue: Arc<Mutex<VecDeque<Arc<AtomicU64>>>> = Arc::default();
    let (jobs_queue, jobs_requested, jobs_answered) =
        (Arc::clone(&queue), requested.clone(), answered.clone());
    let mut served = 0;
    env.spawn(
        Priority::High,
        job(move || {
            let seen = jobs_requested.epoch();
            let requests = std::mem::take(&mut *jobs_queue.lock().unwrap());
            if requests.is_empty() {
                return Step::Pending { event: jobs_requested.clone(), seen, deadline_micros: None };
            }
            served += requests.len() as u64;
            for request in requests {
                request.store(1, Ordering::Release);
            }
            jobs_answered.notify();
            if served == CLIENTS * REQUESTS { Step::Done } else { Step::Again }
        }),
    );
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..REQUESTS {
                    let answer = Arc::new(AtomicU64::new(0));
                    queue.lock().unwrap().push_back(Arc::clone(&answer));
                    requested.notify();
                    loop {
                        let seen = answered.epoch();
                        if answer.load(Ordering::Acquire) == 1 {
                            break;
                        }
                        env.wait(&answered, seen, None);
                    }
                }
            });
        }
    });
}

#[test]
fn randomness_repeats_only_when_it_was_seeded() {
    let draw = |env: &ThreadEnv| (0..100).map(|_| env.random()).collect::<Vec<_>>();
    let seeded = draw(&ThreadEnv::with_seed(1, 5));
    assert_eq!(seeded, draw(&ThreadEnv::with_seed(1, 5)));
    assert_ne!(seeded, draw(&ThreadEnv::with_seed(1, 6)));
    let mut system: Vec<u64> = [draw(&ThreadEnv::new(1)), draw(&ThreadEnv::new(1))].concat();
    system.sort_unstable();
    system.dedup();
    assert_eq!(system.len(), 200);
    assert!(ThreadEnv::new(1).unix_micros() > 1_700_000_000_000_000, "after 2023");
}
