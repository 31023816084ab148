//! One file of records: what was synced is found again or missed aloud, and a torn tail costs only itself.

#![expect(clippy::disallowed_methods, reason = "the test damages real files")]

use std::path::{Path, PathBuf};

use lsm_core::Error;
use lsm_core::vfs::{AllKept, AllLost, Fault, OperationKind, PosixFs, SimFs, Vfs};
use lsm_wal::{Position, RecordFile, RecordFileReader, RecoveryMode, RecoveryReport};

const HEADER_BYTES: usize = 128;

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    payloads: Vec<Vec<u8>>,
    ends: Vec<Position>,
}

/// Records of many lengths; everything before the last `unsynced` of them is synced.
fn fixture(count: usize, unsynced: usize) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("MANIFEST-3");
    let mut file = RecordFile::create(&PosixFs, &path, 3, 77).unwrap();
    let payloads: Vec<Vec<u8>> =
        (0..count).map(|index| (0..index * 7 % 90).map(|byte| (byte * 37 + index) as u8).collect()).collect();
    let mut ends = Vec::new();
    for (index, payload) in payloads.iter().enumerate() {
        if index == count - unsynced {
            file.sync().unwrap();
        }
        ends.push(file.append(index as u64, payload).unwrap());
    }
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, file.file_bytes());
    Fixture { _directory: directory, path, bytes, payloads, ends }
}

fn read(path: &Path, claimed: u64, mode: RecoveryMode) -> Result<(Vec<Vec<u8>>, RecoveryReport), Error> {
    let mut reader = RecordFileReader::open(&PosixFs, path, claimed, mode)?;
    let mut payloads = Vec::new();
    while let Some(record) = reader.next()? {
        assert_eq!(record.end.0 - record.start.0, 40 + record.payload.len().next_multiple_of(8) as u64);
        payloads.push(record.payload.to_vec());
    }
    assert!(reader.next()?.is_none(), "the end stays the end");
    Ok((payloads, reader.report().clone()))
}

#[test]
fn all_records_come_back_in_order() {
    let fixture = fixture(50, 10);
    let (payloads, report) = read(&fixture.path, 0, RecoveryMode::Strict).unwrap();
    assert_eq!(payloads, fixture.payloads);
    assert_eq!(report.records, 50);
    assert_eq!(report.end, fixture.ends[49]);
    assert_eq!(report.synced, fixture.ends[39]);
    assert_eq!(report.bytes_dropped, 0);
}

