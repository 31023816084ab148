//! The log on a real file system: what was appended is found again, whatever was done to the log in between.

#![expect(clippy::disallowed_methods, reason = "the test looks at real files")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use lsm_core::Error;
use lsm_core::env::ThreadEnv;
use lsm_core::vfs::PosixFs;
use lsm_wal::{
    CleanClose, FirstSegment, Log, LogCopy, LogExpectation, LogSync, Position, RecoveryMode, RecoveryReport,
    Wal, WalOptions, WalReader, remove_segments_below,
};

/// Tags and payloads. Shown as tags: a test that fails should be readable.
#[derive(Clone, PartialEq)]
struct Records(Vec<(u64, Vec<u8>)>);

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sound = |(tag, bytes): &(u64, Vec<u8>)| if *bytes == payload(*tag) { "" } else { " (altered)" };
        f.debug_list().entries(self.0.iter().map(|record| format!("{}{}", record.0, sound(record)))).finish()
    }
}

fn options(window_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes: 4096, window_bytes, ..WalOptions::default() }
}

fn payload(tag: u64) -> Vec<u8> {
    let len = (tag * 131 % 700) as usize;
    (0..len).map(|byte| (byte as u64 * 7 + tag) as u8).collect()
}

fn open(directory: &Path, options: &WalOptions) -> (Wal, RecoveryReport) {
    Wal::open(Arc::new(PosixFs), Arc::new(ThreadEnv::new(1)), directory, options.clone()).unwrap()
}

fn drain(mut reader: WalReader) -> (Records, RecoveryReport) {
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push((record.tag, record.payload.to_vec()));
    }
    (Records(records), reader.report().clone())
}

fn read(directory: &Path, clean: Option<CleanClose>) -> Result<(Records, RecoveryReport), Error> {
    let mode = RecoveryMode::Strict;
    let mut reader = WalReader::open(
        Arc::new(PosixFs),
        directory,
        &LogExpectation { clean, ..LogExpectation::default() },
        mode,
    )?;
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push((record.tag, record.payload.to_vec()));
    }
    Ok((Records(records), reader.report().clone()))
}

fn expected(tags: impl IntoIterator<Item = u64>) -> Records {
    Records(tags.into_iter().map(|tag| (tag, payload(tag))).collect())
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn records_come_back_after_a_close_a_drop_and_while_the_log_is_open() {
    for window_bytes in [0, 512, 4096, 1 << 16] {
        let directory = tempfile::tempdir().unwrap();
        let options = options(window_bytes);
        let mut next = 0;
        for round in 0..6 {
            let (mut log, report) = open(directory.path(), &options);
            assert_eq!(report.bytes_dropped, 0);
            assert_eq!(drain(log.read_from(Position::ZERO).unwrap()).0, expected(0..next));
            for tag in next..next + 40 {
                let position = log.append(tag, &payload(tag)).unwrap();
                assert_eq!(position, log.end());
            }
            next += 40;
            // As a process finds it that starts after this one was killed.
            assert_eq!(
                read(directory.path(), None).unwrap().0,
                expected(0..next),
                "window of {window_bytes}"
            );
            assert_eq!(drain(log.read_from(Position::ZERO).unwrap()).0, expected(0..next));
            match round % 3 {
                0 => drop(log),
                1 => {
                    let clean = Box::new(log).close().unwrap();
                    let (records, report) = read(directory.path(), Some(clean)).unwrap();
                    assert_eq!(records, expected(0..next));
                    assert!(report.closed);
                    assert_eq!(report.end, clean.end);
                }
                // Neither synced nor dropped, as if killed; the lock goes with the handle only.
                _ => {
                    log.ticket(log.end()).wait().unwrap();
                    drop(log);
                }
            }
        }
    }
}

#[test]
fn a_cleanly_closed_log_that_was_cut_or_damaged_is_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path(), &options(4096));
    for tag in 0..5 {
        log.append(tag, &payload(tag)).unwrap();
    }
    let clean = Box::new(log).close().unwrap();
    assert_eq!(files(directory.path()), ["000001.wal", "LOCK"], "nothing is left but the log");
    let path = directory.path().join("000001.wal");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, clean.length + 40, "no more is kept than is used");
    for len in 0..clean.length as usize {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let read = read(directory.path(), Some(clean));
        assert!(matches!(read, Err(Error::Corruption { .. })), "cut to {len}: {read:?}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(directory.path(), Some(clean)), Err(Error::Corruption { .. })));
}

#[test]
fn reading_can_begin_at_any_record() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path(), &options(1024));
    let mut starts = vec![Position::ZERO];
    for tag in 0..60 {
        starts.push(log.append(tag, &payload(tag)).unwrap());
    }
    for (index, &start) in starts.iter().enumerate() {
        assert_eq!(drain(log.read_from(start).unwrap()).0, expected(index as u64..60));
        let mode = RecoveryMode::Strict;
        let reader = WalReader::open(
            Arc::new(PosixFs),
            directory.path(),
            &LogExpectation { from: start, ..LogExpectation::default() },
            mode,
        )
        .unwrap();
        assert_eq!(drain(reader).0, expected(index as u64..60));
    }
}

