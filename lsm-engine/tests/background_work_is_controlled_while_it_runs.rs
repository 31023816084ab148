//! Pauses of background work, cancelled manual compactions, the rate of deep merges, and options that change live.

use std::path::Path;
use std::sync::{Arc, Mutex};

use lsm_dev::{Hook, Layer, Observed};
use lsm_engine::compaction_policies::{Leveled, LeveledOptions};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Compression, Db, ErrorKind, EventKind, Health, Options, WaitReason};

const MEMORY: usize = 1 << 20;

/// Steps of jobs before the hook is called, so that they could do what they must not.
const STEPS: usize = 50;

/// A database on one thread. Whenever a caller waits, a hook is called with the number of the wait.
struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
    hook: Hook<()>,
    db: Db,
}

impl World {
    fn new(memory: usize, steps: usize) -> Self {
        let (fs, env, hook) = (SimFs::new(), Arc::new(SimEnv::new(1)), Hook::default());
        let observed = Layer(Observed { env: Arc::clone(&env), hook: Arc::clone(&hook), micros: 0, steps });
        let options = Options::new().memory(memory).vfs(Arc::new(fs.clone()));
        let db = options.env(Arc::new(observed)).open("/db").unwrap();
        Self { fs, env, hook, db }
    }

    fn at_each_wait(&self, then: impl FnMut(&Db, usize) + Send + 'static) -> Arc<Mutex<Vec<WaitReason>>> {
        let (db, reasons, mut then) = (self.db.clone(), Arc::new(Mutex::new(Vec::new())), then);
        let seen = Arc::clone(&reasons);
        *self.hook.lock().unwrap() = Some(Box::new(move |()| {
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.extend(db.waits().iter().map(|wait| wait.why));
                seen.len()
            };
            then(&db, count);
        }));
        reasons
    }

    fn fill(&self, count: usize) {
        for key in 0..count {
            self.db.put(format!("key{key:05}"), [b'v'; 1000]).unwrap();
        }
    }

    fn check(&self, count: usize) {
        let found =
            self.db.iter().map(|entry| entry.unwrap()).inspect(|(_, value)| assert_eq!(*value, [b'v'; 1000]));
        assert_eq!(found.count(), count);
    }

    fn end(self) {
        *self.hook.lock().unwrap() = None;
        assert_eq!(self.db.waits(), []);
        self.db.close().unwrap();
        self.env.drop_jobs();
    }
}

#[test]
fn writers_that_a_pause_makes_wait_are_told_and_memory_stays_below_its_bound() {
    let world = World::new(MEMORY, STEPS);
    world.db.pause_background_work().unwrap();
    let reasons = world.at_each_wait(|db, count| {
        if count < 3 {
            // It changes nothing, but the writer looks again.
            db.pause_background_work().unwrap();
        } else if count == 3 {
            let Health::Waiting { why, .. } = db.health() else { panic!("{:?}", db.health()) };
            assert_eq!(why, WaitReason::MemoryWhilePaused);
            assert!(why.ended_by().contains("resume_background_work"));
            assert_eq!(db.metrics().flushes, 0);
            assert!(db.metrics().memory_bytes() <= MEMORY as u64);
            db.resume_background_work().unwrap();
        }
    });
    world.fill(1500);
    assert_eq!(reasons.lock().unwrap()[..3], [WaitReason::MemoryWhilePaused; 3]);
    let metrics = world.db.metrics();
    assert!(metrics.flushes > 0 && metrics.stall_memory_micros <= metrics.stall_micros);
    world.check(1500);
    let mut events = world.db.events();
    let kinds: Vec<_> = std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect();
    let position = |wanted| kinds.iter().position(|kind| *kind == wanted).expect("the event");
    assert!(position(EventKind::Paused) < position(EventKind::Resumed));
    world.end();
}

