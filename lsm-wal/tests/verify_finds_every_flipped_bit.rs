//! Flips a bit in every byte of every file of a log: `verify` finds it, whichever copy of a record it is in, and
//! calls nothing damage that a crash may leave.

mod simulation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::Error;
use lsm_core::env::SimEnv;
use lsm_core::vfs::{AllKept, AllLost, Fate, Fault, OperationKind, Piece, PieceKind, Seeded, SimFs, Vfs};
use lsm_wal::{
    CleanClose, FirstSegment, Log, LogExpectation, Position, VerifyReport, Wal, WalOptions, verify,
};
use simulation::{DIRECTORY, open, options, payload};

fn check(fs: &SimFs, clean: Option<CleanClose>) -> VerifyReport {
    let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
    let expected = LogExpectation { clean, ..LogExpectation::default() };
    let mut records = 0;
    let report = verify(&vfs, Path::new(DIRECTORY), &expected, &mut |_| records += 1);
    assert_eq!(report.records, records);
    report
}

fn files(fs: &SimFs) -> Vec<PathBuf> {
    fs.paths().into_iter().filter(|path| !path.ends_with("LOCK")).collect()
}

fn names(error: &Error, path: &Path) -> bool {
    matches!(error, Error::Corruption { path: named, .. } if named.file_name() == path.file_name())
}

/// Flips a bit in every byte of every file, and returns which went unnoticed.
fn unnoticed(fs: &SimFs, clean: Option<CleanClose>) -> Vec<(PathBuf, u64, u8)> {
    let sound = check(fs, clean);
    assert!(sound.errors.is_empty(), "{:?}", sound.errors);
    let mut unnoticed = Vec::new();
    for path in files(fs) {
        for byte in 0..fs.read_all(&path).unwrap().len() as u64 {
            let mask = 1 << (byte * 5 % 8);
            fs.corrupt(&path, byte, mask).unwrap();
            let report = check(fs, clean);
            if !report.errors.iter().any(|error| names(error, &path)) {
                assert!(report.errors.is_empty(), "byte {byte} of {}: {:?}", path.display(), report.errors);
                unnoticed.push((path.clone(), byte, mask));
            }
            fs.corrupt(&path, byte, mask).unwrap();
        }
    }
    unnoticed
}

/// Appends records of these lengths, and waits for every fifth.
fn append(log: &mut Wal, tags: std::ops::Range<u64>, lengths: &[usize]) {
    for tag in tags {
        let bytes = lengths[tag as usize % lengths.len()];
        let end = log.append(tag, &payload(tag, bytes)).unwrap();
        if tag % 5 == 4 {
            log.sync_handle().wait_durable(end).unwrap();
        }
    }
}

const LENGTHS: &[usize] = &[40, 700, 7, 0, 300, 111];

fn create(fs: &SimFs, env: &SimEnv) -> Wal {
    fs.create_dir(Path::new(DIRECTORY)).unwrap();
    let (vfs, env) = (Arc::new(fs.clone()), Arc::new(env.clone()));
    Wal::create(vfs, env, Path::new(DIRECTORY), FirstSegment::default(), options(2048)).unwrap()
}

/// The log as its process left it when it was killed.
fn kill(fs: &SimFs, env: &SimEnv, log: Wal) -> SimFs {
    let left = fs.process_crash();
    drop(log);
    env.drop_jobs();
    left
}

/// Panics unless all that went unnoticed is one fragment in the window, behind the records of the two generations that its
/// slots name: the end of a record of an older one, whose beginning was overwritten.
fn assert_one_fragment(fs: &SimFs, unnoticed: &[(PathBuf, u64, u8)], log_end: Position) {
    let Some((path, first, _)) = unnoticed.first() else { panic!("there is no such fragment") };
    assert_eq!(path.extension().unwrap(), "window");
    let bytes = fs.read_all(path).unwrap();
    let base = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (newest, other) = (base(512).max(base(1024)), base(512).min(base(1024)));
    assert_eq!(*first, 4096 + (log_end.0 - newest).max(newest - other));
    let last = first + unnoticed.len() as u64;
    let expected: Vec<u64> = (*first..last).collect();
    assert_eq!(unnoticed.iter().map(|(_, byte, _)| *byte).collect::<Vec<_>>(), expected);
    // Then a record of an earlier generation follows, or nothing.
    let place = base(last as usize + 8);
    let position = place & ((1 << 56) - 1);
    assert!(place == 0 || place >> 56 == 1 && position < other, "{place:x}");
}

