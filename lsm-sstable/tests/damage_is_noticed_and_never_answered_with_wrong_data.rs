//! Every single byte of a table that has all parts is damaged, every length is cut off, and garbage is opened.
//! Whatever happens must be an error or the right data.

mod common;

use std::sync::Arc;

use common::{ID, MemoryFs, Owned, PINNED_BYTES_MAX, open, open_both, path, write};
use lsm_core::hash::key_hash;
use lsm_core::vfs::Vfs;
use lsm_core::{Cursor, Error, Result, SEQUENCE_MAX, ValueKind};
use lsm_sstable::{
    BlockCache, Compression, CopyCheck, CursorAccess, DelimitedPrefix, FilterPolicy, Table, TableExpectation,
    TableId, TableMeta, TableOpen, TableOptions, TableWriter,
};
use proptest::prelude::*;

fn options(compression: Compression) -> TableOptions {
    TableOptions {
        block_bytes: 256,
        compression,
        prefix_extractor: Some(Arc::new(DelimitedPrefix { delimiter: b'/' })),
        ..TableOptions::default()
    }
}

fn how(pinned_bytes_max: usize) -> TableOpen {
    TableOpen {
        pinned_bytes_max,
        prefix_extractor: Some(Arc::new(DelimitedPrefix { delimiter: b'/' })),
        ..TableOpen::default()
    }
}

/// A few blocks, one of them of a single kind, one mixed, one with versions of one key on both sides of its end.
fn entries() -> Vec<Owned> {
    let mut entries: Vec<Owned> = (0..12)
        .map(|n| Owned::put(format!("fruit/{n:02}"), 7, format!("the same text again and again {n}")))
        .collect();
    entries.extend((0..14).rev().map(|n| Owned::put("same", n, "a value of some length, to fill blocks")));
    for n in 0..8_u64 {
        let kind = if n.is_multiple_of(2) { ValueKind::Delete } else { ValueKind::Put };
        entries.push(Owned {
            key: format!("tree/{n}").into_bytes(),
            sequence: n << 20,
            kind,
            value: vec![b'x'; n as usize],
        });
    }
    entries
}

fn write_table(compression: Compression) -> (MemoryFs, TableMeta, Vec<Owned>) {
    let fs = MemoryFs::default();
    let entries = entries();
    let mut writer = TableWriter::create(&fs, &path(), ID, &options(compression)).unwrap();
    writer.add_range_tombstone(b"fruit/03", b"same", 5).unwrap();
    for entry in &entries {
        writer.add(entry.entry()).unwrap();
    }
    writer.add_range_tombstone(b"a", b"fruit/05", 9).unwrap();
    let meta = writer.finish().unwrap();
    (fs, meta, entries)
}

/// Everything that can be read of a table, or the first error.
fn read_all(fs: &MemoryFs, entries: &[Owned], pinned_bytes_max: usize) -> Result<(Vec<Owned>, Vec<String>)> {
    read_table(&Table::open(fs, &path(), None, &how(pinned_bytes_max))?, entries)
}

fn read_table(table: &Arc<Table>, entries: &[Owned]) -> Result<(Vec<Owned>, Vec<String>)> {
    let found = walk(table)?;
    for entry in entries {
        let value = table.get(&entry.key, key_hash(&entry.key), entry.sequence)?;
        assert_eq!(value.map(|value| value.value.to_vec()), Some(entry.value.clone()));
    }
    assert!(table.may_contain_prefix(b"fruit/"));
    let tombstones = table.range_tombstones().iter().map(|fragment| format!("{fragment:?}")).collect();
    Ok((found, tombstones))
}

fn walk(table: &Arc<Table>) -> Result<Vec<Owned>> {
    let mut found = Vec::new();
    let mut cursor = table.cursor(CursorAccess::Sequential);
    cursor.first();
    while let Some(entry) = cursor.entry() {
        found.push(Owned::from(entry));
        cursor.next();
    }
    cursor.error().map_or(Ok(found), |error| Err(error.clone()))
}

fn compressions() -> Vec<Compression> {
    vec![
        Compression::None,
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd { level: 3 },
    ]
}