#[test]
fn truncating_the_front_removes_whole_segments_and_keeps_the_rest_readable() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path(), &options(1024));
    let mut ends = Vec::new();
    for tag in 0..100 {
        ends.push(log.append(tag, &payload(tag)).unwrap());
    }
    let before = files(directory.path()).len();
    log.truncate_front(ends[49]).unwrap();
    assert!(files(directory.path()).len() < before);
    assert_eq!(drain(log.read_from(ends[49]).unwrap()).0, expected(50..100));
    assert!(
        matches!(log.read_from(ends[3]), Err(Error::Corruption { .. })),
        "what is gone is not passed over"
    );
    drop(log);
    let (log, report) = open(directory.path(), &options(1024));
    assert!(report.start > Position::ZERO && report.start <= ends[49]);
    assert_eq!(report.end, ends[99]);
    assert_eq!(drain(log.read_from(ends[49]).unwrap()).0, expected(50..100));
}

#[test]
fn truncating_the_tail_forgets_exactly_the_records_behind_it() {
    for window_bytes in [0, 1024, 1 << 16] {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path(), &options(window_bytes));
        let mut ends = vec![Position::ZERO];
        for tag in 0..50 {
            ends.push(log.append(tag, &payload(tag)).unwrap());
        }
        let crooked = Position(ends[30].0 + 8);
        assert!(matches!(log.truncate_tail(crooked), Err(Error::InvalidArgument { .. })));
        assert!(matches!(log.truncate_tail(Position(ends[50].0 + 8)), Err(Error::InvalidArgument { .. })));
        for keep in [50, 40, 39, 12, 0] {
            log.truncate_tail(ends[keep]).unwrap();
            assert_eq!(log.end(), ends[keep]);
            assert_eq!(read(directory.path(), None).unwrap().0, expected(0..keep as u64));
        }
        for tag in 0..10 {
            log.append(tag + 1000, &payload(tag + 1000)).unwrap();
        }
        assert_eq!(read(directory.path(), None).unwrap().0, expected(1000..1010));
        log.truncate_tail(Position::ZERO).unwrap();
        let position = log.append(7, &payload(7)).unwrap();
        log.ticket(position).wait().unwrap();
        drop(log);
        let (log, _) = open(directory.path(), &options(window_bytes));
        assert_eq!(drain(log.read_from(Position::ZERO).unwrap()).0, expected(7..8));
    }
}

#[test]
fn a_new_log_beside_an_old_one_is_told_apart_by_position() {
    let directory = tempfile::tempdir().unwrap();
    let vfs = Arc::new(PosixFs);
    let env = Arc::new(ThreadEnv::new(1));
    let mut old =
        Wal::create(vfs.clone(), env.clone(), directory.path(), FirstSegment::default(), options(1024))
            .unwrap();
    for tag in 0..30 {
        old.append(tag, &payload(tag)).unwrap();
    }
    let end = old.end();
    drop(old);
    let report = read(directory.path(), None).unwrap().1;
    assert_eq!((report.records, report.end), (30, end));
    let first = FirstSegment { number: report.next_segment, start: end };
    let mut new = Wal::create(vfs.clone(), env, directory.path(), first, options(1024)).unwrap();
    for tag in 100..120 {
        new.append(tag, &payload(tag)).unwrap();
    }
    new.ticket(new.end()).wait().unwrap();
    // As after a crash before the engine's manifest knew of the new log, and after.
    assert_eq!(read(directory.path(), None).unwrap().0, expected(0..30));
    let mode = RecoveryMode::Strict;
    let reader = WalReader::open(
        vfs.clone(),
        directory.path(),
        &LogExpectation { from: end, synced: end, ..LogExpectation::default() },
        mode,
    )
    .unwrap();
    assert_eq!(drain(reader).0, expected(100..120));
    remove_segments_below(&*vfs, directory.path(), report.next_segment).unwrap();
    assert_eq!(read(directory.path(), None).unwrap().0, expected(100..120));
    // The window of a log that is being written stays, though its number is low; not every file system gives one.
    let window = format!("{:06}.window", report.next_segment);
    let has_window = files(directory.path()).contains(&window);
    remove_segments_below(&*vfs, directory.path(), report.next_segment + 1).unwrap();
    assert_eq!(files(directory.path()).contains(&window), has_window);
}