#[test]
fn after_a_crash_of_the_process_each_bit_of_each_file_counts() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    append(&mut log, 0..33, LENGTHS);
    env.run_until_idle();
    append(&mut log, 33..37, LENGTHS);
    let left = kill(&fs, &env, log);
    assert_eq!(files(&left).len(), 5, "three segments, a spare and a window");
    assert_eq!(unnoticed(&left, None), []);
}

#[test]
fn random_bytes_do_not_panic() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    append(&mut log, 0..37, LENGTHS);
    let left = kill(&fs, &env, log);
    for path in files(&left) {
        let bytes = left.read_all(&path).unwrap();
        for seed in 1..20_u64 {
            let noise = |at: usize| (seed.wrapping_mul(at as u64 + 0x9e37_79b9).wrapping_pow(3) >> 29) as u8;
            // Behind headers and slots in some, so that the records are looked at.
            let from = [0, 128, 2000, 4096, bytes.len() - 1][seed as usize % 5].min(bytes.len() - 1);
            let damaged: Vec<u8> = bytes
                .iter()
                .enumerate()
                .map(|(at, &byte)| if at < from { byte } else { noise(at) })
                .collect();
            left.write_all(&path, &damaged).unwrap();
            check(&left, None);
        }
        left.write_all(&path, &bytes).unwrap();
    }
}

#[test]
fn after_a_clean_close() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    append(&mut log, 0..17, LENGTHS);
    let clean = Box::new(log).close().unwrap();
    env.drop_jobs();
    assert_eq!(unnoticed(&fs, Some(clean)), []);
}

#[test]
fn when_the_window_is_older_than_the_log() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    append(&mut log, 0..37, LENGTHS);
    let end = log.end();
    log.truncate_front(end).unwrap();
    let left = kill(&fs, &env, log);
    assert_one_fragment(&left, &unnoticed(&left, None), end);
}

#[test]
fn when_long_records_end_the_generations_of_the_window() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    append(&mut log, 0..23, &[40, 700, 7, 1500, 1100, 300, 111]);
    let left = kill(&fs, &env, log);
    assert_eq!(unnoticed(&left, None), []);
}

#[test]
fn when_the_log_was_recovered() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let (mut log, _) = open(&fs, &env, &options(2048)).unwrap();
    append(&mut log, 0..23, LENGTHS);
    let fs = kill(&fs, &env, log);
    let env = SimEnv::new(2);
    let (mut log, _) = open(&fs, &env, &options(2048)).unwrap();
    append(&mut log, 23..40, LENGTHS);
    let left = kill(&fs, &env, log);
    assert_eq!(unnoticed(&left, None), []);
}

