//! A tail reads a log while it is written: each record once, in order, none that is not part of the log.

mod simulation;

use std::path::Path;
use std::sync::Arc;

use lsm_core::Error;
use lsm_core::env::{SimEnv, ThreadEnv};
use lsm_core::vfs::{AllLost, Fault, PosixFs, SimFs};
use lsm_wal::{Log, Position, Tail, TailError, Wal, WalOptions};
use proptest::prelude::*;
use simulation::{DIRECTORY, Known, open, options, payload};

/// Records that the writing thread appends.
const COUNT: u64 = 20_000;

fn tail(fs: &SimFs, from: Position) -> Result<Tail, TailError> {
    Tail::open(Arc::new(fs.clone()), Path::new(DIRECTORY), from)
}

/// A tail and what it has returned.
struct Reader {
    tail: Tail,
    found: Vec<Known>,
}

impl Reader {
    fn new(fs: &SimFs) -> Self {
        Self { tail: tail(fs, Position::ZERO).unwrap(), found: Vec::new() }
    }

    fn go_back_to(&mut self, fs: &SimFs, position: Position) {
        self.tail = tail(fs, position).unwrap();
        self.found.retain(|known| known.end <= position);
    }

    /// Reads what there is now: all, or only what is durable.
    fn read(&mut self, durable: Option<Position>) -> Result<(), TailError> {
        loop {
            let record = match durable {
                Some(durable) => self.tail.next_durable(durable)?,
                None => self.tail.next()?,
            };
            let Some(record) = record else { return Ok(()) };
            let known = Known { tag: record.tag, bytes: record.payload.len(), end: record.end };
            assert_eq!(record.payload, payload(known.tag, known.bytes), "record {}", known.tag);
            self.found.push(known);
            assert_eq!(self.tail.position(), known.end);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(usize),
    Sync,
    Jobs,
    /// Truncates up to where this many of a hundred of the records are read by both readers.
    Truncate(usize),
    ReadAll,
    ReadDurable,
    /// The process ends, and another opens the log.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0_usize..1500).prop_map(Step::Append),
        1 => (3000_usize..12_000).prop_map(Step::Append),
        3 => Just(Step::Sync),
        2 => Just(Step::Jobs),
        1 => (0_usize..100).prop_map(Step::Truncate),
        5 => Just(Step::ReadAll),
        5 => Just(Step::ReadDurable),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_record_is_read_once_and_in_order_while_the_log_is_written(
        steps in steps(),
        window_bytes in prop_oneof![Just(0), Just(256), Just(1000), Just(1 << 14)],
        seed in any::<u64>(),
    ) {
        let options = options(window_bytes);
        let (fs, env) = (SimFs::new(), SimEnv::new(seed));
        let mut log = open(&fs, &env, &options).unwrap().0;
        let (mut all, mut durable) = (Reader::new(&fs), Reader::new(&fs));
        let (mut history, mut reopened) = (Vec::<Known>::new(), false);
        for &step in &steps {
            match step {
                Step::Append(bytes) => {
                    let tag = history.len() as u64;
                    let end = log.append(tag, &payload(tag, bytes)).unwrap();
                    history.push(Known { tag, bytes, end });
                }
                Step::Sync => log.sync_handle().wait_durable(log.end()).unwrap(),
                Step::Jobs => drop(env.run_until_idle()),
                Step::Truncate(percent) => {
                    let read = all.found.len().min(durable.found.len());
                    if let Some(known) = history[..read].get(read * percent / 100) {
                        log.truncate_front(known.end).unwrap();
                    }
                }
                Step::ReadAll => {
                    if let Err(TailError::TakenBack { common, .. }) = all.read(None) {
                        // Opening the log wrote once more what was not known to be durable.
                        prop_assert!(reopened);
                        all.go_back_to(&fs, common);
                        all.read(None).unwrap();
                    }
                    prop_assert_eq!(&all.found, &history, "{:?}", steps);
                }
                Step::ReadDurable => {
                    let position = log.sync_handle().durable();
                    if let Err(TailError::TakenBack { common, .. }) = durable.read(Some(position)) {
                        prop_assert!(reopened);
                        durable.go_back_to(&fs, common);
                        durable.read(Some(position)).unwrap();
                    }
                    let count = history.iter().take_while(|known| known.end <= position).count();
                    prop_assert_eq!(&durable.found[..], &history[..count], "{:?}", steps);
                }
                Step::Reopen => {
                    reopened = true;
                    drop(log);
                    env.run_until_idle();
                    log = open(&fs, &env, &options).unwrap().0;
                }
            }
        }
    }
}

/// Appends forty records, with whatever fails, and has both readers read between them.
fn write_beside(fs: &SimFs, window_bytes: u64) -> Option<()> {
    let env = SimEnv::new(1);
    let mut log = open(fs, &env, &options(window_bytes)).ok()?.0;
    let (mut all, mut durable) = (Reader::new(fs), Reader::new(fs));
    let sync = log.sync_handle();
    let (mut history, mut failed) = (Vec::new(), 0);
    for tag in 0..40_u64 {
        let bytes = [30, 700, 5, 1300, 100][tag as usize % 5];
        match log.append(tag, &payload(tag, bytes)) {
            Ok(end) => history.push(Known { tag, bytes, end }),
            Err(_) => failed += 1,
        }
        if tag % 7 == 3 {
            let _ = sync.wait_durable(log.end());
        }
        if tag % 9 == 0 {
            env.run_until_idle();
        }
        if tag % 3 == 0 {
            match all.read(None) {
                // It saw a record whose write failed all the same.
                Err(TailError::TakenBack { common, .. }) => {
                    assert!(failed > 0);
                    all.go_back_to(fs, common);
                }
                // The fault hit the reader.
                Err(TailError::Failed(Error::Io { .. })) => {}
                read => read.unwrap(),
            }
        }
        match durable.read(Some(sync.durable())) {
            Err(TailError::Failed(Error::Io { .. })) => {}
            read => read.unwrap(),
        }
    }
    fs.clear_faults();
    if let Err(TailError::TakenBack { common, .. }) = all.read(None) {
        all.go_back_to(fs, common);
        all.read(None).unwrap();
    }
    durable.read(Some(sync.durable())).unwrap();
    let end = history.iter().take_while(|known| known.end <= sync.durable()).count();
    assert_eq!(durable.found, history[..end]);
    // A record whose write failed last may still be seen; no other is.
    all.found.truncate(history.len());
    assert_eq!(all.found, history);
    Some(())
}

#[test]
fn whatever_fails_a_tail_reads_what_was_acknowledged() {
    for window_bytes in [0, 1000] {
        let fs = SimFs::new();
        write_beside(&fs, window_bytes).unwrap();
        for operation in 0..fs.operations() {
            for partly in [false, true] {
                let fs = SimFs::new();
                let fault = Fault::at_operation(operation, std::io::ErrorKind::Other);
                // A write that fails although all of it is in the file.
                fs.inject(if partly { fault.after_writing(1 << 20) } else { fault });
                write_beside(&fs, window_bytes);
            }
        }
    }
}

#[test]
fn what_was_truncated_away_is_gone_and_said_so() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let (mut log, _) = open(&fs, &env, &options(1000)).unwrap();
    let mut early = Reader::new(&fs);
    for tag in 0..30 {
        log.append(tag, &payload(tag, 1000)).unwrap();
    }
    log.truncate_front(log.end()).unwrap();
    let begin = match early.read(None) {
        Err(TailError::Gone { position, begin }) => {
            assert_eq!(position, early.tail.position());
            begin
        }
        read => panic!("{read:?}"),
    };
    assert!(matches!(tail(&fs, Position::ZERO), Err(TailError::Gone { begin: told, .. }) if told == begin));
    assert!(tail(&fs, begin).unwrap().next().unwrap().is_some());
}

#[test]
fn what_a_power_cut_took_back_is_told_to_who_read_it() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let (mut log, _) = open(&fs, &env, &options(1000)).unwrap();
    let common = log.append(1, b"durable").unwrap();
    log.sync_handle().wait_durable(common).unwrap();
    let lost = log.append(2, b"lost").unwrap();
    let image = fs.power_cut(&mut AllLost);
    let (mut log, _) = open(&image, &SimEnv::new(2), &options(1000)).unwrap();
    log.append(3, b"another").unwrap();

