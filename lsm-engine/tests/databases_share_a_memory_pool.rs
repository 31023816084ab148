//! Databases of a `MemoryPool` together never hold more than its bytes, and none starves the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lsm_dev::{Hook, Layer, Observed};
use lsm_engine::env::{Env, SimEnv, ThreadEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    Db, Durability, ErrorKind, Health, KeyspaceOptions, MemoryPool, Metrics, Options, WaitReason, WriteBatch,
};

const MEMORY: usize = 8 << 20;

/// Databases on one thread, each with its own disk.
struct World {
    pool: MemoryPool,
    env: Arc<SimEnv>,
    hook: Hook<()>,
    disks: Vec<SimFs>,
    dbs: Vec<Db>,
}

impl World {
    fn new(count: usize) -> Self {
        let env = Arc::new(SimEnv::new(5));
        let disks = vec![(); count].into_iter().map(|()| SimFs::new()).collect();
        let mut world =
            Self { pool: MemoryPool::new(MEMORY), env, hook: Hook::default(), disks, dbs: Vec::new() };
        for number in 0..count {
            let db = world.options(number).open("/db").unwrap();
            world.dbs.push(db);
        }
        world
    }

    fn options(&self, number: usize) -> Options {
        let (env, hook) = (Arc::clone(&self.env), Arc::clone(&self.hook));
        // Jobs notice a pause before the hook is called.
        let env = Layer(Observed { env, hook, micros: 1000, steps: 50 });
        Options::new().memory_pool(&self.pool).vfs(Arc::new(self.disks[number].clone())).env(Arc::new(env))
    }

    /// Checks that the databases do not hold more than the pool has, and that the pool counts all of it.
    fn check(&self) {
        let all: Vec<_> = self.dbs.iter().map(Db::metrics).collect();
        let pool = self.dbs[0].metrics().memory_pool.unwrap();
        let held =
            all.iter().map(Metrics::memory_bytes).sum::<u64>() + pool.cache_bytes + pool.kept_memtable_bytes;
        assert!(held <= pool.used_bytes, "{held} bytes are held, and {} counted: {all:?}", pool.used_bytes);
        assert!(pool.used_bytes <= MEMORY as u64, "{pool:?}: {all:?}");
        assert_eq!((pool.bytes, pool.databases), (MEMORY as u64, all.len() as u64));
        // Buffers have an eighth of one half, and windows a sixteenth of all.
        let memtables: u64 =
            all.iter().map(|it| it.active_memtable_bytes + it.immutable_memtable_bytes).sum();
        assert!(memtables <= MEMORY as u64 / 16 * 6, "{memtables}");
    }

    /// Calls `then` at each wait of a caller.
    fn at_each_wait(&self, mut then: impl FnMut() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(move |()| then()));
    }

    fn end(self) {
        *self.hook.lock().unwrap() = None;
        for db in self.dbs {
            db.close().unwrap();
        }
        assert_eq!(self.pool.databases(), 0);
        // Memory of flushed memtables may be kept, and nothing else.
        assert!(self.pool.used_bytes() <= MEMORY / 8, "{}", self.pool.used_bytes());
        self.env.drop_jobs();
    }
}

/// Random numbers that repeat.
fn next(random: &mut u64, below: u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) % below
}

#[test]
fn all_databases_together_stay_below_the_bound() {
    let world = World::new(5);
    let others: Vec<_> =
        world.dbs.iter().map(|db| db.keyspace("other", KeyspaceOptions::new()).unwrap()).collect();
    let mut random = 1;
    for number in 0..30_000_u64 {
        // At times one of them does most of the work.
        let busy = (number / 3000) as usize % 5;
        let chosen = if next(&mut random, 3) == 0 { next(&mut random, 5) as usize } else { busy };
        let key = format!("key{:06}", next(&mut random, 20_000));
        let value = vec![b'v'; [20, 400, 2000, 30_000][(next(&mut random, 40) / 13) as usize]];
        match next(&mut random, 20) {
            0 => others[chosen].put(&key, &value).unwrap(),
            1 => drop(world.dbs[chosen].get(&key).unwrap()),
            2 => {
                let mut batch = WriteBatch::new();
                for part in 0..5 {
                    batch.put(format!("{key}{part}"), &value);
                    batch.put_in(&others[chosen], format!("{key}{part}"), &value);
                }
                world.dbs[chosen].write(batch).unwrap();
            }
            _ => world.dbs[chosen].put(&key, &value).unwrap(),
        }
        for _ in 0..next(&mut random, 3) {
            world.env.step();
        }
        if number % 16 == 0 {
            world.check();
        }
        if number % 5000 == 4999 {
            others[chosen].clear().unwrap();
        }
    }
    let flushed: Vec<_> = world.dbs.iter().map(|db| db.metrics().flushes).collect();
    assert!(flushed.iter().all(|&flushes| flushes > 2), "{flushed:?}");
    drop(others);
    world.end();
}