#[test]
fn when_an_append_failed() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    append(&mut log, 0..13, LENGTHS);
    fs.inject(Fault::on(OperationKind::Write, std::io::ErrorKind::StorageFull).named(".wal"));
    assert!(log.append(13, &payload(13, 1500)).is_err());
    append(&mut log, 13..20, LENGTHS);
    let left = kill(&fs, &env, log);
    assert_eq!(unnoticed(&left, None), []);

    // The one flip in this history that looks like a tear, of all eight bits of every byte: the only bit of the last
    // byte of a sector, in a record that is in the window too and was not synced. A disk may not have written it.
    let (path, byte) = (Path::new("/log/000002.wal"), 2047);
    assert_eq!((byte + 1) % 512, 0);
    assert_eq!(left.read_all(path).unwrap()[byte], 1);
    left.corrupt(path, byte as u64, 1).unwrap();
    let report = check(&left, None);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn what_a_crash_leaves_is_no_damage() {
    let steps = |fs: &SimFs, env: &SimEnv| -> lsm_core::Result<()> {
        for opening in 0..2 {
            let (mut log, _) = open(fs, env, &options(1024))?;
            for tag in 0..24 {
                let bytes = [40, 330, 7, 0, 700, 111, 200][tag as usize % 7];
                let end = log.append(opening * 100 + tag, &payload(tag, bytes))?;
                match tag % 8 {
                    3 => log.sync_handle().wait_durable(end)?,
                    5 => drop(env.run_until_idle()),
                    _ => {}
                }
                if tag == 17 {
                    log.truncate_front(Position(end.0 - 600))?;
                }
            }
            if opening == 1 {
                Box::new(log).close()?;
            }
        }
        Ok(())
    };
    let fs = SimFs::new();
    let env = SimEnv::new(1);
    steps(&fs, &env).unwrap();
    env.drop_jobs();
    let operations = fs.operations();
    for operation in 0..operations {
        let (fs, env) = (SimFs::new(), SimEnv::new(1));
        fs.crash_at(operation);
        let _ = steps(&fs, &env);
        env.drop_jobs();
        let sound = |left: &SimFs, what: &str| {
            if left.metadata(Path::new(DIRECTORY)).is_ok() {
                let errors = check(left, None).errors;
                assert!(errors.is_empty(), "crash at operation {operation}, {what}: {errors:?}");
            }
        };
        sound(&fs.process_crash(), "of the process");
        sound(&fs.power_cut(&mut AllLost), "all lost");
        sound(&fs.power_cut(&mut AllKept), "all kept");
        for seed in 0..8 {
            sound(&fs.power_cut(&mut Seeded::new(seed)), &format!("seed {seed}"));
        }
    }
}

/// Every part of the header that a power cut may leave of `file`, in a log that is otherwise as in `fs`. It was called
/// damage, though the log opens.
fn check_parts_of_header(fs: &SimFs, file: &Path, header: [u8; 128]) {
    let mut parts: Vec<[u8; 128]> = Vec::new();
    let mut keep = |kept: &dyn Fn(usize) -> bool| {
        parts.push(std::array::from_fn(|at| if kept(at) { header[at] } else { 0 }));
    };
    for length in 0..=128 {
        keep(&|at| at < length);
        keep(&|at| at >= length);
    }
    // Any of the words that are not zero anyway.
    let words: Vec<usize> = (0..16).filter(|word| header[word * 8..][..8] != [0; 8]).collect();
    for subset in 0..1_u32 << words.len() {
        keep(&|at| words.iter().position(|&word| word == at / 8).is_some_and(|bit| subset >> bit & 1 == 1));
    }
    let (whole, mut opened) = (fs.read_all(file).unwrap(), 0);
    for part in parts {
        let copy = fs.process_crash();
        let mut bytes = whole.clone();
        bytes[..128].copy_from_slice(&part);
        copy.write_all(file, &bytes).unwrap();
        let errors = check(&copy, None).errors;
        let env = SimEnv::new(1);
        let opens = open(&copy, &env, &options(2048)).is_ok();
        env.drop_jobs();
        // In a spare, this is a flipped bit.
        let one_bit = bytes.iter().map(|byte| byte.count_ones()).sum::<u32>() == 1;
        opened += u32::from(opens);
        assert_eq!(errors.is_empty(), opens && !one_bit, "{part:?}: {errors:?}");
    }
    assert!(opened > 200, "{opened}");
}

#[test]
fn a_header_that_was_written_in_part_is_damage_only_where_the_log_does_not_open() {
    let newest = |fs: &SimFs| -> (PathBuf, [u8; 128]) {
        let segments = files(fs).into_iter().filter(|path| path.extension().unwrap() == "wal");
        let mut headers =
            segments.map(|path| (path.clone(), *fs.read_all(&path).unwrap().first_chunk().unwrap()));
        headers.rfind(|(_, header)| header[0] != 0).unwrap()
    };
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    let (file, header) = newest(&fs);
    check_parts_of_header(&fs.process_crash(), &file, header);
    append(&mut log, 0..33, LENGTHS);
    env.run_until_idle();
    let (last, tag) = (newest(&fs).0, 33);
    for tag in tag.. {
        let spare = fs.process_crash();
        append(&mut log, tag..tag + 1, LENGTHS);
        let (file, header) = newest(&fs);
        if file != last {
            // As a spare otherwise, and with the record that follows.
            check_parts_of_header(&spare, &file, header);
            check_parts_of_header(&fs.process_crash(), &file, header);
            break;
        }
    }
    drop(log);
    env.drop_jobs();
}