    let mut tail = tail(&image, Position::ZERO).unwrap();
    assert_eq!(tail.next().unwrap().map(|record| record.tag), Some(1));
    assert_eq!(tail.next().unwrap().map(|record| record.tag), Some(3));
    // One that has read the lost record on the old files goes on with the new ones.
    let mut old = Tail::open(Arc::new(fs.clone()), Path::new(DIRECTORY), Position::ZERO).unwrap();
    while old.next().unwrap().is_some() {}
    assert_eq!(old.position(), lost);
    for path in image.paths() {
        fs.write_all(&path, &image.read_all(&path).unwrap()).unwrap();
    }
    match old.next() {
        Err(TailError::TakenBack { position, common: told }) => assert!(position == lost && told <= common),
        read => panic!("{read:?}"),
    }
}

#[test]
fn damage_in_the_middle_is_an_error_with_file_and_offset_and_never_the_end() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let (mut log, _) = open(&fs, &env, &options(1000)).unwrap();
    let mut ends = Vec::new();
    for tag in 0..12 {
        ends.push(log.append(tag, &payload(tag, 500)).unwrap());
        log.sync_handle().wait_durable(log.end()).unwrap();
    }
    let durable = log.end();
    let read = |fs: &SimFs, all: bool| -> (usize, Option<TailError>) {
        let opened = tail(fs, Position::ZERO);
        let mut reader = match opened {
            Ok(tail) => Reader { tail, found: Vec::new() },
            Err(error) => return (0, Some(error)),
        };
        let error = reader.read(if all { None } else { Some(durable) }).err();
        (reader.found.len(), error)
    };
    assert!(matches!(read(&fs, true), (12, None)));
    let segments = fs.paths().into_iter().filter(|path| path.extension().is_some_and(|name| name == "wal"));
    for path in segments {
        for offset in (0..fs.read_all(&path).unwrap().len() as u64).step_by(3) {
            let damaged = fs.process_crash();
            damaged.corrupt(&path, offset, 0x14).unwrap();
            for all in [false, true] {
                match read(&damaged, all) {
                    (_, Some(TailError::Failed(Error::Corruption { path: told, .. }))) => {
                        // A segment whose header is no header any more is missed where the one before ends.
                        assert!(offset < 128 || told.file_name() == path.file_name());
                    }
                    (0, Some(TailError::Failed(Error::UnsupportedVersion { .. }))) => {}
                    // Bytes that no record has; or, of what is not known to be durable, those of the last records,
                    // which nothing proves. A header that is no header any more hides what follows.
                    (found, None) => assert!(found == 12 || all, "{} {offset}: {found}", path.display()),
                    (found, Some(TailError::Gone { .. })) => assert!(found == 0 || offset < 128),
                    (found, error) => panic!("{} at {offset}: {found}, {error:?}", path.display()),
                }
            }
        }
    }
}