#[test]
fn an_intact_table_passes() {
    for compression in compressions() {
        let (fs, meta, entries) = write_table(compression);
        for pinned_bytes_max in PINNED_BYTES_MAX {
            let table = Table::open(&fs, &path(), None, &how(pinned_bytes_max)).unwrap();
            let report = table.verify().unwrap();
            assert_eq!(report.file_bytes, fs.bytes(&path()).len() as u64);
            assert_eq!(report.entries, entries.len() as u64);
            assert!(report.blocks > 5);
            assert_eq!(report.range_tombstones, meta.range_tombstones);
            assert_eq!(read_all(&fs, &entries, pinned_bytes_max).unwrap().0, entries);
        }
    }
}

#[test]
fn every_flipped_bit_is_found_by_verify_and_no_read_goes_wrong() {
    for compression in compressions() {
        let (fs, meta, entries) = write_table(compression);
        let intact = fs.bytes(&path());
        let expected = read_all(&fs, &entries, usize::MAX).unwrap();
        for at in 0..intact.len() {
            for (bit, pinned_bytes_max) in [at % 8, (at + 3) % 8].into_iter().zip(PINNED_BYTES_MAX) {
                let mut damaged = intact.clone();
                damaged[at] ^= 1 << bit;
                fs.set_bytes(&path(), &damaged);
                let opened = Table::open(&fs, &path(), None, &how(pinned_bytes_max));
                match opened.and_then(|table| table.verify()) {
                    Err(Error::Corruption { offset, .. }) => assert!(offset <= meta.file_bytes),
                    other => panic!("byte {at}, bit {bit}: {other:?}"),
                }
                if let Ok(found) = read_all(&fs, &entries, pinned_bytes_max) {
                    assert!(found == expected, "byte {at}, bit {bit}: wrong data");
                }
            }
        }
    }
}

#[test]
fn damage_after_opening_is_found_by_verify() {
    let (fs, _, _) = write_table(Compression::Lz4);
    for pinned_bytes_max in PINNED_BYTES_MAX {
        let table = Table::open(&fs, &path(), None, &how(pinned_bytes_max)).unwrap();
        let intact = fs.bytes(&path());
        let file = fs.open_write(&path()).unwrap();
        for at in 0..intact.len() {
            file.write_at(&[intact[at] ^ 0x10], at as u64).unwrap();
            assert!(matches!(table.verify(), Err(Error::Corruption { .. })), "byte {at}");
            file.write_at(&intact[at..=at], at as u64).unwrap();
        }
        table.verify().unwrap();
    }
}

