//! Lets every operation of a log fail, once and for good: what was acknowledged stays, and nothing hangs.

mod simulation;

use std::io::ErrorKind;

use lsm_core::Error;
use lsm_core::env::SimEnv;
use lsm_core::vfs::{AllLost, Fault, OperationKind, SimFs};
use lsm_wal::{Log, Position, RecoveryMode, Wal};
use simulation::{Known, open, options, payload, read_only, records};

/// What a client that goes on after errors was told.
#[derive(Default)]
struct Told {
    /// Appended and acknowledged.
    acknowledged: Vec<Known>,
    /// Appends that failed: these may be in the log or not, and are no gap.
    failed: Vec<u64>,
    /// How many of the acknowledged were acknowledged as durable.
    durable: usize,
    stopped: bool,
}

fn client(log: &mut Wal, env: &SimEnv, told: &mut Told) {
    let sync = log.sync_handle();
    for tag in 0..40_u64 {
        let bytes = [30, 700, 5, 1300, 100][tag as usize % 5];
        match log.append(tag, &payload(tag, bytes)) {
            Ok(end) => told.acknowledged.push(Known { tag, bytes, end }),
            Err(Error::Stopped { .. }) => told.stopped = true,
            Err(_) => told.failed.push(tag),
        }
        if tag % 7 == 3 && sync.wait_durable(log.end()).is_ok() {
            told.durable = told.acknowledged.len();
        }
        if tag % 9 == 0 {
            env.run_until_idle();
        }
        if tag == 20
            && let Some(known) = told.acknowledged.get(5)
        {
            let _ = log.truncate_front(known.end);
        }
    }
}

/// The records of a log whose oldest segments may be gone.
fn check(found: &[Known], told: &Told, all: bool, what: &str) {
    let acknowledged: Vec<Known> =
        found.iter().filter(|known| !told.failed.contains(&known.tag)).copied().collect();
    let skipped = match acknowledged.first() {
        Some(first) => told.acknowledged.iter().position(|known| known == first).expect(what),
        None => told.durable.min(6),
    };
    assert!(skipped <= 6, "{what}: {skipped} records are missing in front");
    let end = skipped + acknowledged.len();
    assert_eq!(acknowledged, told.acknowledged[skipped..end], "{what}");
    let least = if all { told.acknowledged.len() } else { told.durable };
    assert!(end >= least, "{what}: {end} records of at least {least}");
}

fn fail_everywhere(fault: impl Fn(u64) -> Fault, window_bytes: u64) {
    let options = options(window_bytes);
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    let (mut log, _) = open(&fs, &env, &options).unwrap();
    let first = fs.operations();
    client(&mut log, &env, &mut Told::default());
    drop(log);
    env.drop_jobs();
    for operation in first..fs.operations() {
        let fs = SimFs::new();
        let env = SimEnv::new(1);
        let (mut log, _) = open(&fs, &env, &options).unwrap();
        let fault = fault(operation);
        let what = format!("window {window_bytes}, {fault:?}");
        fs.inject(fault);
        let mut told = Told::default();
        client(&mut log, &env, &mut told);
        // Killed now: everything acknowledged is there.
        let found = read_only(&fs.process_crash(), RecoveryMode::TolerateTornTail);
        check(&found.expect(&what), &told, true, &what);
        for image in fs.crash_images().at_most(12).with_seed(operation) {
            let found = read_only(&image.fs, RecoveryMode::TolerateTornTail);
            check(&found.expect(&what), &told, false, &format!("{what}, {}", image.description));
        }
        // Healed: unless a sync failed, the log goes on.
        fs.clear_faults();
        let result = log.append(1000, b"");
        assert_eq!(result.is_err(), told.stopped || matches!(result, Err(Error::Stopped { .. })), "{what}");
        drop(log);
        env.drop_jobs();
        let env = SimEnv::new(2);
        let (log, _) = open(&fs.process_crash(), &env, &options).expect(&what);
        let mut found = records(log.read_from(Position::ZERO).unwrap()).unwrap();
        assert_eq!(found.last().is_some_and(|known| known.tag == 1000), result.is_ok(), "{what}");
        found.retain(|known| known.tag != 1000);
        check(&found, &told, true, &what);
        drop(log);
        env.drop_jobs();
    }
}

#[test]
fn one_failed_operation_costs_at_most_the_record_it_was_for() {
    for window_bytes in [0, 1024] {
        fail_everywhere(|operation| Fault::at_operation(operation, ErrorKind::Other), window_bytes);
    }
}

#[test]
fn a_disk_that_fails_for_good_keeps_what_was_acknowledged() {
    for window_bytes in [0, 1024] {
        fail_everywhere(|operation| Fault::at_operation(operation, ErrorKind::Other).sticky(), window_bytes);
    }
}

