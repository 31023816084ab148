//! Blob files: what was written is read back, whole or in part, and every flipped or missing byte is noticed.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::Error;
use lsm_core::vfs::{SimFs, Vfs};
use lsm_sstable::{BlobExpectation, BlobMeta, BlobPlace, BlobReader, BlobWriter, TableId};

const LENGTHS: [usize; 9] = [1, 5, 16_383, 16_384, 16_385, 40_000, 1 << 20, (1 << 20) + 1, 3];

fn path() -> PathBuf {
    PathBuf::from("1.blob")
}

fn value(number: usize) -> Vec<u8> {
    (0..LENGTHS[number]).map(|at| (at * 31 + at / 251 + number * 7) as u8).collect()
}

fn write(fs: &SimFs, lengths: Range<usize>) -> (BlobMeta, Vec<BlobPlace>) {
    let mut writer = BlobWriter::create(fs, &path(), TableId(7), 4096).unwrap();
    let places = lengths.map(|number| writer.add(&value(number)).unwrap()).collect();
    (writer.finish().unwrap(), places)
}

fn open(fs: &SimFs, meta: &BlobMeta) -> lsm_core::Result<BlobReader> {
    BlobReader::open(fs, &path(), Some(&BlobExpectation::from(meta)))
}

#[test]
fn values_and_parts_come_back() {
    let fs = SimFs::new();
    let (meta, places) = write(&fs, 0..LENGTHS.len());
    let blobs = open(&fs, &meta).unwrap();
    assert_eq!(blobs.meta(), meta);
    assert_eq!((meta.values, meta.value_bytes), (9, LENGTHS.iter().sum::<usize>() as u64));
    for (number, &place) in places.iter().enumerate() {
        let value = value(number);
        assert_eq!(*blobs.read(place).unwrap(), *value);
        assert_eq!(blobs.place(number as u64).unwrap(), Some(place));
        let bytes = value.len() as u64;
        let ends =
            [0, 1, 2, bytes / 2, 16_383, 16_384, 16_385, 32_768, bytes - 1, bytes, bytes + 1, u64::MAX];
        for start in ends {
            for end in ends {
                let part = blobs.read_part(place, start..end).unwrap();
                let (start, end) = (start.min(bytes) as usize, end.min(bytes) as usize);
                assert_eq!(*part, value[start..end.max(start)], "{number} from {start} to {end}");
            }
        }
    }
    let report = blobs.verify().unwrap();
    assert_eq!((report.file_bytes, report.values), (meta.file_bytes, 9));
}

#[test]
fn a_rewritten_file_finds_values_by_their_old_places() {
    let fs = SimFs::new();
    let (meta, places) = write(&fs, 0..LENGTHS.len());
    let old = open(&fs, &meta).unwrap();
    let kept = [2, 5, 6];
    let copy = Path::new("2.blob");
    let mut writer = BlobWriter::create_rewritten(&fs, copy, TableId(8), 4096).unwrap();
    for number in kept {
        writer.add_as(number as u64, &old.read(places[number]).unwrap()).unwrap();
    }
    assert!(writer.add_as(6, b"again").is_err(), "numbers ascend");
    let meta = writer.finish().unwrap();
    let new = BlobReader::open(&fs, copy, Some(&(&meta).into())).unwrap();
    assert!(new.is_rewritten() && !old.is_rewritten());
    assert_eq!(new.verify().unwrap().values, 3);
    for (number, &place) in places.iter().enumerate() {
        if kept.contains(&number) {
            assert_eq!(*new.read(place).unwrap(), *value(number));
            let last = LENGTHS[number] as u64 - 1;
            assert_eq!(
                new.read_part(place, last..last + 1).unwrap(),
                value(number).last().copied().as_slice()
            );
        } else {
            let error = new.read(place).unwrap_err();
            assert!(
                matches!(error, Error::Corruption { .. }) && error.to_string().contains("2.blob"),
                "{error}"
            );
        }
    }
    // What is left can be rewritten once more.
    let mut seen = Vec::new();
    new.for_each(|place| {
        seen.push(place.number);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [2, 5, 6]);
}

#[test]
fn every_flipped_and_every_missing_byte_is_noticed() {
    let fs = SimFs::new();
    let (meta, places) = write(&fs, 0..3);
    let file = fs.open_write(&path()).unwrap();
    let whole = {
        let mut bytes = vec![0; meta.file_bytes as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    for (at, byte) in whole.iter().enumerate() {
        file.write_at(&[byte ^ 0x10], at as u64).unwrap();
        let found = open(&fs, &meta).and_then(|blobs| blobs.verify().map(|_| ()));
        let error = found.expect_err(&format!("byte {at} was flipped"));
        assert!(matches!(error, Error::Corruption { .. } | Error::Unsupported { .. }), "{at}: {error}");
        assert!(error.to_string().contains("1.blob"), "{error}");
        // A read is right, or an error.
        if let Ok(blobs) = open(&fs, &meta) {
            for (number, &place) in places.iter().enumerate() {
                if let Ok(read) = blobs.read(place) {
                    assert_eq!(*read, *value(number), "byte {at} was flipped");
                }
            }
        }
        file.write_at(&[*byte], at as u64).unwrap();
    }
    open(&fs, &meta).unwrap().verify().unwrap();
    for len in (0..whole.len()).step_by(97) {
        file.set_len(len as u64).unwrap();
        let without = BlobReader::open(&fs, &path(), None).err();
        let with = open(&fs, &meta).err();
        for error in [without, with] {
            assert!(matches!(error, Some(Error::Corruption { .. })), "cut at {len}: {error:?}");
        }
        file.set_len(0).unwrap();
        file.write_at(&whole, 0).unwrap();
    }
}

#[test]
fn a_pointer_to_anywhere_is_refused() {
    let fs = SimFs::new();
    let (meta, places) = write(&fs, 0..6);
    let blobs = Arc::new(open(&fs, &meta).unwrap());
    let place = places[5];
    let wrong = [
        BlobPlace { offset: place.offset + 1, ..place },
        BlobPlace { offset: 0, ..place },
        BlobPlace { offset: u64::MAX, ..place },
        BlobPlace { offset: meta.file_bytes - 10, ..place },
        BlobPlace { bytes: place.bytes + 1, ..place },
        BlobPlace { bytes: u64::from(u32::MAX), ..place },
        BlobPlace { offset: places[4].offset, ..place },
    ];
    for place in wrong {
        for found in [blobs.read(place), blobs.read_part(place, 0..10)] {
            assert!(matches!(found, Err(Error::Corruption { .. })), "{place:?}");
        }
    }
    assert!(blobs.place(6).is_err());
}

#[test]
fn a_file_of_another_id_or_checksum_is_refused() {
    let fs = SimFs::new();
    let (meta, _) = write(&fs, 0..2);
    let wrong = [
        BlobMeta { id: TableId(9), ..meta.clone() },
        BlobMeta { checksum: 1, ..meta.clone() },
        BlobMeta { file_bytes: meta.file_bytes + 1, ..meta.clone() },
    ];
    for meta in wrong {
        assert!(matches!(open(&fs, &meta), Err(Error::Corruption { .. })));
    }
    let mut writer = BlobWriter::create(&fs, Path::new("3.blob"), TableId(1), 4096).unwrap();
    assert!(writer.add(b"").is_err(), "an empty value has no place in a blob file");
    assert_eq!(writer.finish().unwrap().values, 0);
    BlobReader::open(&fs, Path::new("3.blob"), None).unwrap().verify().unwrap();
}
