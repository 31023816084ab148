//! `SimEnv`: a schedule is a function of its seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use lsm_core::env::{Env, Event, Job, Priority, SimEnv, Step};

/// A job made of a closure.
struct Steps<F>(F);

impl<F: FnMut() -> Step + Send> Job for Steps<F> {
    fn step(&mut self) -> Step {
        (self.0)()
    }
}

fn spawn(env: &SimEnv, priority: Priority, step: impl FnMut() -> Step + Send + 'static) {
    env.spawn(priority, Box::new(Steps(step)));
}

/// Jobs of all priorities that draw random numbers, wait for one another and for the clock.
fn history(seed: u64) -> Vec<String> {
    let env = SimEnv::new(seed);
    let (history, event, done) = (Arc::new(Mutex::new(Vec::new())), Event::new(), Event::new());
    for name in 0..9_u64 {
        let priority = [Priority::Low, Priority::Normal, Priority::High][(name % 3) as usize];
        let (history, event, done, clock) = (Arc::clone(&history), event.clone(), done.clone(), env.clone());
        let mut left = 10;
        spawn(&env, priority, move || {
            let (now, drawn) = (clock.monotonic_micros(), clock.random() % 4);
            history.lock().unwrap().push(format!("{name} at {now} drew {drawn}"));
            left -= 1;
            if left == 0 {
                done.notify();
                return Step::Done;
            }
            let epoch = event.epoch();
            match drawn {
                0 => Step::Pending { event: event.clone(), seen: epoch, deadline_micros: Some(now + 1000) },
                1 => {
                    event.notify();
                    Step::Again
                }
                _ => Step::Again,
            }
        });
    }
    while env.job_count() > 0 {
        let epoch = done.epoch();
        env.wait(&done, epoch, Some(env.monotonic_micros() + 100_000));
    }
    Arc::try_unwrap(history).unwrap().into_inner().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_gives_another() {
    for seed in 0..20 {
        assert_eq!(history(seed), history(seed));
        assert_ne!(history(seed), history(seed + 1));
        assert_eq!(history(seed).len(), 90);
    }
}

#[test]
fn higher_priorities_go_first_but_for_exceptions() {
    let (mut in_order, mut first) = (0, [0; 3]);
    for seed in 0..400 {
        let env = SimEnv::new(seed);
        let order = Arc::new(Mutex::new(Vec::new()));
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            let order = Arc::clone(&order);
            spawn(&env, priority, move || {
                order.lock().unwrap().push(priority);
                Step::Done
            });
        }
        assert_eq!(env.run_until_idle(), 3);
        let order = order.lock().unwrap();
        first[order[0] as usize] += 1;
        in_order += usize::from(*order == [Priority::High, Priority::Normal, Priority::Low]);
    }
    assert!(in_order > 280, "{in_order} of 400");
    assert!(first.iter().all(|count| *count > 5), "each priority goes first now and then: {first:?}");
}

#[test]
fn the_clock_jumps_to_the_nearest_deadline() {
    let env = SimEnv::new(1);
    let (event, never) = (Event::new(), Event::new());
    let (clock, notified) = (env.clone(), event.clone());
    let mut stepped = false;
    spawn(&env, Priority::Low, move || {
        if stepped {
            assert!(clock.monotonic_micros() >= 5_000_000);
            notified.notify();
            return Step::Done;
        }
        stepped = true;
        Step::Pending { event: never.clone(), seen: 0, deadline_micros: Some(5_000_000) }
    });
    let started = env.unix_micros();
    assert!(!env.wait(&event, 0, Some(3_000_000)));
    assert_eq!(env.monotonic_micros(), 3_000_000);
    assert!(env.wait(&event, 0, Some(9_000_000)));
    assert!((5_000_000..5_000_100).contains(&env.monotonic_micros()));
    assert!(env.unix_micros() - started >= 5_000_000);
    env.set_unix_micros(1000);
    assert_eq!(env.unix_micros(), 1000);
    env.advance(50);
    assert_eq!(env.unix_micros(), 1050);
}

#[test]
fn a_wait_that_cannot_end_is_called_a_deadlock() {
    let env = SimEnv::new(1);
    let never = Event::new();
    spawn(&env, Priority::Low, move || Step::Pending {
        event: never.clone(),
        seen: 0,
        deadline_micros: None,
    });
    let message = catch_unwind(AssertUnwindSafe(|| env.wait(&Event::new(), 0, None))).unwrap_err();
    let message = message.downcast::<String>().unwrap();
    assert!(message.starts_with("deadlock:"), "{message}");
    assert!(message.contains("1 jobs"), "{message}");
}

#[test]
fn a_job_that_waits_is_caught() {
    let env = SimEnv::new(1);
    let inner = env.clone();
    spawn(&env, Priority::Low, move || {
        inner.wait(&Event::new(), 0, Some(10));
        Step::Done
    });
    assert!(catch_unwind(AssertUnwindSafe(|| env.run_until_idle())).is_err());
    assert_eq!(env.run_until_idle(), 0, "the environment is usable afterwards");
}

#[test]
fn jobs_die_with_the_process() {
    let env = SimEnv::new(1);
    let token = Arc::new(());
    for _ in 0..3 {
        let (token, keeper) = (Arc::clone(&token), env.clone());
        spawn(&env, Priority::Low, move || {
            let _ = (&token, &keeper);
            Step::Pending { event: Event::new(), seen: 0, deadline_micros: None }
        });
    }
    env.step();
    assert_eq!(env.job_count(), 3);
    env.drop_jobs();
    assert_eq!(env.job_count(), 0);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn jobs_that_are_never_done_do_not_keep_the_clock_from_a_deadline() {
    let env = SimEnv::new(1);
    spawn(&env, Priority::High, || Step::Again);
    assert!(!env.wait(&Event::new(), 0, Some(500)));
    assert_eq!(env.steps(), 500);
}