/// The tables of a database, finished or not, with their lengths.
fn tables(fs: &SimFs) -> Vec<(String, u64)> {
    let mut names = fs.read_dir("/db".as_ref()).unwrap();
    names.retain(|name| name.contains(".sst"));
    names.sort();
    let length = |name: &String| fs.metadata(&Path::new("/db").join(name)).unwrap().len;
    names.into_iter().map(|name| (name.clone(), length(&name))).collect()
}

#[test]
fn nothing_is_written_or_deleted_in_the_background_during_a_pause() {
    let world = World::new(8 * MEMORY, 3);
    for _ in 0..2 {
        world.fill(6000);
        world.db.flush().unwrap();
    }
    let (fs, paused) = (world.fs.clone(), Arc::new(Mutex::new(None)));
    let seen = Arc::clone(&paused);
    world.at_each_wait(move |db, count| {
        let mut seen = seen.lock().unwrap();
        match &*seen {
            None if db.metrics().compactions_running == 0 => {}
            None => {
                db.pause_background_work().unwrap();
                *seen = Some((count, tables(&fs)));
            }
            Some((at, before)) if count <= *at + 5 => {
                assert_eq!(tables(&fs), *before);
                if count < *at + 5 {
                    // The caller looks again, and jobs may take steps before it waits.
                    db.pause_background_work().unwrap();
                } else {
                    db.resume_background_work().unwrap();
                }
            }
            Some(_) => {}
        }
    });
    world.db.compact_range::<&str>(..).unwrap();
    *world.hook.lock().unwrap() = None;
    let (_, before) = paused.lock().unwrap().take().expect("a pause");
    assert_ne!(tables(&world.fs), before);
    // Old tables are deleted when the last reader is gone, but not in a pause.
    let reader = world.db.iter();
    world.fill(6000);
    world.db.compact_range::<&str>(..).unwrap();
    world.db.pause_background_work().unwrap();
    drop(reader);
    let before = tables(&world.fs);
    for _ in 0..100 {
        world.env.step();
    }
    assert_eq!(tables(&world.fs), before);
    world.db.resume_background_work().unwrap();
    world.env.run_until_idle();
    assert!(tables(&world.fs).len() < before.len());
    world.check(6000);
    world.end();
}

#[test]
fn calls_that_wait_for_paused_work_say_so_and_go_on_when_it_is_resumed() {
    let world = World::new(8 * MEMORY, STEPS);
    for call in [Db::flush, Db::wait_for_compactions, |db: &Db| db.compact_range::<&str>(..)] {
        world.db.pause_background_work().unwrap();
        // More than a memtable.
        world.fill(1500);
        let reasons = world.at_each_wait(|db, count| {
            assert!(matches!(db.health(), Health::Writing), "writes go through");
            match count {
                0..4 => db.pause_background_work().unwrap(),
                4 => db.resume_background_work().unwrap(),
                _ => {}
            }
        });
        call(&world.db).unwrap();
        assert_eq!(reasons.lock().unwrap()[..4], [WaitReason::Paused; 4]);
        *world.hook.lock().unwrap() = None;
        assert_eq!(world.db.metrics().immutable_memtable_bytes, 0);
    }
    world.end();
}