#[test]
fn a_short_write_is_no_record() {
    for window_bytes in [0, 1024] {
        fail_everywhere(
            |operation| Fault::at_operation(operation, ErrorKind::StorageFull).after_writing(48),
            window_bytes,
        );
    }
}

#[test]
fn a_full_disk_fails_one_commit_and_none_before_it_and_heals() {
    for window_bytes in [0, 4096] {
        let options = options(window_bytes);
        for pages in 5..14 {
            let fs = SimFs::new();
            let env = SimEnv::new(1);
            let (mut log, _) = open(&fs, &env, &options).unwrap();
            env.run_until_idle();
            fs.set_capacity(Some(pages * 4096));
            let mut acknowledged = Vec::new();
            let mut refused = 0;
            for tag in 0..120 {
                match log.append(tag, &payload(tag, 500)) {
                    Ok(end) => acknowledged.push(Known { tag, bytes: 500, end }),
                    Err(Error::Io { source, .. }) => {
                        assert_eq!(source.kind(), ErrorKind::StorageFull);
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
                env.run_until_idle();
                // What was taken can be made durable: its space was there before it was acknowledged.
                log.sync_handle().wait_durable(log.end()).unwrap();
            }
            assert!(refused > 0, "{pages} pages are not enough");
            assert!(!acknowledged.is_empty());
            fs.set_capacity(None);
            let end = log.append(120, &payload(120, 500)).unwrap();
            log.sync_handle().wait_durable(end).unwrap();
            acknowledged.push(Known { tag: 120, bytes: 500, end });
            assert_eq!(read_only(&fs.power_cut(&mut AllLost), RecoveryMode::Strict).unwrap(), acknowledged);
            drop(log);
            env.drop_jobs();
        }
    }
}

#[test]
fn after_a_failed_sync_the_log_is_stopped_until_it_is_opened_anew() {
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    let options = options(4096);
    let (mut log, _) = open(&fs, &env, &options).unwrap();
    let durable = log.append(0, &payload(0, 300)).unwrap();
    log.sync_handle().wait_durable(durable).unwrap();
    let position = log.append(1, &payload(1, 300)).unwrap();
    fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other));
    let sync = log.sync_handle();
    assert!(matches!(sync.wait_durable(position), Err(Error::Io { operation: "sync", .. })));
    assert!(matches!(sync.wait_durable(position), Err(Error::Stopped { .. })), "asking again is no use");
    assert!(matches!(log.append(2, b""), Err(Error::Stopped { .. })));
    let told = std::sync::Arc::new(parking_lot::Mutex::new(None));
    let tell = std::sync::Arc::clone(&told);
    sync.on_durable(position, Box::new(move |result| *tell.lock() = Some(result)));
    assert!(matches!(told.lock().take(), Some(Err(Error::Stopped { .. }))));
    sync.wait_durable(durable).unwrap();
    assert!(matches!(Box::new(log).close(), Err(Error::Stopped { .. })));
    env.drop_jobs();
    // The pages of the failed sync are clean and not on the disk: only writing them anew helps.
    let fs = fs.process_crash();
    let env = SimEnv::new(2);
    let (log, report) = open(&fs, &env, &options).unwrap();
    assert_eq!(report.end, position);
    assert_eq!(read_only(&fs.power_cut(&mut AllLost), RecoveryMode::Strict).unwrap().len(), 2);
    drop(log);
    env.drop_jobs();
}

#[test]
fn nothing_is_appended_to_a_segment_after_a_write_to_it_failed() {
    for window_bytes in [0, 1024] {
        let fs = SimFs::new();
        let env = SimEnv::new(1);
        let (mut log, _) = open(&fs, &env, &options(window_bytes)).unwrap();
        let mut known = Vec::new();
        for tag in 0..3 {
            known.push(Known { tag, bytes: 200, end: log.append(tag, &payload(tag, 200)).unwrap() });
        }
        fs.inject(Fault::on(OperationKind::Write, ErrorKind::Other).named("000001.wal").after_writing(100));
        let position = log.end();
        // Without a window the append fails, with one the write that the sync needs.
        assert!(
            log.append(3, &payload(3, 200)).is_err() || log.sync_handle().wait_durable(log.end()).is_err()
        );
        let failed = log.end() == position;
        if !failed {
            known.push(Known { tag: 3, bytes: 200, end: log.end() });
        }
        let first = std::path::Path::new("/log/000001.wal");
        let before = fs.read_all(first).unwrap();
        for tag in 4..8 {
            known.push(Known { tag, bytes: 200, end: log.append(tag, &payload(tag, 200)).unwrap() });
        }
        log.sync_handle().wait_durable(log.end()).unwrap();
        assert_eq!(fs.read_all(first).unwrap(), before, "the failed segment was written to again");
        assert_eq!(read_only(&fs.power_cut(&mut AllLost), RecoveryMode::TolerateTornTail).unwrap(), known);
        drop(log);
        env.drop_jobs();
    }
}
