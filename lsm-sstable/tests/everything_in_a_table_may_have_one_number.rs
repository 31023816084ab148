//! A table that was made elsewhere is read as if everything in it had been written at one moment.

use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::hash::key_hash;
use lsm_core::vfs::PosixFs;
use lsm_core::{Cursor, Entry, SEQUENCE_MAX, ValueKind};
use lsm_sstable::{
    BlockCache, CursorAccess, Table, TableExpectation, TableId, TableOpen, TableOptions, TableWriter,
};

const NUMBER: u64 = 1 << 40;

/// A table of several blocks, most with puts alone and one with all kinds, and a range tombstone.
fn write(directory: &tempfile::TempDir, sequence: u64) -> PathBuf {
    let path = directory.path().join(format!("{sequence}.sst"));
    let mut writer = TableWriter::create(&PosixFs, &path, TableId(7), &TableOptions::default()).unwrap();
    for number in 0..1000 {
        let key = format!("key {number:04}").into_bytes();
        let kind = match number {
            500 => ValueKind::Delete,
            501 => ValueKind::Merge,
            502 => ValueKind::SingleDelete,
            _ => ValueKind::Put,
        };
        let value = if kind.is_tombstone() { &b""[..] } else { &key };
        writer.add(Entry { key: &key, sequence, kind, value }).unwrap();
    }
    writer.add_range_tombstone(b"a", b"m", sequence).unwrap();
    writer.finish().unwrap();
    path
}

fn open(path: &std::path::Path, global_sequence: u64, pinned_bytes_max: usize) -> Arc<Table> {
    let plain = Table::open(&PosixFs, path, None, &TableOpen::default()).unwrap();
    let expected = Some(TableExpectation { global_sequence, ..plain.meta().into() });
    let cache = Some(BlockCache::new(1 << 20));
    Table::open(&PosixFs, path, cache, &TableOpen { expected, pinned_bytes_max, ..TableOpen::default() })
        .unwrap()
}

#[test]
fn every_way_to_read_a_table_shows_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, 0);
    let mut set = Table::open(&PosixFs, &path, None, &TableOpen::default()).unwrap();
    Arc::get_mut(&mut set).unwrap().set_global_sequence(NUMBER);
    let opened = open(&path, NUMBER, usize::MAX);
    let reopened = opened.reopened(None, &TableOpen { pinned_bytes_max: 0, ..TableOpen::default() }).unwrap();
    for table in [set, opened, open(&path, NUMBER, 0), reopened] {
        let meta = table.meta();
        assert_eq!(
            (meta.smallest_sequence, meta.largest_sequence, meta.global_sequence),
            (NUMBER, NUMBER, NUMBER)
        );
        assert_eq!(table.range_tombstones().covering_sequence(b"b", SEQUENCE_MAX), NUMBER);
        assert_eq!(table.range_tombstones().covering_sequence(b"b", NUMBER - 1), 0);
        for _ in 0..2 {
            // The second time from the cache.
            for key in [&b"key 0007"[..], b"key 0500", b"key 0999"] {
                let hash = key_hash(key);
                assert_eq!(table.get(key, hash, NUMBER).unwrap().unwrap().sequence, NUMBER);
                assert_eq!(table.get(key, hash, NUMBER - 1).unwrap(), None);
            }
        }
        for access in [CursorAccess::Cached, CursorAccess::Sequential] {
            let mut cursor = table.cursor(access);
            cursor.seek(b"key 0500", NUMBER - 1);
            assert_eq!(cursor.entry().unwrap().key, b"key 0501");
            cursor.first();
            let mut count = 0;
            while let Some(entry) = cursor.entry() {
                assert_eq!(entry.sequence, NUMBER, "{entry:?}");
                // Its blocks are not copied: they say 0.
                assert!(cursor.table_block().is_none());
                count += 1;
                cursor.next();
            }
            assert!(count == 1000 && cursor.error().is_none());
        }
        assert_eq!(table.verify().unwrap().entries, 1000);
    }
}

#[test]
fn a_check_sees_every_entry_and_its_refusal_names_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, 3);
    let table = Table::open(&PosixFs, &path, None, &TableOpen::default()).unwrap();
    let mut seen = 0;
    let report = table.verify_entries(|entry| {
        seen += u64::from(entry.sequence == 3);
        Ok(())
    });
    assert_eq!((report.unwrap().entries, seen), (1000, 1000));
    let refused = table.verify_entries(|entry| {
        if entry.kind == ValueKind::Merge { Err("no merges here".into()) } else { Ok(()) }
    });
    let error = refused.unwrap_err();
    assert!(matches!(error, lsm_core::Error::InvalidArgument { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("{}: no merges here", path.display()));
}
