//! Values that hold whole records, sound in all that a user can know and at their own positions, are values all the same.
//! They once made a torn record look like a corrupt one, and salvaging would have returned what they hold.

mod simulation;

use std::path::Path;
use std::sync::Arc;

use lsm_core::checksum::{crc32, crc64};
use lsm_core::env::SimEnv;
use lsm_core::vfs::{AllLost, Fate, Piece, PieceKind, SimFs, Vfs};
use lsm_core::{Error, Result};
use lsm_wal::{Log, LogExpectation, Position, RecordFile, RecordFileReader, RecoveryMode, WalReader, verify};
use simulation::{DIRECTORY, open, options};

const RECORD_HEADER_BYTES: u64 = 32;
const FORGED_TAG: u64 = 0xf0f0;

/// A payload of a record that begins at `start`: one forged record after the other, each after the checksum that it
/// continues, and each saying that all before it was synced.
fn forged(start: Position, records: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in 0..records {
        let chain = 0x1234_5678_9abc_def0 + record;
        payload.extend_from_slice(&chain.to_le_bytes());
        let position = start.0 + RECORD_HEADER_BYTES + payload.len() as u64;
        let mut header = 0_u32.to_le_bytes().to_vec();
        for word in [position | (1 << 56), FORGED_TAG, position] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        header.splice(0..0, crc32(0, &header).to_le_bytes());
        payload.extend_from_slice(&header);
        payload.extend_from_slice(&crc64(chain, &header).to_le_bytes());
    }
    payload
}

/// Records as they are appended: how many forged ones each holds, and whether all is synced then.
const STEPS: &[(u64, bool)] = &[
    (1, false),
    (9, true),
    (30, false),
    (2, false),
    (20, false),
    (60, false),
    (15, true),
    (12, false),
    (5, false),
];

fn run(fs: &SimFs, windows: u64) -> Result<()> {
    let env = SimEnv::new(1);
    let result = (|| {
        let (mut log, _) = open(fs, &env, &options(windows))?;
        for (tag, &(records, sync)) in (0..).zip(STEPS) {
            let end = log.append(tag, &forged(log.end(), records))?;
            if sync {
                log.sync_handle().wait_durable(end)?;
            }
            if tag == 4 {
                env.run_until_idle();
            }
        }
        Ok(())
    })();
    env.drop_jobs();
    result
}

/// Tags of the records that are found, whose payloads must be as they were.
fn tags(fs: &SimFs, mode: RecoveryMode) -> Result<Vec<u64>> {
    let mut tags = Vec::new();
    if fs.metadata(Path::new(DIRECTORY)).is_err() {
        return Ok(tags);
    }
    let vfs = Arc::new(fs.clone());
    let mut reader = WalReader::open(vfs, Path::new(DIRECTORY), &LogExpectation::default(), mode)?;
    while let Some(record) = reader.next()? {
        assert_ne!(record.tag, FORGED_TAG, "a part of a value was returned");
        assert_eq!(
            record.payload,
            forged(record.start, STEPS[record.tag as usize].0),
            "record {}",
            record.tag
        );
        tags.push(record.tag);
    }
    Ok(tags)
}

fn check(fs: &SimFs, what: &dyn Fn() -> String) {
    let found =
        tags(fs, RecoveryMode::TolerateTornTail).unwrap_or_else(|error| panic!("{}: {error}", what()));
    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "{}", what());
    // Salvaging goes on behind a torn record, with those that were appended.
    let salvaged = tags(fs, RecoveryMode::Salvage).unwrap();
    assert!(salvaged.starts_with(&found) && salvaged.is_sorted(), "{}: {salvaged:?}", what());
    if fs.metadata(Path::new(DIRECTORY)).is_ok() {
        let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
        let report = verify(&vfs, Path::new(DIRECTORY), &LogExpectation::default(), &mut |_| ());
        assert!(report.errors.is_empty(), "{}: {:?}", what(), report.errors);
    }
    let env = SimEnv::new(2);
    let opened = open(fs, &env, &options(2048)).map(|(_, report)| report.records);
    env.drop_jobs();
    assert_eq!(opened.unwrap_or_else(|error| panic!("{}: {error}", what())), found.len() as u64);
}

#[test]
fn a_log_of_forged_records_opens_after_every_crash() {
    for windows in [0, 2048] {
        let fs = SimFs::new();
        run(&fs, windows).unwrap();
        for operation in 0..fs.operations() {
            let fs = SimFs::new();
            fs.crash_at(operation);
            let _ = run(&fs, windows);
            let at = |image: &str| format!("window {windows}, operation {operation}, {image}");
            check(&fs.process_crash(), &|| at("process crash"));
            for image in fs.crash_images().at_most(64).with_seed(operation) {
                check(&image.fs, &|| at(&image.description));
            }
        }
    }
}

#[test]
fn salvage_returns_nothing_that_a_value_holds() {
    let fs = SimFs::new();
    run(&fs, 2048).unwrap();
    let fs = fs.process_crash();
    let all = tags(&fs, RecoveryMode::Strict).unwrap();
    assert_eq!(all.len(), STEPS.len());
    for path in fs.paths().into_iter().filter(|path| path.extension().is_some_and(|is| is == "wal")) {
        let whole = fs.read_all(&path).unwrap();
        for start in (128..whole.len()).step_by(256) {
            let mut bytes = whole.clone();
            bytes[start..start + 24].fill(0xa5);
            fs.write_all(&path, &bytes).unwrap();
            let found = tags(&fs, RecoveryMode::Salvage).unwrap();
            assert!(found.is_sorted() && found.iter().all(|tag| all.contains(tag)), "{found:?}");
        }
        fs.write_all(&path, &whole).unwrap();
    }
}

#[test]
fn a_file_of_forged_records_ends_where_a_power_cut_tore_it() {
    let (fs, path) = (SimFs::new(), Path::new("MANIFEST-3"));
    let mut file = RecordFile::create(&fs, path, 3, 77).unwrap();
    file.append(0, &forged(file.end(), 10)).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("")).unwrap();
    file.append(1, &forged(file.end(), 60)).unwrap();
    file.append(2, &forged(file.end(), 60)).unwrap();
    let sectors = fs.read_all(path).unwrap().len() as u64 / 512;
    for lost in 1..sectors {
        let cut = fs.power_cut(&mut |piece: &Piece<'_>| match piece.kind {
            PieceKind::Sector { offset } if offset == lost * 512 => Fate::Lost,
            _ => Fate::Kept,
        });
        for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Salvage] {
            let mut found = Vec::new();
            let mut reader = RecordFileReader::open(&cut, path, 0, mode).unwrap();
            while let Some(record) =
                reader.next().unwrap_or_else(|error: Error| panic!("sector {lost}: {error}"))
            {
                found.push(record.tag);
            }
            assert!(!found.contains(&FORGED_TAG) && found.first() == Some(&0), "sector {lost}: {found:?}");
        }
    }
    let cut = fs.power_cut(&mut AllLost);
    assert!(RecordFileReader::open(&cut, path, 0, RecoveryMode::Strict).unwrap().next().unwrap().is_some());
}
