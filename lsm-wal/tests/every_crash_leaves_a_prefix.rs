//! Crashes the log at every operation, and recovers from what the process or the disk may have kept.

mod simulation;

use std::path::Path;
use std::sync::Arc;

use lsm_core::env::SimEnv;
use lsm_core::vfs::{SimFs, Vfs};
use lsm_wal::{FirstSegment, Log, Position, RecoveryMode, Wal, WalOptions};
use simulation::{Model, Step, Step::*, open, options, read_only, records, run};

/// Opens what a crash left, checks it against the model, and goes on writing.
fn recover(fs: &SimFs, options: &WalOptions, model: &Model, power_lost: bool, what: &dyn Fn() -> String) {
    let before = fs.fingerprint();
    let found = match read_only(fs, RecoveryMode::TolerateTornTail) {
        Ok(found) => found,
        Err(error) => panic!("{}: {error}\n{fs:?}", what()),
    };
    assert_eq!(fs.fingerprint(), before, "{}: reading changed the disk", what());
    model.check(&found, power_lost, what);
    check_open(fs, options, &found, what);
}

/// The log opens with exactly these records, takes another, and has that after a power cut too.
fn check_open(fs: &SimFs, options: &WalOptions, found: &[simulation::Known], what: &dyn Fn() -> String) {
    let env = SimEnv::new(7);
    let (mut log, report) = match open(fs, &env, options) {
        Ok(opened) => opened,
        Err(error) => panic!("{}: {error}\n{fs:?}", what()),
    };
    assert_eq!(report.end, found.last().map_or(report.start, |last| last.end), "{}", what());
    let kept = records(log.read_from(Position::ZERO).unwrap()).unwrap();
    assert_eq!(kept, found, "{}", what());
    // Recovery made durable what it found.
    let cut = fs.power_cut(&mut lsm_core::vfs::AllLost);
    assert_eq!(
        read_only(&cut, RecoveryMode::Strict).unwrap(),
        found,
        "{}: not durable after recovery",
        what()
    );
    let end = log.append(u64::from(u32::MAX), b"").unwrap();
    log.sync_handle().wait_durable(end).unwrap();
    let cut = fs.power_cut(&mut lsm_core::vfs::AllLost);
    drop(log);
    env.drop_jobs();
    let mut longer = found.to_vec();
    longer.push(simulation::Known { tag: u64::from(u32::MAX), bytes: 0, end });
    assert_eq!(records_of(&cut, options, what), longer, "{}: after going on", what());
}

fn records_of(fs: &SimFs, options: &WalOptions, what: &dyn Fn() -> String) -> Vec<simulation::Known> {
    let env = SimEnv::new(8);
    let (log, _) = open(fs, &env, options).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let found = records(log.read_from(Position::ZERO).unwrap()).unwrap();
    drop(log);
    env.drop_jobs();
    found
}

/// Runs the steps with a crash at every operation.
fn crash_everywhere(windows: u64, steps: &[Step], images: usize) {
    let options = options(windows);
    let fs = SimFs::new();
    let (model, error) = run(&fs, &SimEnv::new(1), &options, steps);
    assert!(error.is_none(), "{error:?}");
    recover(&fs.process_crash(), &options, &model, false, &|| "no crash".to_owned());
    let mut recovered = 0;
    for operation in 0..fs.operations() {
        let fs = SimFs::new();
        fs.crash_at(operation);
        let (model, _) = run(&fs, &SimEnv::new(1), &options, steps);
        assert!(fs.crashed());
        let at = |image: &str| {
            format!("window {windows}, operation {operation} ({:?}), {image}", fs.last_operation())
        };
        recover(&fs.process_crash(), &options, &model, false, &|| at("process crash"));
        for image in fs.crash_images().at_most(images).with_seed(operation) {
            recover(&image.fs, &options, &model, true, &|| at(&image.description));
            recovered += 1;
        }
    }
    assert!(recovered > fs.operations());
}

const ROTATION: &[Step] = &[
    Append(100),
    Append(0),
    Append(700),
    Sync,
    Append(1),
    Append(300),
    Append(600),
    Jobs,
    Append(700),
    Append(700),
    Append(700),
    Append(50),
    Sync,
    Append(700),
    Append(2000),
    Append(8),
    Append(9000),
    Append(20),
    Jobs,
    Sync,
    Append(500),
    Append(500),
];

const LIFETIMES: &[Step] = &[
    Append(100),
    Append(400),
    Reopen,
    Append(300),
    Sync,
    Append(200),
    Close,
    Append(10),
    Append(900),
    Jobs,
    Close,
    Reopen,
    Append(700),
    Append(33),
];