#[test]
fn damage_to_a_filter_or_an_index_that_is_not_in_memory_is_noticed_by_reads() {
    const SECTION_HEADER_BYTES: usize = 16;
    let fs = MemoryFs::default();
    let entries: Vec<Owned> =
        (0..9000).map(|n| Owned::put(format!("fruit/{n:06}"), 1, [b'v'; 100])).collect();
    let meta = write(&fs, &entries, &options(Compression::Lz4)).unwrap();
    let [_, table] = open_both(&fs, None).unwrap();
    let expected = read_table(&table, &entries).unwrap();
    let file = fs.open_write(&path()).unwrap();
    let intact = fs.bytes(&path());
    let footer = |field: usize| {
        let at = intact.len() - 128 + 8 * field;
        usize::try_from(u64::from_le_bytes(intact[at..at + 8].try_into().unwrap())).unwrap()
    };
    let (data_end, filter_bytes, index_bytes) = (footer(0), footer(1), footer(3));
    assert!(filter_bytes > 4 * 1024 && index_bytes > 4 * 1024, "several pages of each");
    let filter = data_end + SECTION_HEADER_BYTES..data_end + filter_bytes;
    // The prefix of the index, "fruit/00", is in memory.
    let index = filter.end + SECTION_HEADER_BYTES + 9..filter.end + index_bytes;
    for at in
        filter.clone().step_by(997).chain(index.clone().step_by(499)).chain([filter.end - 1, index.end - 1])
    {
        file.write_at(&[intact[at] ^ 1], at as u64).unwrap();
        let mut errors = 0;
        for entry in &entries {
            match table.get(&entry.key, key_hash(&entry.key), SEQUENCE_MAX) {
                Ok(found) => assert_eq!(found.map(|found| found.value), Some(entry.value[..].into())),
                Err(Error::Corruption { offset, .. }) => {
                    assert!(offset <= at as u64 && at as u64 - offset < 1100 && offset < meta.file_bytes);
                    errors += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(errors > 0, "byte {at}");
        let is_walked = matches!(walk(&table), Ok(found) if found == expected.0);
        assert_eq!(is_walked, filter.contains(&at), "byte {at}");
        let cut = table.split_keys(4);
        assert!(cut.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(table.approximate_offset(b"fruit/005000") < table.approximate_offset(b"fruit/008999"));
        file.write_at(&intact[at..=at], at as u64).unwrap();
    }
    assert_eq!(read_table(&table, &entries).unwrap(), expected);
}

#[test]
fn a_file_cut_at_any_length_or_with_a_tail_is_refused() {
    let (fs, meta, _) = write_table(Compression::Lz4);
    let intact = fs.bytes(&path());
    for len in 0..intact.len() {
        fs.set_bytes(&path(), &intact[..len]);
        for pinned_bytes_max in PINNED_BYTES_MAX {
            let opened = Table::open(&fs, &path(), None, &how(pinned_bytes_max));
            assert!(matches!(opened, Err(Error::Corruption { .. })), "{len} bytes");
        }
        let expecting = Table::open(&fs, &path(), None, &TableOpen::expecting(&meta));
        let message = expecting.unwrap_err().to_string();
        assert!(
            message.contains(&format!("{len} bytes")) && message.contains(&intact.len().to_string()),
            "{message}"
        );
    }
    for tail in [vec![0], vec![0; 4096], intact.clone()] {
        fs.set_bytes(&path(), &[intact.clone(), tail].concat());
        assert!(open(&fs, None).and_then(|table| table.verify()).is_err());
    }
}

#[test]
fn blocks_in_the_wrong_place_or_of_another_table_are_noticed() {
    let entries: Vec<Owned> =
        (0..200).map(|n| Owned::put(format!("{n:04}"), 1, format!("value {n:04}"))).collect();
    let options = options(Compression::None);
    let fs = MemoryFs::default();
    write(&fs, &entries, &options).unwrap();
    let intact = fs.bytes(&path());
    let table = open(&fs, None).unwrap();
    let mut starts: Vec<usize> =
        entries.iter().map(|entry| usize::try_from(table.approximate_offset(&entry.key)).unwrap()).collect();
    starts.dedup();
    assert!(starts.len() > 10);
    let block = starts[1] - starts[0];
    assert!(
        starts[..10].windows(2).all(|pair| pair[1] - pair[0] == block),
        "equal blocks, so that they can be swapped"
    );

    // The same entries under another id: every block is intact, and belongs elsewhere.
    let other = MemoryFs::default();
    let mut writer = TableWriter::create(&other, &path(), TableId(ID.0 + 1), &options).unwrap();
    for entry in &entries {
        writer.add(entry.entry()).unwrap();
    }
    writer.finish().unwrap();
    let other = other.bytes(&path());

    for pair in starts[..10].windows(2) {
        let at = pair[0];
        for (from, source) in [(pair[1], &intact), (at, &other)] {
            let mut damaged = intact.clone();
            damaged[at..at + block].copy_from_slice(&source[from..from + block]);
            fs.set_bytes(&path(), &damaged);
            let table = open(&fs, None).unwrap();
            let mut failures = 0;
            for entry in &entries {
                match table.get(&entry.key, key_hash(&entry.key), SEQUENCE_MAX) {
                    Ok(found) => assert_eq!(found.unwrap().value, entry.value),
                    Err(Error::Corruption { offset, .. }) => {
                        assert_eq!(offset, at as u64);
                        failures += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(failures > 5, "reads of the block fail, those of others do not");
            assert!(table.verify().is_err());
        }
    }
}

#[test]
fn another_table_in_its_place_is_refused_by_name() {
    let (fs, meta, _) = write_table(Compression::None);
    let other = TableExpectation { id: TableId(42), ..TableExpectation::from(&meta) };
    let how = TableOpen { expected: Some(other), ..TableOpen::default() };
    let message = Table::open(&fs, &path(), None, &how).unwrap_err().to_string();
    assert!(message.contains(&ID.to_string()) && message.contains(&TableId(42).to_string()), "{message}");

    // The same id, as an older version of the file restored by mistake would have it.
    let other = TableExpectation { checksum: Some(meta.checksum ^ 1), ..TableExpectation::from(&meta) };
    let how = TableOpen { expected: Some(other), ..TableOpen::default() };
    assert!(matches!(Table::open(&fs, &path(), None, &how), Err(Error::Corruption { .. })));
}

#[test]
fn a_damaged_block_fails_reads_of_it_and_no_others() {
    let fs = MemoryFs::default();
    let entries: Vec<Owned> = (0..1000).map(|n| Owned::put(format!("{n:04}"), 1, [b'v'; 50])).collect();
    write(&fs, &entries, &TableOptions { block_bytes: 512, ..TableOptions::default() }).unwrap();
    let mut bytes = fs.bytes(&path());
    bytes[80 + 40] ^= 1;
    fs.set_bytes(&path(), &bytes);
    let table = open(&fs, Some(BlockCache::new(1 << 20))).unwrap();
    for _ in 0..2 {
        let error = table.get(b"0000", key_hash(b"0000"), SEQUENCE_MAX).unwrap_err();
        assert!(matches!(error, Error::Corruption { offset: 80, .. }), "{error}");
        assert!(table.get(b"0999", key_hash(b"0999"), SEQUENCE_MAX).unwrap().is_some());
    }
    let mut cursor = table.cursor(CursorAccess::Cached);
    cursor.first();
    assert!(cursor.entry().is_none() && cursor.error().is_some());
    cursor.last();
    assert!(cursor.error().is_none());
    let mut seen = 0;
    while cursor.entry().is_some() {
        seen += 1;
        cursor.prev();
    }
    assert!(cursor.error().is_some(), "the walk back must not end as if the data did");
    assert!(seen > 900);
}

/// Says that it has no key that hashes to an odd number.
#[derive(Debug)]
struct Liar;

impl FilterPolicy for Liar {
    fn name(&self) -> &'static str {
        "test.liar"
    }

    fn build(&self, _: &[u64]) -> Vec<u8> {
        vec![1]
    }

    fn may_contain(&self, _: &[u8], hash: u64) -> bool {
        hash.is_multiple_of(2)
    }
}

#[test]
fn verify_finds_what_no_checksum_can() {
    let fs = MemoryFs::default();
    let entries: Vec<Owned> = (0..20).map(|n| Owned::put(format!("{n:04}"), 1, "v")).collect();
    write(&fs, &entries, &TableOptions { filter: Some(Arc::new(Liar)), ..TableOptions::default() }).unwrap();
    let how = TableOpen { filters: vec![Arc::new(Liar)], ..TableOpen::default() };
    let message = Table::open(&fs, &path(), None, &how).unwrap().verify().unwrap_err().to_string();
    assert!(message.contains("filter denies key"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
        let fs = MemoryFs::default();
        fs.set_bytes(&path(), &bytes);
        for pinned_bytes_max in PINNED_BYTES_MAX {
            prop_assert!(Table::open(&fs, &path(), None, &how(pinned_bytes_max)).is_err());
        }
    }

    #[test]
    fn several_damaged_ranges_are_noticed(
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..600)), 1..4),
        compression in prop::sample::select(compressions()),
    ) {
        let (fs, _, entries) = write_table(compression);
        let intact = fs.bytes(&path());
        let expected = read_all(&fs, &entries, usize::MAX).unwrap();
        let mut damaged = intact.clone();
        for (at, bytes) in &damage {
            let at = at.index(damaged.len());
            let end = damaged.len().min(at + bytes.len());
            damaged[at..end].copy_from_slice(&bytes[..end - at]);
        }
        fs.set_bytes(&path(), &damaged);
        for pinned_bytes_max in PINNED_BYTES_MAX {
            if let Ok(found) = read_all(&fs, &entries, pinned_bytes_max) {
                prop_assert_eq!(&found, &expected);
            }
            let opened = Table::open(&fs, &path(), None, &how(pinned_bytes_max));
            prop_assert_eq!(opened.and_then(|table| table.verify()).is_ok(), damaged == intact);
        }
    }
}

#[test]
fn a_copy_with_any_flipped_bit_or_cut_is_refused() {
    for compression in compressions() {
        let (fs, meta, _) = write_table(compression);
        let bytes = fs.bytes(&path());
        let check = |bytes: &[u8], chunk: usize| {
            let mut check = CopyCheck::from(&meta);
            bytes.chunks(chunk).for_each(|chunk| check.update(chunk));
            check.finish(&path())
        };
        for chunk in [1, 127, 128, 129, bytes.len()] {
            check(&bytes, chunk).unwrap();
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = check(&damaged, 1000).unwrap_err();
            assert!(matches!(error, Error::Corruption { .. }), "bit {bit}: {error}");
        }
        for cut in 0..bytes.len() {
            assert!(check(&bytes[..cut], 1000).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(check(&longer, 1000).is_err());
        let mut other = CopyCheck::new(TableId(meta.id.0 + 1), meta.file_bytes, meta.checksum);
        other.update(&bytes);
        assert!(other.finish(&path()).is_err());
    }
}
