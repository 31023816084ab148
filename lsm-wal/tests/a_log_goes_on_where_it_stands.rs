//! On a full disk a log that is still needed goes on from where it ends. Crashes it at every operation, goes on with what
//! the process or the disk kept, crashes that too, and finds what was there.

mod simulation;

use std::path::Path;
use std::sync::Arc;

use lsm_core::env::SimEnv;
use lsm_core::vfs::{AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_core::{Error, Result};
use lsm_wal::{Log, LogExpectation, Position, RecoveryMode, RecoveryReport, Wal, WalOptions, WalReader};
use simulation::{DIRECTORY, Known, Model, Step, Step::*, options, read_only, records, run};

const PAGE_BYTES: u64 = 4096;

const STEPS: &[Step] = &[
    Append(100),
    Append(700),
    Sync,
    Append(300),
    Append(600),
    Jobs,
    Append(700),
    Append(700),
    Append(2000),
    Sync,
    Append(9000),
    Append(20),
    Reopen,
    Append(500),
    KeepLast(3),
    Append(500),
    Forget(1),
    Append(40),
    Close,
    Append(60),
];

fn read(fs: &SimFs) -> Result<WalReader> {
    let mode = RecoveryMode::TolerateTornTail;
    let mut reader =
        WalReader::open(Arc::new(fs.clone()), Path::new(DIRECTORY), &LogExpectation::default(), mode)?;
    while reader.next()?.is_some() {}
    Ok(reader)
}

fn resume(fs: &SimFs, env: &SimEnv, options: &WalOptions) -> Result<Wal> {
    let whole = read(fs)?;
    let number = whole.report().next_segment;
    Ok(Wal::resume(Arc::new(env.clone()), &whole, Position(u64::MAX), number, options.clone())?.0)
}

/// Fills the disk up to so many free bytes.
fn fill(fs: &SimFs, free_bytes: u64) {
    const DISK_BYTES: u64 = 1 << 40;
    fs.set_capacity(Some(DISK_BYTES));
    let used = DISK_BYTES - fs.free_bytes(Path::new("/")).unwrap();
    fs.set_capacity(Some(used + free_bytes));
}

fn found(fs: &SimFs, mode: RecoveryMode, what: &dyn Fn() -> String) -> Vec<Known> {
    read_only(fs, mode).unwrap_or_else(|error| panic!("{}: {error}\n{fs:?}", what()))
}

/// The log goes on after what is there, with `pages` of the disk left; `false` if there is none to go on with.
fn check(fs: &SimFs, options: &WalOptions, pages: u64, what: &dyn Fn() -> String) -> bool {
    let before = found(fs, RecoveryMode::TolerateTornTail, what);
    if fs.metadata(Path::new(DIRECTORY)).is_err() || is_headless(read(fs).unwrap().report()) {
        return false;
    }
    fill(fs, pages * PAGE_BYTES);
    let env = SimEnv::new(3);
    let mut log = match resume(fs, &env, options) {
        Ok(log) => log,
        Err(error) => {
            assert!(pages == 0 && error.is_disk_full(), "{}: {error}", what());
            assert_eq!(found(fs, RecoveryMode::TolerateTornTail, what), before, "{}", what());
            return false;
        }
    };
    let cut = fs.power_cut(&mut AllLost);
    assert_eq!(found(&cut, RecoveryMode::Strict, what), before, "{}: not durable", what());
    let end = log.append(u64::from(u32::MAX), b"").unwrap_or_else(|error| panic!("{}: {error}", what()));
    log.sync_handle().wait_durable(end).unwrap();
    let cut = fs.power_cut(&mut AllLost);
    drop(log);
    env.drop_jobs();
    let longer: Vec<_> =
        before.into_iter().chain([Known { tag: u64::from(u32::MAX), bytes: 0, end }]).collect();
    for fs in [cut, fs.process_crash()] {
        // Again, on a disk that is as full, and then as usual.
        fill(&fs, 2 * PAGE_BYTES);
        let env = SimEnv::new(4);
        drop(resume(&fs, &env, options).unwrap_or_else(|error| panic!("{}: {error}", what())));
        env.drop_jobs();
        fs.set_capacity(None);
        let (log, _) = simulation::open(&fs, &env, options).unwrap();
        assert_eq!(records(log.read_from(Position::ZERO).unwrap()).unwrap(), longer, "{}", what());
        drop(log);
        env.drop_jobs();
    }
    true
}

/// Whether there is no log to go on with.
fn is_headless(report: &RecoveryReport) -> bool {
    report.segment == 0
}

fn crash_everywhere(windows: u64, pages: u64) {
    let options = options(windows);
    let fs = SimFs::new();
    let (_, error) = run(&fs, &SimEnv::new(1), &options, STEPS);
    assert!(error.is_none(), "{error:?}");
    let mut gone_on = 0;
    for operation in 0..fs.operations() {
        let fs = SimFs::new();
        fs.crash_at(operation);
        let (model, _) = run(&fs, &SimEnv::new(1), &options, STEPS);
        let at = |image: &str| {
            let operation = format!("operation {operation} ({:?})", fs.last_operation());
            format!("window {windows}, {pages} pages free, {operation}, {image}")
        };
        let process = fs.process_crash();
        model.check(&read_only(&process, RecoveryMode::TolerateTornTail).unwrap(), false, &|| at("process"));
        gone_on += usize::from(check(&process, &options, pages, &|| at("process crash")));
        for image in fs.crash_images().at_most(16).with_seed(operation) {
            gone_on += usize::from(check(&image.fs, &options, pages, &|| at(&image.description)));
        }
    }
    assert!(gone_on > 100, "{gone_on}");
}

#[test]
fn a_log_goes_on_after_every_crash_with_two_blocks_left_on_the_disk() {
    for windows in [0, 512, 2048] {
        crash_everywhere(windows, 2);
    }
}

#[test]
fn without_a_free_block_a_log_goes_on_in_what_it_has_not_used_or_stays_as_it_was() {
    for windows in [0, 1024] {
        crash_everywhere(windows, 0);
    }
}

#[test]
fn a_crash_while_a_log_is_gone_on_with_takes_nothing_away() {
    let options = options(1024);
    let fs = SimFs::new();
    run(&fs, &SimEnv::new(1), &options, STEPS);
    let operations = fs.operations();
    for operation in (operations % 7..operations).step_by(7) {
        let fs = SimFs::new();
        fs.crash_at(operation);
        let (model, _) = run(&fs, &SimEnv::new(1), &options, STEPS);
        let process = std::iter::once((fs.process_crash(), false));
        let power = fs.crash_images().at_most(4).with_seed(operation).map(|image| (image.fs, true));
        for (image, power_lost) in process.chain(power) {
            if image.metadata(Path::new(DIRECTORY)).is_ok() && !is_headless(read(&image).unwrap().report()) {
                crash_while_going_on(&image, &options, &model, power_lost, operation);
            }
        }
    }
}

fn crash_while_going_on(
    image: &SimFs,
    options: &WalOptions,
    model: &Model,
    power_lost: bool,
    operation: u64,
) {
    let before = found(image, RecoveryMode::TolerateTornTail, &|| format!("operation {operation}"));
    fill(image, 2 * PAGE_BYTES);
    let whole = image.process_crash();
    let env = SimEnv::new(3);
    drop(resume(&whole, &env, options).unwrap());
    env.drop_jobs();
    for second in 0..whole.operations() {
        let copy = image.process_crash();
        copy.crash_at(second);
        let env = SimEnv::new(3);
        drop(resume(&copy, &env, options));
        env.drop_jobs();
        let at = |image: &str| format!("operation {operation}, operation {second} of going on, {image}");
        let what = || at("process crash");
        assert_eq!(found(&copy.process_crash(), RecoveryMode::TolerateTornTail, &what), before, "{}", what());
        for cut in copy.crash_images().at_most(5).with_seed(second) {
            let what = || at(&cut.description);
            let left = found(&cut.fs, RecoveryMode::TolerateTornTail, &what);
            if power_lost {
                // What the first power cut left was all on the disk.
                assert_eq!(left, before, "{}", what());
            } else {
                model.check(&left, true, &what);
            }
            check(&cut.fs, options, 4, &what);
        }
    }
}

/// The pages count as clean then, and reading shows what only memory has.
#[test]
fn what_a_failed_sync_left_in_memory_is_made_durable() {
    for windows in [0, 1024] {
        let (fs, env, options) = (SimFs::new(), SimEnv::new(1), options(windows));
        let (mut log, _) = simulation::open(&fs, &env, &options).unwrap();
        let mut end = Position::ZERO;
        for tag in 0..6 {
            end = log.append(tag, &simulation::payload(tag, 900)).unwrap();
        }
        fs.inject(Fault::on(OperationKind::Sync, std::io::ErrorKind::Other).named(".wal"));
        assert!(log.sync_handle().wait_durable(end).is_err());
        drop(log);
        env.drop_jobs();
        let fs = fs.process_crash();
        let before = read_only(&fs, RecoveryMode::Strict).unwrap();
        assert_eq!(before.last().unwrap().end, end);
        fill(&fs, 2 * PAGE_BYTES);
        let log = resume(&fs, &env, &options).unwrap();
        let cut = fs.power_cut(&mut AllLost);
        assert_eq!(read_only(&cut, RecoveryMode::Strict).unwrap(), before);
        drop(log);
        env.drop_jobs();
    }
}

#[test]
fn a_log_with_a_gap_is_not_gone_on_with() {
    let (fs, env, options) = (SimFs::new(), SimEnv::new(1), options(0));
    let (mut log, _) = simulation::open(&fs, &env, &options).unwrap();
    for tag in 0..3 {
        let end = log.append(tag, &simulation::payload(tag, 900)).unwrap();
        log.sync_handle().wait_durable(end).unwrap();
    }
    drop(log);
    env.drop_jobs();
    let segment = Path::new(DIRECTORY).join("000001.wal");
    let mut bytes = fs.read_all(&segment).unwrap();
    bytes[1200..1300].fill(0x55);
    fs.write_all(&segment, &bytes).unwrap();
    let mode = RecoveryMode::Salvage;
    let mut reader =
        WalReader::open(Arc::new(fs.clone()), Path::new(DIRECTORY), &LogExpectation::default(), mode)
            .unwrap();
    while reader.next().unwrap().is_some() {}
    assert!(reader.report().bytes_dropped > 0);
    let options = WalOptions { recovery: mode, ..options };
    let resumed = Wal::resume(
        Arc::new(env.clone()),
        &reader,
        Position(u64::MAX),
        reader.report().next_segment,
        options,
    );
    assert!(matches!(resumed, Err(Error::InvalidArgument { .. })));
    assert_eq!(fs.read_all(&segment).unwrap(), bytes);
    env.drop_jobs();
}