#[test]
fn a_record_longer_than_a_segment_gets_one_of_its_own() {
    for window_bytes in [0, 1024] {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path(), &options(window_bytes));
        let bytes: Vec<u8> = (0..300_000_u32).map(|byte| (byte % 251) as u8).collect();
        log.append(1, b"before").unwrap();
        log.append(2, &bytes).unwrap();
        log.append(3, b"after").unwrap();
        let records = Records(vec![(1, b"before".to_vec()), (2, bytes), (3, b"after".to_vec())]);
        assert_eq!(read(directory.path(), None).unwrap().0, records);
        drop(log);
        let (log, _) = open(directory.path(), &options(window_bytes));
        assert_eq!(drain(log.read_from(Position::ZERO).unwrap()).0, records);
    }
}

#[test]
fn waiters_and_callbacks_learn_what_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path(), &options(1 << 16));
    let sync = log.sync_handle();
    let position = log.append(1, b"one").unwrap();
    assert!(sync.durable() < position);
    assert!(!log.ticket(position).is_durable());
    let (sender, receiver) = mpsc::channel();
    let report = sender.clone();
    sync.on_durable(position, Box::new(move |result| report.send(result).unwrap()));
    receiver.recv().unwrap().unwrap();
    assert!(sync.durable() >= position);
    sync.on_durable(position, Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap().unwrap();
    let beyond = Position(position.0 + 8);
    assert!(matches!(sync.wait_durable(beyond), Err(Error::InvalidArgument { .. })));
    Box::new(log).close().unwrap();
    sync.wait_durable(position).unwrap();
}

#[test]
fn buffered_records_are_synced_in_the_background_after_the_lag() {
    let directory = tempfile::tempdir().unwrap();
    let options = WalOptions { sync_lag_micros: Some(1), ..options(1 << 16) };
    let (mut log, _) = open(directory.path(), &options);
    let sync = log.sync_handle();
    for tag in 0..20 {
        let position = log.append(tag, b"left alone").unwrap();
        while sync.durable() < position {
            std::thread::yield_now();
        }
    }
}

#[test]
fn many_threads_share_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path(), &options(1 << 16));
    let sync: Arc<dyn LogSync> = log.sync_handle();
    let log = Arc::new(std::sync::Mutex::new(log));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (log, sync) = (Arc::clone(&log), Arc::clone(&sync));
            scope.spawn(move || {
                for tag in 0..100 {
                    let position = log.lock().unwrap().append(thread * 1000 + tag, &payload(tag)).unwrap();
                    sync.wait_durable(position).unwrap();
                    assert!(sync.durable() >= position);
                }
            });
        }
    });
    let (records, _) = read(directory.path(), None).unwrap();
    assert_eq!(records.0.len(), 800);
    for thread in 0..8 {
        let tags: Vec<u64> =
            records.0.iter().map(|(tag, _)| *tag).filter(|tag| tag / 1000 == thread).collect();
        assert_eq!(tags, (thread * 1000..thread * 1000 + 100).collect::<Vec<_>>());
    }
}

