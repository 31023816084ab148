//! A window takes memory as the log needs it, asks before it takes more, and gives it back.

mod simulation;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lsm_core::env::SimEnv;
use lsm_core::vfs::SimFs;
use lsm_wal::{Log, WalOptions, WindowMemory};
use simulation::{open, options, payload};

#[test]
fn a_window_grows_with_the_log_and_ends_with_it() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&asked);
    let ask = move |bytes| {
        list.lock().unwrap().push(bytes);
        true
    };
    let window_memory = Some(WindowMemory(Arc::new(ask)));
    let options = WalOptions { segment_bytes: 1 << 20, window_memory, ..options(64 << 10) };
    let (mut log, _) = open(&fs, &env, &options).unwrap();
    assert_eq!(*asked.lock().unwrap(), [], "nothing was appended");
    for tag in 0..1000 {
        log.append(tag, &payload(tag, 300)).unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10]);
    Box::new(log).close().unwrap();
    assert_eq!(asked.lock().unwrap().last(), Some(&0));
    env.drop_jobs();
}

#[test]
fn what_finds_no_room_in_the_window_goes_to_the_segment() {
    for given in [0, 2 << 10, 4 << 10, 16 << 10] {
        let (fs, env) = (SimFs::new(), SimEnv::new(1));
        let taken = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&taken);
        let ask = move |bytes| {
            let may = bytes <= given;
            if may {
                sum.store(bytes, Ordering::Relaxed);
            }
            may
        };
        let window_memory = Some(WindowMemory(Arc::new(ask)));
        let options = WalOptions { segment_bytes: 1 << 20, window_memory, ..options(32 << 10) };
        let (mut log, _) = open(&fs, &env, &options).unwrap();
        for tag in 0..200 {
            log.append(tag, &payload(tag, (tag as usize * 37) % 9000)).unwrap();
        }
        assert_eq!(taken.load(Ordering::Relaxed), given);
        let left = fs.process_crash();
        drop(log);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        env.drop_jobs();
        let (log, report) = open(&left, &env, &WalOptions { window_memory: None, ..options }).unwrap();
        assert_eq!((report.records, report.bytes_dropped), (200, 0), "{given}");
        drop(log);
        env.drop_jobs();
    }
}
