//! Damages every part of a log: it is found out or does no harm, and recovery leaves the evidence alone.

mod simulation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::Error;
use lsm_core::env::SimEnv;
use lsm_core::vfs::{SimFs, Vfs};
use lsm_wal::{Log, LogExpectation, Position, RecoveryMode, verify};
use simulation::{Known, open, options, payload, read_only, records};

/// A log of several segments whose end is only in the window, as a crash of the process leaves it.
fn fixture() -> (SimFs, Vec<Known>) {
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    let (mut log, _) = open(&fs, &env, &options(2048)).unwrap();
    let mut known = Vec::new();
    for tag in 0..14 {
        let bytes = [40, 900, 7, 0][tag as usize % 4];
        let end = log.append(tag, &payload(tag, bytes)).unwrap();
        known.push(Known { tag, bytes, end });
        if tag == 9 {
            log.sync_handle().wait_durable(end).unwrap();
        }
    }
    let left = fs.process_crash();
    drop(log);
    env.drop_jobs();
    (left, known)
}

fn files(fs: &SimFs) -> Vec<PathBuf> {
    fs.paths().into_iter().filter(|path| !path.ends_with("LOCK")).collect()
}

/// Reads in every mode; panics unless the outcome is an error that names the file, or the records as they were.
fn check(fs: &SimFs, known: &[Known], path: &Path, what: &str) {
    let before = fs.fingerprint();
    match read_only(fs, RecoveryMode::TolerateTornTail) {
        Ok(found) => assert_eq!(found, known, "{what}"),
        Err(Error::Corruption { path: named, .. }) => {
            assert_eq!(named.file_name(), path.file_name(), "{what}");
            let env = SimEnv::new(2);
            assert!(open(fs, &env, &options(2048)).is_err(), "{what}");
        }
        Err(error) => panic!("{what}: {error}"),
    }
    // Whatever salvaging finds was there once, in order.
    let mut rest = known.iter();
    for found in read_only(fs, RecoveryMode::Salvage).expect(what) {
        assert!(rest.any(|known| *known == found), "{what}: {found:?}");
    }
    assert_eq!(fs.fingerprint(), before, "{what}: the disk was changed");
}

#[test]
fn a_flipped_bit_anywhere_is_corruption_or_harmless() {
    let (fs, known) = fixture();
    assert_eq!(read_only(&fs, RecoveryMode::Strict).unwrap(), known);
    let mut detected = 0;
    for path in files(&fs) {
        let len = fs.read_all(&path).unwrap().len() as u64;
        for byte in 0..len {
            let mask = 1 << (byte % 8);
            fs.corrupt(&path, byte, mask).unwrap();
            check(&fs, &known, &path, &format!("bit {mask:#x} of byte {byte} of {}", path.display()));
            detected += u64::from(read_only(&fs, RecoveryMode::TolerateTornTail).is_err());
            fs.corrupt(&path, byte, mask).unwrap();
        }
    }
    assert!(detected > known.last().unwrap().end.0, "{detected} flips were found out");
}