#[test]
fn closing_or_dropping_a_paused_database_ends_and_keeps_everything() {
    for close in [true, false] {
        let world = World::new(8 * MEMORY, STEPS);
        world.fill(100);
        world.db.flush().unwrap();
        world.fill(200);
        world.db.pause_background_work().unwrap();
        let World { fs, env, db, .. } = world;
        if close {
            let other = db.clone();
            db.close().unwrap();
            assert_eq!(other.pause_background_work().unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(other.resume_background_work().unwrap_err().kind(), ErrorKind::Closed);
        } else {
            drop(db);
        }
        env.drop_jobs();
        let options = Options::new().vfs(Arc::new(fs)).env(Arc::clone(&env) as Arc<dyn Env>);
        let db = options.open("/db").unwrap();
        assert_eq!(db.iter().count(), 200);
        assert_eq!(db.recovery().was_clean, close);
        drop(db);
        env.drop_jobs();
    }
}

/// The caller waits for a flush, then for compactions. It is cancelled at each wait in turn.
#[test]
fn a_cancelled_manual_compaction_returns_and_leaves_the_data_as_it_was() {
    let (mut cancelled, mut interrupted) = (0, 0);
    for paused in [false, true] {
        for at in 1.. {
            let world = World::new(8 * MEMORY, 0);
            for _ in 0..2 {
                world.fill(5000);
                world.db.flush().unwrap();
            }
            world.fill(20);
            if paused {
                world.db.pause_background_work().unwrap();
            }
            let running = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&running);
            world.at_each_wait(move |db, count| {
                if count == at {
                    let metrics = db.metrics();
                    *seen.lock().unwrap() = (metrics.compactions_running > 0).then_some(metrics.compactions);
                    db.cancel_manual_compactions().unwrap();
                }
            });
            let result = world.db.compact_range::<&str>(..);
            *world.hook.lock().unwrap() = None;
            world.db.resume_background_work().unwrap();
            let is_over = result.is_ok();
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
                cancelled += 1;
                // One that was running was not installed.
                if let Some(compactions) = *running.lock().unwrap() {
                    interrupted += 1;
                    assert_eq!(world.db.metrics().compactions, compactions);
                }
            }
            world.check(5000);
            world.env.run_until_idle();
            world.check(5000);
            // What was half written is gone, and the next one goes through.
            let named: u64 = world.db.metrics().keyspaces[0].levels.iter().map(|level| level.tables).sum();
            assert_eq!(tables(&world.fs).len() as u64, named);
            world.db.compact_range::<&str>(..).unwrap();
            world.check(5000);
            world.end();
            // Nothing would ever wake the caller for a second wait in a pause.
            if is_over || at > 20 || paused {
                break;
            }
        }
    }
    assert!(cancelled >= 4 && interrupted > 0, "{cancelled}, {interrupted}");
}

#[test]
fn deep_merges_keep_to_their_rate_and_flushes_do_not() {
    let policy = Leveled::new(LeveledOptions {
        base_bytes: 128 << 10,
        fanout: 4,
        target_table_bytes: 64 << 10,
        ..LeveledOptions::default()
    });
    // Time only passes when jobs wait.
    let run = |rate: Option<u64>| {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let options = Options::new()
            .memory(4 * MEMORY)
            .vfs(Arc::new(fs))
            .compaction(Arc::new(policy))
            .compression(Compression::None);
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        assert_eq!(
            db.set_background_bytes_per_second(Some(0)).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        db.set_background_bytes_per_second(rate).unwrap();
        let mut flushing = 0;
        for round in 0..10 {
            for key in 0..400 {
                db.put(format!("key{:05}", (key * 7 + round * 13) % 2000), [b'v'; 1000]).unwrap();
            }
            let before = env.monotonic_micros();
            db.flush().unwrap();
            flushing += env.monotonic_micros() - before;
        }
        let before = env.monotonic_micros();
        db.wait_for_compactions().unwrap();
        let micros = env.monotonic_micros() - before;
        let bytes = db.metrics().compaction_bytes_out;
        drop(db);
        env.drop_jobs();
        (flushing, micros, bytes)
    };
    let (_, unlimited, bytes) = run(None);
    assert!(unlimited < 1_000_000 && bytes > 100_000, "{unlimited} for {bytes} bytes");
    let (flushing, limited, bytes) = run(Some(10_000));
    assert!(flushing < 1_000_000, "{flushing}");
    // Only the deep part of the bytes counts.
    let at_most = bytes * 100;
    assert!((1_500_000..at_most).contains(&limited), "{limited} for {bytes} bytes");
    let (_, faster, _) = run(Some(40_000));
    assert!(faster * 2 < limited, "{faster} against {limited}");
}