/// The writes of one database make another one flush.
#[test]
fn the_database_with_the_most_unflushed_data_flushes() {
    let world = World::new(3);
    // Less than a memtable each, so that none is full.
    for key in 0..900 {
        world.dbs[0].put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    let flushes = |number: usize| world.dbs[number].metrics().flushes;
    for key in 0..700 {
        for number in [1, 2] {
            world.dbs[number].put(format!("key{key}"), [b'v'; 1000]).unwrap();
            world.check();
        }
        world.env.run_until_idle();
        if flushes(0) > 0 {
            break;
        }
    }
    assert_eq!((flushes(0), flushes(1), flushes(2)), (1, 0, 0));
    world.end();
}

#[test]
fn a_database_that_is_paused_or_whose_disk_is_full_leaves_memory_to_others() {
    for is_full in [false, true] {
        let world = World::new(2);
        let (stuck, other) = (world.dbs[0].clone(), world.dbs[1].clone());
        if is_full {
            // The log has its next segment.
            world.env.run_until_idle();
            world.disks[0].set_capacity(Some(1));
        } else {
            stuck.pause_background_work().unwrap();
        }
        let reason = if is_full { WaitReason::DiskSpace } else { WaitReason::MemoryWhilePaused };
        // It takes memory until it must wait. Meanwhile the other one does not wait.
        let (waits, disk) = (Arc::new(Mutex::new(Vec::new())), world.disks[0].clone());
        let (seen, watched) = (Arc::clone(&waits), stuck.clone());
        let mut looks = 0;
        world.at_each_wait(move || {
            let waits = watched.waits();
            let is_stuck = waits.iter().any(|wait| wait.why == reason);
            looks += u64::from(is_stuck);
            // At the first look it hopes for a flush of its own, and nobody passes it.
            if !is_stuck || looks != 2 {
                return;
            }
            seen.lock().unwrap().extend(waits.into_iter().map(|wait| wait.why));
            for key in 0..100 {
                other.put(format!("key{key}"), [b'v'; 1000]).unwrap();
                assert!(matches!(other.health(), Health::Writing));
            }
            if is_full {
                disk.set_capacity(None);
            } else {
                watched.resume_background_work().unwrap();
            }
        });
        for key in 0..20_000 {
            stuck.put(format!("key{key}"), [b'v'; 1000]).unwrap();
        }
        assert_eq!(*waits.lock().unwrap(), [reason]);
        drop(stuck);
        world.check();
        world.end();
    }
}

#[test]
fn a_write_that_only_others_could_help_names_that() {
    let world = World::new(3);
    let (paused, writer) = (world.dbs[0].clone(), world.dbs[2].clone());
    // These two are paused and hold what they may.
    for (db, kilobytes) in world.dbs.iter().zip([1200, 200]) {
        db.pause_background_work().unwrap();
        for key in 0..kilobytes {
            db.put(format!("key{key}"), [b'v'; 1000]).unwrap();
        }
    }
    let (seen, db) = (Arc::new(Mutex::new(Vec::new())), writer.clone());
    let reasons = Arc::clone(&seen);
    world.at_each_wait(move || {
        if let Health::Waiting { why, .. } = db.health() {
            reasons.lock().unwrap().push(why);
        }
        if reasons.lock().unwrap().last() == Some(&WaitReason::PoolMemory) {
            paused.resume_background_work().unwrap();
        }
    });
    writer.put("large", vec![b'v'; MEMORY / 5]).unwrap();
    assert!(seen.lock().unwrap().contains(&WaitReason::PoolMemory), "{seen:?}");
    assert!(writer.metrics().stall_memory_micros > 0);
    world.check();
    world.dbs[1].resume_background_work().unwrap();
    drop(writer);
    world.end();
}

/// A read-only database keeps its log in memory, and nothing can flush that.
#[test]
fn a_write_that_nothing_can_help_fails_and_says_why() {
    let mut world = World::new(1);
    let filled = SimFs::new();
    let env = Arc::new(SimEnv::new(6));
    let db = Options::new()
        .vfs(Arc::new(filled.clone()))
        .env(Arc::clone(&env) as Arc<dyn Env>)
        .open("/db")
        .unwrap();
    for key in 0..1100 {
        db.put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    world.disks.push(filled.process_crash());
    drop(db);
    env.drop_jobs();
    let reader = world.options(1).read_only(true).open("/db").unwrap();
    assert!(reader.metrics().active_memtable_bytes + reader.metrics().immutable_memtable_bytes > 1_100_000);
    world.dbs.push(reader);
    world.check();
    let refused = world.dbs[0].put("large", vec![b'v'; MEMORY / 5]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("used up by other databases"), "{refused}");
    // Small writes find memory, and flush their own.
    for key in 0..3000 {
        world.dbs[0].put(format!("key{key}"), [b'v'; 1000]).unwrap();
        world.check();
    }
    // The memory comes back when the other one is closed.
    world.dbs.pop().unwrap().close().unwrap();
    world.dbs[0].put("large", vec![b'v'; MEMORY / 5]).unwrap();
    world.end();
}

#[test]
fn a_large_write_gets_its_turn_among_small_ones_of_other_databases() {
    let world = World::new(3);
    let others = [world.dbs[0].clone(), world.dbs[1].clone()];
    for key in 0..2500 {
        world.dbs[key % 2].put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    // While it waits, nobody passes: others take what they were granted before, and no more.
    let passed = Arc::new(Mutex::new(0));
    let count = Arc::clone(&passed);
    world.at_each_wait(move || {
        let held = |db: &Db| db.metrics().active_memtable_bytes + db.metrics().immutable_memtable_bytes;
        *count.lock().unwrap() = others.iter().map(held).sum::<u64>();
    });
    world.dbs[2].put("large", vec![b'v'; MEMORY / 5]).unwrap();
    assert!(*passed.lock().unwrap() > 0, "it had to wait");
    world.check();
    world.end();
}

#[test]
fn an_open_waits_for_nobody_and_replays_a_long_log_in_what_is_left() {
    let mut world = World::new(1);
    let filled = SimFs::new();
    let env = Arc::new(SimEnv::new(7));
    let options = Options::new().vfs(Arc::new(filled.clone())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.open("/db").unwrap();
    for key in 0..6000 {
        db.put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    world.disks.push(filled.process_crash());
    drop(db);
    env.drop_jobs();
    for key in 0..1500 {
        world.dbs[0].put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    let opened = world.options(1).open("/db").unwrap();
    assert_eq!(opened.iter().count(), 6000);
    world.dbs.push(opened);
    world.check();
    world.end();
}

#[test]
fn options_that_contradict_a_pool_are_refused() {
    let pool = MemoryPool::new(MEMORY);
    let directory = tempfile::tempdir().unwrap();
    let open = |options: Options| options.open(directory.path().join("db"));
    let refused = open(Options::new().memory_pool(&pool).cache_bytes(1 << 20)).unwrap_err();
    assert!(refused.to_string().contains("cache_bytes") && refused.to_string().contains("memory_pool"));
    let refused = open(Options::new().memory_pool(&MemoryPool::new(1000))).unwrap_err();
    assert!(refused.to_string().contains("1000 bytes"), "{refused}");
    let db = open(Options::new().memory_pool(&pool).memtable_bytes(100_000)).unwrap();
    assert_eq!((pool.databases(), pool.bytes()), (1, MEMORY));
    db.close().unwrap();
    // The last of the two calls counts.
    let db = open(Options::new().memory_pool(&pool).memory(2 << 20)).unwrap();
    assert_eq!((pool.databases(), db.metrics().memory_pool), (0, None));
    db.close().unwrap();
}

#[test]
fn threads_that_write_to_many_databases_stay_below_the_bound() {
    let pool = MemoryPool::new(4 << 20);
    let env: Arc<dyn Env> = Arc::new(ThreadEnv::new(2));
    let directory = tempfile::tempdir().unwrap();
    let open = |number: usize| {
        let options = Options::new().memory_pool(&pool).env(Arc::clone(&env));
        options.open(directory.path().join(number.to_string())).unwrap()
    };
    let dbs: Vec<Db> = (0..8).map(open).collect();
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !has_ended.load(Ordering::Relaxed) {
                most = most.max(pool.used_bytes());
                thread::yield_now();
            }
            most
        });
        let writers: Vec<_> = (0..4_u64)
            .map(|seed| {
                let dbs = &dbs;
                scope.spawn(move || {
                    let mut random = seed;
                    for number in 0..3000_u64 {
                        let db = &dbs[next(&mut random, 8) as usize];
                        let key = format!("{seed}/{:05}", next(&mut random, 2000));
                        let value = vec![b'v'; [100, 1000, 10_000][(next(&mut random, 20) / 9) as usize]];
                        db.put(key, value).unwrap();
                        if number % 500 == 0 {
                            db.put_with("synced", "value", Durability::Sync).unwrap();
                        }
                    }
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        has_ended.store(true, Ordering::Relaxed);
        written.into_iter().for_each(Result::unwrap);
        let most = watching.join().unwrap();
        assert!(most <= 4 << 20, "{most}");
    });
    for db in dbs {
        db.close().unwrap();
    }
}