#[test]
fn a_file_cut_anywhere_yields_a_prefix_or_an_error_when_synced_bytes_are_missing() {
    let fixture = fixture(12, 3);
    let synced = fixture.ends[8];
    for len in 0..fixture.bytes.len() {
        std::fs::write(&fixture.path, &fixture.bytes[..len]).unwrap();
        let whole = fixture.ends.iter().filter(|end| HEADER_BYTES + end.0 as usize <= len).count();
        let (payloads, _) = read(&fixture.path, 0, RecoveryMode::TolerateTornTail).unwrap();
        assert_eq!(payloads, fixture.payloads[..whole], "cut to {len}");
        match read(&fixture.path, synced.0, RecoveryMode::TolerateTornTail) {
            Ok((payloads, _)) => assert!(whole >= 9 && payloads.len() == whole),
            Err(Error::Corruption { path, .. }) => assert!(whole < 9 && *path == fixture.path),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_corruption_and_nothing_on_disk_changes() {
    let fixture = fixture(8, 4);
    for bit in 0..fixture.bytes.len() * 8 {
        let mut bytes = fixture.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&fixture.path, &bytes).unwrap();
        match read(&fixture.path, 0, RecoveryMode::TolerateTornTail) {
            Err(Error::Corruption { path, offset, .. }) => {
                assert_eq!(*path, fixture.path);
                assert!(offset <= bit as u64 / 8, "{offset} is no use in finding bit {bit}");
            }
            other => panic!("bit {bit}: {other:?}"),
        }
        assert_eq!(std::fs::read(&fixture.path).unwrap(), bytes);
    }
}

#[test]
fn damage_below_a_synced_position_is_corruption_and_above_it_a_torn_tail() {
    let fixture = fixture(20, 5);
    for index in 0..20 {
        let end = HEADER_BYTES + fixture.ends[index].0 as usize;
        let mut bytes = fixture.bytes.clone();
        // Several bits, in the checksum of the record.
        bytes[end - 8..end].fill(0xee);
        std::fs::write(&fixture.path, &bytes).unwrap();
        let strict = read(&fixture.path, 0, RecoveryMode::Strict);
        assert!(matches!(strict, Err(Error::Corruption { .. })));
        match read(&fixture.path, 0, RecoveryMode::TolerateTornTail) {
            Err(Error::Corruption { .. }) => assert!(index < 15, "record {index} was never synced"),
            Ok((payloads, report)) => {
                assert!(index >= 15, "record {index} was synced, and later records say so");
                assert_eq!(payloads, fixture.payloads[..index]);
                let start = index.checked_sub(1).map_or(0, |before| fixture.ends[before].0);
                assert_eq!(report.bytes_dropped, fixture.ends[19].0 - start);
                assert_eq!(report.dropped[0].offset, HEADER_BYTES as u64 + start);
            }
            Err(error) => panic!("{error}"),
        }
        let (payloads, report) = read(&fixture.path, 0, RecoveryMode::Salvage).unwrap();
        // The record after the damaged one continues its checksum, which is what was damaged.
        let mut expected = fixture.payloads.clone();
        expected.drain(index..(index + 2).min(20));
        assert_eq!(payloads, expected);
        assert!(report.bytes_dropped > 0);
    }
}

#[test]
fn a_file_whose_header_is_lost_is_corrupt_if_a_record_says_that_it_was_synced() {
    for unsynced in [1, 12] {
        let fixture = fixture(12, unsynced);
        let mut bytes = fixture.bytes.clone();
        bytes[50..70].fill(0xa5);
        std::fs::write(&fixture.path, &bytes).unwrap();
        let found = read(&fixture.path, 0, RecoveryMode::TolerateTornTail);
        assert_eq!(found.is_err(), unsynced == 1, "{found:?}");
    }
}

#[test]
fn a_lost_sector_of_zeros_with_one_bit_counts_as_torn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("MANIFEST-3");
    let mut file = RecordFile::create(&PosixFs, &path, 3, 77).unwrap();
    let mut payload = vec![0; 4096];
    payload[2048] = 4;
    file.append(0, &payload).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 32 + 2048] = 0;
    std::fs::write(&path, &bytes).unwrap();
    let (payloads, report) = read(&path, 0, RecoveryMode::TolerateTornTail).unwrap();
    assert_eq!(payloads.len(), 0);
    assert!(report.bytes_dropped > 0);
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let fixture = fixture(1, 1);
    let mut bytes = fixture.bytes.clone();
    bytes[8..12].copy_from_slice(&7_u32.to_le_bytes());
    std::fs::write(&fixture.path, &bytes).unwrap();
    match read(&fixture.path, 0, RecoveryMode::Salvage) {
        Err(Error::UnsupportedVersion { found: 7, supported: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_failed_append_wrote_is_taken_back() {
    let (fs, path) = (SimFs::new(), Path::new("MANIFEST-3"));
    let mut file = RecordFile::create(&fs, path, 3, 77).unwrap();
    file.append(0, b"kept").unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("")).unwrap();
    let records = |fs: &SimFs| {
        let mut reader = RecordFileReader::open(fs, path, 0, RecoveryMode::TolerateTornTail).unwrap();
        std::iter::from_fn(|| reader.next().unwrap().map(|record| record.payload.to_vec())).count()
    };
    fs.inject(Fault::on(OperationKind::Write, std::io::ErrorKind::Other).after_writing(u64::MAX));
    file.append(0, b"failed").unwrap_err();
    assert_eq!(records(&fs), 2);
    file.take_back().unwrap();
    for now in [fs.clone(), fs.power_cut(&mut AllLost), fs.power_cut(&mut AllKept)] {
        assert_eq!(records(&now), 1);
    }
    file.append(0, b"later").unwrap_err();
}