/// A power cut may keep the header of a segment and lose the end of the one before. The log then ends before that segment
/// begins, and where the window was to begin in between was called damage.
#[test]
fn a_window_that_was_being_begun_behind_the_end_of_the_log_is_no_damage() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let mut log = create(&fs, &env);
    fs.sync_dir(Path::new("/")).unwrap();
    append(&mut log, 0..4, &[600, 1200, 400, 400]);
    append(&mut log, 5..9, &[900, 900]);
    let mut images = 0;
    for lost in 0..20 {
        for version in 0..20 {
            let left = fs.power_cut(&mut |piece: &Piece<'_>| match piece.kind {
                _ if piece.inode == lost => Fate::Lost,
                PieceKind::Sector { offset: 512 | 1024 } => Fate::Version(version),
                _ => Fate::Kept,
            });
            let errors = check(&left, None).errors;
            assert!(errors.is_empty(), "version {version} without file {lost}: {errors:?}");
            images += 1;
        }
    }
    assert_eq!(images, 400);
    drop(log);
    env.drop_jobs();
}

/// Where records of 64 bytes fill the window, it begins anew at powers of two. Behind the end of the log that was taken
/// for a flipped bit, though a power cut had taken the records before it.
#[test]
fn a_window_that_begins_at_a_power_of_two_is_no_damage() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    let (mut log, _) = open(&fs, &env, &options(512)).unwrap();
    let first = fs.operations();
    append(&mut log, 5..14, &[24]);
    let operations = fs.operations();
    drop(log);
    env.drop_jobs();
    for operation in first..operations {
        let (fs, env) = (SimFs::new(), SimEnv::new(1));
        let (mut log, _) = open(&fs, &env, &options(512)).unwrap();
        fs.crash_at(operation);
        for tag in 5..14 {
            let _ = log.append(tag, &payload(tag, 24));
        }
        drop(log);
        env.drop_jobs();
        for image in fs.crash_images().at_most(100).with_seed(operation) {
            let errors = check(&image.fs, None).errors;
            assert!(errors.is_empty(), "operation {operation}, {}: {errors:?}", image.description);
        }
    }
}

#[test]
fn an_older_state_of_the_window_that_differs_in_one_bit_is_no_damage() {
    let (fs, env) = (SimFs::new(), SimEnv::new(1));
    fs.create_dir(Path::new(DIRECTORY)).unwrap();
    let wal_options = WalOptions { segment_bytes: 1 << 16, ..options(4096) };
    let (vfs, world) = (Arc::new(fs.clone()), Arc::new(env.clone()));
    let mut log =
        Wal::create(vfs, world, Path::new(DIRECTORY), FirstSegment::default(), wal_options).unwrap();
    // Two records a round. From one round to the next, one bit of the payload changes.
    for tag in 0..11 {
        let mut payload = [0x55; 1960];
        payload[1000] = (1 << (tag / 2)) - 1;
        let end = log.append(tag, &payload).unwrap();
        log.sync_handle().wait_durable(end).unwrap();
    }
    for version in 0..12 {
        for sector in 8..16 {
            let left = fs.power_cut(&mut |piece: &Piece<'_>| match piece.kind {
                PieceKind::Sector { offset } if offset == sector * 512 => Fate::Version(version),
                _ => Fate::Kept,
            });
            let errors = check(&left, None).errors;
            assert!(errors.is_empty(), "version {version} of sector {sector}: {errors:?}");
        }
    }
    drop(log);
    env.drop_jobs();
}