const TRUNCATION: &[Step] = &[
    Append(900),
    Append(900),
    Append(900),
    Append(900),
    Append(900),
    Sync,
    Append(900),
    Append(900),
    KeepLast(2),
    Begin,
    Append(30),
    Begin,
    Append(200),
    Append(100),
    Forget(1),
    Append(200),
    Append(300),
    Sync,
    Append(40),
    Forget(3),
    Append(50),
    Append(1500),
    Append(1500),
    Append(1500),
    KeepLast(1),
    Append(7),
    Forget(1),
    Append(60),
];

#[test]
fn a_log_that_rotates_survives_every_crash() {
    for windows in [0, 512, 2048] {
        crash_everywhere(windows, ROTATION, 256);
    }
}

#[test]
fn a_log_that_is_closed_dropped_and_opened_survives_every_crash() {
    for windows in [0, 512, 2048] {
        crash_everywhere(windows, LIFETIMES, 256);
    }
}

#[test]
fn a_log_truncated_at_both_ends_survives_every_crash() {
    for windows in [0, 512, 2048] {
        crash_everywhere(windows, TRUNCATION, 256);
    }
}

#[test]
fn a_crash_during_recovery_is_as_harmless_as_any_other() {
    let options = options(1024);
    for steps in [ROTATION, LIFETIMES, TRUNCATION] {
        let fs = SimFs::new();
        run(&fs, &SimEnv::new(1), &options, steps);
        let operations = fs.operations();
        for operation in (operations % 17..operations).step_by(17) {
            let fs = SimFs::new();
            fs.crash_at(operation);
            let (model, _) = run(&fs, &SimEnv::new(1), &options, steps);
            let process = std::iter::once((fs.process_crash(), false));
            let power = fs.crash_images().at_most(4).with_seed(operation).map(|image| (image.fs, true));
            for (image, power_lost) in process.chain(power) {
                crash_in_recovery(&image, &options, &model, power_lost, operation);
            }
        }
    }
}

fn crash_in_recovery(image: &SimFs, options: &WalOptions, model: &Model, power_lost: bool, operation: u64) {
    let found = read_only(image, RecoveryMode::TolerateTornTail).unwrap();
    model.check(&found, power_lost, &|| format!("operation {operation}"));
    let recovering = image.process_crash();
    let env = SimEnv::new(3);
    drop(open(&recovering, &env, options).unwrap());
    env.drop_jobs();
    for second in 0..recovering.operations() {
        // A copy of the image as the first crash left it, unsynced pieces and all.
        let copy = image.process_crash();
        copy.crash_at(second);
        let env = SimEnv::new(3);
        let opened = open(&copy, &env, options);
        drop(opened);
        env.drop_jobs();
        let at = |image: &str| format!("operation {operation}, recovery's operation {second}, {image}");
        // Recovery takes nothing away that it found.
        let again = copy.process_crash();
        let what = || at("process crash");
        assert_eq!(records_of(&again, options, &what), found, "{}", what());
        for cut in copy.crash_images().at_most(5).with_seed(second) {
            let what = || at(&cut.description);
            let left = records_of(&cut.fs, options, &what);
            if power_lost {
                // What the first power cut left was all on the disk.
                assert_eq!(left, found, "{}", what());
            } else {
                model.check(&left, true, &what);
            }
        }
    }
}

#[test]
fn a_log_whose_creation_was_cut_short_opens_empty_and_keeps_what_it_is_given() {
    let (options, start) = (options(1024), Position(4096));
    let create = |fs: &SimFs| {
        let _ = fs.create_dir(Path::new(simulation::DIRECTORY));
        let _ = fs.sync_dir(Path::new("/"));
        let env = SimEnv::new(1);
        let directory = Path::new(simulation::DIRECTORY);
        let log = Wal::create(
            Arc::new(fs.clone()),
            Arc::new(env.clone()),
            directory,
            FirstSegment { number: 1, start },
            options.clone(),
        );
        drop(log);
        env.drop_jobs();
    };
    let fs = SimFs::new();
    create(&fs);
    for operation in 0..fs.operations() {
        let fs = SimFs::new();
        fs.crash_at(operation);
        create(&fs);
        let what = || format!("operation {operation} ({:?})", fs.last_operation());
        check_open(&fs.process_crash(), &options, &[], &what);
        for image in fs.crash_images() {
            check_open(&image.fs, &options, &[], &what);
        }
    }
}