#[test]
fn a_sector_that_was_synced_and_is_lost_is_corruption() {
    let (fs, known) = fixture();
    let synced = known[9].end;
    for path in files(&fs) {
        let bytes = fs.read_all(&path).unwrap();
        for start in (0..bytes.len()).step_by(512) {
            let mut damaged = bytes.clone();
            damaged[start..(start + 512).min(bytes.len())].fill(0);
            fs.write_all(&path, &damaged).unwrap();
            let what = format!("sector at {start} of {}", path.display());
            match read_only(&fs, RecoveryMode::TolerateTornTail) {
                // What was not synced may end early.
                Ok(found) => {
                    assert_eq!(found, known[..found.len()], "{what}");
                    assert!(found.last().is_some_and(|last| last.end >= synced), "{what}");
                }
                Err(Error::Corruption { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
        fs.write_all(&path, &bytes).unwrap();
    }
}

#[test]
fn a_segment_cut_anywhere_or_gone_loses_nothing_synced_in_silence() {
    let (fs, known) = fixture();
    let synced = known[9].end;
    for path in files(&fs) {
        let bytes = fs.read_all(&path).unwrap();
        for len in (0..bytes.len()).step_by(24) {
            fs.write_all(&path, &bytes[..len]).unwrap();
            match read_only(&fs, RecoveryMode::TolerateTornTail) {
                Ok(found) => {
                    assert_eq!(found, known[..found.len()]);
                    assert!(
                        found.last().is_some_and(|last| last.end >= synced),
                        "{} cut to {len}",
                        path.display()
                    );
                }
                Err(Error::Corruption { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        fs.write_all(&path, &bytes).unwrap();
    }
}

#[test]
fn a_window_whose_segment_lost_its_header_is_corruption() {
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    let (mut log, _) = open(&fs, &env, &options(2048)).unwrap();
    let mut known = Vec::new();
    for tag in 0..5 {
        let end = log.append(tag, &payload(tag, 40)).unwrap();
        known.push(Known { tag, bytes: 40, end });
    }
    let fs = fs.process_crash();
    env.drop_jobs();
    let path = Path::new("/log/000001.wal");
    let bytes = fs.read_all(path).unwrap();
    for (start, end) in [(60, 68), (0, 128), (120, 130)] {
        let mut damaged = bytes.clone();
        damaged[start..end].fill(0xa5);
        fs.write_all(path, &damaged).unwrap();
        assert!(read_only(&fs, RecoveryMode::TolerateTornTail).is_err());
        check(&fs, &known, path, &format!("bytes {start} to {end}"));
    }
    for len in [0, 17, 127] {
        fs.write_all(path, &bytes[..len]).unwrap();
        assert!(read_only(&fs, RecoveryMode::TolerateTornTail).is_err());
        check(&fs, &known, path, &format!("cut to {len}"));
    }
    fs.remove_file(path).unwrap();
    assert!(read_only(&fs, RecoveryMode::TolerateTornTail).is_err());
    check(&fs, &known, path, "removed");
}

#[test]
fn a_window_that_is_gone_or_no_window_is_corruption() {
    let (fs, known) = fixture();
    let path = files(&fs).into_iter().find(|path| path.extension().is_some_and(|is| is == "window")).unwrap();
    let bytes = fs.read_all(&path).unwrap();
    let of_a_segment = fs.read_all(Path::new("/log/000001.wal")).unwrap();
    let refused = |what: &str| {
        assert!(read_only(&fs, RecoveryMode::TolerateTornTail).is_err(), "{what}: records are lost silently");
        check(&fs, &known, &path, what);
    };
    for len in [0, 17, 127, 600, 4096, bytes.len() - 1] {
        fs.write_all(&path, &bytes[..len]).unwrap();
        // What is still there may be all of the log.
        if len < 4096 {
            refused(&format!("cut to {len}"));
        }
        check(&fs, &known, &path, &format!("cut to {len}"));
    }
    let mut damaged = bytes.clone();
    damaged[3..40].fill(0xa5);
    for (bytes, what) in [(damaged, "a bad header"), (of_a_segment, "a segment under its name")] {
        fs.write_all(&path, &bytes).unwrap();
        refused(what);
    }
    // As a power cut may leave it; its slots say where its records begin.
    let mut headless = bytes.clone();
    headless[..128].fill(0);
    fs.write_all(&path, &headless).unwrap();
    assert_eq!(read_only(&fs, RecoveryMode::TolerateTornTail).unwrap(), known);
    fs.remove_file(&path).unwrap();
    refused("removed");
}

#[test]
fn a_log_without_any_header_names_a_file_that_is_there() {
    let (fs, _) = fixture();
    let expected = LogExpectation { begun: 1, ..LogExpectation::default() };
    let segments = files(&fs).into_iter().filter(|path| path.extension().is_some_and(|is| is == "wal"));
    for path in segments.clone().skip(1) {
        let mut bytes = fs.read_all(&path).unwrap();
        bytes[60..68].fill(0xa5);
        fs.write_all(&path, &bytes).unwrap();
    }
    let mut segments = segments.clone();
    fs.remove_file(&segments.next().unwrap()).unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(fs);
    let report = verify(&vfs, Path::new("/log"), &expected, &mut |_| {});
    let [error, ..] = &report.errors[..] else { panic!("nothing is wrong") };
    let Error::Corruption { path, .. } = error else { panic!("{error}") };
    assert!(vfs.metadata(path).is_ok(), "{error}");
}

#[test]
fn a_log_that_lost_every_header_is_corruption() {
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    let (mut log, _) = open(&fs, &env, &options(2048)).unwrap();
    log.append(0, &payload(0, 900)).unwrap();
    Box::new(log).close().unwrap();
    env.drop_jobs();
    let [path] = &files(&fs)[..] else { panic!("closing leaves one segment") };
    let bytes = fs.read_all(path).unwrap();
    // Without the first record there is nothing that says what the checksums of the others begin with.
    for lost in [60..68, 0..128, 0..512, 0..700] {
        let mut damaged = bytes.clone();
        damaged[lost.clone()].fill(0);
        fs.write_all(path, &damaged).unwrap();
        assert!(read_only(&fs, RecoveryMode::TolerateTornTail).is_err(), "{lost:?}");
        check(&fs, &[], path, &format!("{lost:?}"));
    }
}

/// Counting on from the highest number once ended in a panic.
#[test]
fn numbers_of_files_end_before_they_wrap() {
    let reopened = |name: &str| {
        let (fs, known) = fixture();
        fs.write_all(&Path::new("/log").join(name), b"").unwrap();
        let env = SimEnv::new(3);
        let records = open(&fs, &env, &options(2048)).map(|(_, report)| report.records);
        env.drop_jobs();
        (records, known.len() as u64, fs.metadata(&Path::new("/log").join(name)).is_ok())
    };
    // Those are somebody else's.
    for name in ["18446744073709551615.wal", "18446744073709551615.window", "1152921504606846976.wal"] {
        let (records, known, is_left) = reopened(name);
        assert_eq!((records.unwrap(), is_left), (known, true), "{name}");
    }
    let (records, known, _) = reopened("1152921504606846974.wal");
    assert_eq!(records.unwrap(), known);
    let (records, ..) = reopened("1152921504606846975.wal");
    let error = records.unwrap_err();
    assert!(
        matches!(error, Error::InvalidArgument { .. }) && error.to_string().contains("used up"),
        "{error}"
    );
}

#[test]
fn random_bytes_in_place_of_a_file_take_bounded_time_and_memory() {
    let (fs, _) = fixture();
    for path in files(&fs) {
        let bytes = fs.read_all(&path).unwrap();
        for seed in 0..20_u64 {
            let mut state = seed;
            let noise: Vec<u8> = bytes
                .iter()
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            // Half of the file, so that headers stay in some cases.
            let mut damaged = bytes.clone();
            let from = if seed % 2 == 0 { 0 } else { bytes.len() / 2 };
            damaged[from..].copy_from_slice(&noise[from..]);
            fs.write_all(&path, &damaged).unwrap();
            for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Strict, RecoveryMode::Salvage] {
                let _ = read_only(&fs, mode);
            }
        }
        fs.write_all(&path, &bytes).unwrap();
    }
}

#[test]
fn a_torn_tail_is_dropped_reported_and_set_aside_in_time_for_the_next_opening() {
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    let options = options(0);
    let (mut log, _) = open(&fs, &env, &options).unwrap();
    let kept = log.append(0, &payload(0, 100)).unwrap();
    log.append(1, &payload(1, 100)).unwrap();
    log.append(2, &payload(2, 100)).unwrap();
    let fs = fs.process_crash();
    env.drop_jobs();
    // Three bytes of the second record, which no later one says was synced.
    for byte in [300, 310, 320] {
        fs.corrupt(&PathBuf::from("/log/000001.wal"), byte, 0xff).unwrap();
    }
    assert!(matches!(read_only(&fs, RecoveryMode::Strict), Err(Error::Corruption { .. })));
    let (log, report) = open(&fs, &env, &options).unwrap();
    assert_eq!((report.end, report.records), (kept, 1));
    assert_eq!(report.bytes_dropped, 288, "two records");
    assert_eq!(report.dropped[0].offset, 128 + kept.0);
    assert!(report.dropped[0].to_string().contains("000001.wal"));
    drop(log);
    env.drop_jobs();
    let (log, report) = open(&fs, &env, &options).unwrap();
    assert_eq!((report.end, report.bytes_dropped), (kept, 0), "what was dropped is not found corrupt later");
    assert_eq!(records(log.read_from(Position::ZERO).unwrap()).unwrap().len(), 1);
    env.drop_jobs();
}

#[test]
fn salvage_goes_on_behind_the_damage_and_the_log_is_whole_afterwards() {
    let (fs, known) = fixture();
    let path = PathBuf::from("/log/000001.wal");
    for byte in 200..230 {
        fs.corrupt(&path, byte, 0xa5).unwrap();
    }
    let env = SimEnv::new(5);
    let salvaging = lsm_wal::WalOptions { recovery: RecoveryMode::Salvage, ..options(2048) };
    let (log, report) = open(&fs, &env, &salvaging).unwrap();
    assert!(report.bytes_dropped > 0);
    assert!(report.records as usize >= known.len() - 2);
    drop(log);
    env.drop_jobs();
    let (log, report) = open(&fs, &env, &options(2048)).unwrap();
    assert_eq!(report.bytes_dropped, 0);
    assert!(report.records as usize >= known.len() - 2);
    let tags: Vec<u64> =
        records(log.read_from(Position::ZERO).unwrap()).unwrap().iter().map(|known| known.tag).collect();
    assert!(tags.is_sorted() && tags.last() == Some(&13));
    env.drop_jobs();
}

#[test]
fn a_later_record_that_says_what_was_synced_makes_a_torn_one_corrupt() {
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    let (mut log, _) = open(&fs, &env, &options(0)).unwrap();
    let mut starts = Vec::new();
    for tag in 0..6 {
        starts.push(128 + log.end().0);
        log.append(tag, &payload(tag, 100)).unwrap();
        if tag == 2 {
            log.sync_handle().wait_durable(log.end()).unwrap();
        }
    }
    let fs = fs.process_crash();
    env.drop_jobs();
    let path = Path::new("/log/000001.wal");
    for (tag, start) in starts.into_iter().enumerate() {
        for byte in [50, 60, 70] {
            fs.corrupt(path, start + byte, 0x81).unwrap();
        }
        match read_only(&fs, RecoveryMode::TolerateTornTail) {
            Ok(found) => assert!(tag > 2 && found.len() == tag, "record {tag} was synced"),
            Err(Error::Corruption { offset, .. }) => {
                assert!(tag <= 2 && offset == start, "record {tag} was not");
            }
            Err(error) => panic!("{error}"),
        }
        for byte in [50, 60, 70] {
            fs.corrupt(path, start + byte, 0x81).unwrap();
        }
    }
}