#[test]
fn a_reader_says_what_memory_it_takes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path(), &WalOptions::default());
    for tag in 0..40_000 {
        log.append(tag, &[1; 100]).unwrap();
    }
    log.append(40_000, &vec![2; 3_000_000]).unwrap();
    log.append(40_001, &[3; 100]).unwrap();
    let mode = RecoveryMode::TolerateTornTail;
    let mut reader =
        WalReader::open(Arc::new(PosixFs), directory.path(), &LogExpectation::default(), mode).unwrap();
    for tag in 0..40_000 {
        assert_eq!(reader.next().unwrap().unwrap().tag, tag);
        assert!(reader.memory_bytes() <= 3 * (256 << 10), "{} bytes", reader.memory_bytes());
    }
    assert_eq!(reader.next().unwrap().unwrap().payload.len(), 3_000_000);
    assert!((3_000_000..4_000_000).contains(&reader.memory_bytes()), "{} bytes", reader.memory_bytes());
    assert_eq!(reader.next().unwrap().unwrap().tag, 40_001);
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn bad_directories_and_options_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let env = Arc::new(ThreadEnv::new(1));
    let refused = |path: &Path, options: WalOptions| {
        Wal::open(Arc::new(PosixFs), env.clone(), path, options).err().expect("refused").to_string()
    };
    assert!(refused(&file, options(0)).contains("is not a directory"));
    assert!(refused(&directory.path().join("a/b"), options(0)).contains("cannot create the directory"));
    assert!(
        refused(directory.path(), WalOptions { segment_bytes: 1, ..options(0) }).contains("segment_bytes")
    );
    assert!(refused(directory.path(), options(1 << 40)).contains("window_bytes"));
    let _log = open(&directory.path().join("log"), &options(0));
    assert!(refused(&directory.path().join("log"), options(0)).contains("cannot lock"));
}

#[test]
fn a_segment_of_a_newer_version_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path(), &options(0));
    log.append(1, b"one").unwrap();
    drop(log);
    let path = directory.path().join("000001.wal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 5;
    std::fs::write(&path, &bytes).unwrap();
    let opened = Wal::open(Arc::new(PosixFs), Arc::new(ThreadEnv::new(1)), directory.path(), options(0));
    assert!(matches!(opened, Err(Error::UnsupportedVersion { found: 5, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

/// Copies the records from a position on while the log goes on.
fn copy(log: &mut Wal, directory: &Path, from: Position, target: &Path) -> CleanClose {
    let end = log.end();
    log.sync_handle().wait_durable(end).unwrap();
    let expected = LogExpectation { from, ..LogExpectation::default() };
    let reader =
        WalReader::open(Arc::new(PosixFs), directory, &expected, RecoveryMode::TolerateTornTail).unwrap();
    log.append(999, &payload(5)).unwrap();
    let mut reader = reader.until(end);
    let mut copy = LogCopy::begin(1, from, 77, 88);
    let mut bytes = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        copy.append(record.tag, record.payload).unwrap();
        bytes.extend(copy.take());
    }
    let closed = copy.finish().unwrap();
    bytes.extend(copy.take());
    assert_eq!(copy.waiting_bytes(), 0);
    assert_eq!(bytes.len() as u64, LogCopy::file_bytes(from, end));
    std::fs::write(target.join(copy.file_name()), bytes).unwrap();
    closed
}

#[test]
fn a_copy_of_a_part_of_a_log_holds_what_was_there_and_is_closed() {
    for window_bytes in [0, 4096, 1 << 16] {
        let (directory, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut log, _) = open(directory.path(), &options(window_bytes));
        let mut middle = Position::ZERO;
        for tag in 1..60 {
            let end = log.append(tag, &payload(tag)).unwrap();
            if tag == 20 {
                middle = end;
            }
        }
        let end = log.end();
        let closed = copy(&mut log, directory.path(), middle, target.path());
        assert_eq!(closed.end, end);
        let (records, report) = read(target.path(), Some(closed)).unwrap();
        assert_eq!(records, expected(21..60));
        assert_eq!((report.start, report.end), (middle, end));
        // A log that is opened there goes on.
        let (mut copied, _) = open(target.path(), &options(window_bytes));
        copied.append(60, &payload(60)).unwrap();
        Box::new(copied).close().unwrap();
        assert_eq!(read(target.path(), None).unwrap().0, expected(21..61));
        // So does one without records.
        let empty = tempfile::tempdir().unwrap();
        let end = log.end();
        let closed = copy(&mut log, directory.path(), end, empty.path());
        assert_eq!(read(empty.path(), Some(closed)).unwrap().0, expected([]));
    }
}