#[test]
fn a_tail_beside_a_writing_thread_reads_every_record() {
    let directory = tempfile::tempdir().unwrap();
    let env = Arc::new(ThreadEnv::new(1));
    let options = WalOptions { segment_bytes: 1 << 16, window_bytes: 4096, ..WalOptions::default() };
    let (mut log, _) = Wal::open(Arc::new(PosixFs), env, directory.path(), options).unwrap();
    let sync = log.sync_handle();
    std::thread::scope(|scope| {
        for durable_only in [false, true] {
            let (sync, directory) = (Arc::clone(&sync), directory.path());
            scope.spawn(move || {
                let mut tail = Tail::open(Arc::new(PosixFs), directory, Position::ZERO).unwrap();
                let mut next = 0;
                while next < COUNT {
                    let record = if durable_only { tail.next_durable(sync.durable()) } else { tail.next() };
                    match record.unwrap() {
                        Some(record) => {
                            assert_eq!(record.tag, next);
                            assert_eq!(record.payload, payload(next, next as usize % 300));
                            next += 1;
                        }
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        for tag in 0..COUNT {
            let end = log.append(tag, &payload(tag, tag as usize % 300)).unwrap();
            if tag % 500 == 499 {
                log.ticket(end).wait().unwrap();
            }
        }
    });
}
