//! What writers and cursors say they hold, and that a huge value does not stay in their buffers.

mod common;

use std::sync::Arc;

use common::{ID, MemoryFs, Owned, open_both, path, write};
use lsm_core::Cursor;
use lsm_sstable::{BloomFilter, Compression, CursorAccess, TableOptions, TableWriter};

const HUGE: usize = 8 << 20;

fn options(compression: Compression) -> TableOptions {
    TableOptions { compression, write_buffer_bytes: 64 << 10, ..TableOptions::default() }
}

/// Does not compress, so that nothing is small by luck.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn a_writer_counts_a_huge_value_once_or_twice_and_gives_its_memory_back() {
    let huge = noise(HUGE);
    for (compression, copies) in [(Compression::None, 1), (Compression::Lz4, 2)] {
        let fs = MemoryFs::default();
        let mut writer = TableWriter::create(&fs, &path(), ID, &options(compression)).unwrap();
        writer.add(Owned::put("a", 1, "small").entry()).unwrap();
        let before = writer.memory_bytes();
        assert!((64 << 10..256 << 10).contains(&before), "{before}");
        writer.add(Owned::put("b", 1, &huge).entry()).unwrap();
        let with_huge = writer.memory_bytes() - before;
        // What LZ4 asks for is a tenth more than its input.
        assert!(with_huge.abs_diff(copies * HUGE) < HUGE / 8, "{with_huge}");
        for key in ["c", "d"] {
            writer.add(Owned::put(key, 1, [b'v'; 5000]).entry()).unwrap();
        }
        assert!(writer.memory_bytes() < before + (64 << 10), "{}", writer.memory_bytes());
        writer.finish().unwrap();
        for table in open_both(&fs, None).unwrap() {
            table.verify().unwrap();
        }
    }
}

#[test]
fn a_writer_counts_what_each_key_and_range_tombstone_will_take_until_it_is_finished() {
    const COUNT: u32 = 100_000;
    for (bits_per_key, filter_bytes) in [(10.0, 125), (20.0, 250)] {
        let fs = MemoryFs::default();
        let filter = Some(Arc::new(BloomFilter::new(bits_per_key)) as _);
        let options = TableOptions { filter, ..options(Compression::Lz4) };
        let mut writer = TableWriter::create(&fs, &path(), ID, &options).unwrap();
        let empty = writer.memory_bytes();
        for n in 0..COUNT {
            writer.add(Owned::put(format!("key/{n:08}"), 1, [b'v'; 20]).entry()).unwrap();
        }
        let keys = writer.memory_bytes() - empty;
        // A hash in a vector that doubles, the filter, and the index of a thousand blocks.
        let per_cent_keys = COUNT as usize / 100;
        let least = per_cent_keys * (800 + filter_bytes);
        assert!((least..least + per_cent_keys * 800).contains(&keys), "{keys} {least}");
        for n in 0..1000 {
            writer
                .add_range_tombstone(format!("{n:04}").as_bytes(), format!("{n:04}x").as_bytes(), 1)
                .unwrap();
        }
        let tombstones = writer.memory_bytes() - empty - keys;
        assert!((200_000..1_000_000).contains(&tombstones), "{tombstones}");
        writer.add_range_tombstone(b"0", b"1", 5).unwrap();
        let overlapping = writer.memory_bytes() - empty - keys;
        assert!(overlapping > 1000 * 1000 * 8, "each fragment could have the numbers of all: {overlapping}");
        writer.finish().unwrap();
    }
}

#[test]
fn a_cursor_holds_a_huge_value_once_and_gives_its_memory_back() {
    let fs = MemoryFs::default();
    let mut entries: Vec<Owned> = (0..2000).map(|n| Owned::put(format!("{n:04}"), 1, noise(500))).collect();
    entries[1000].value = noise(HUGE);
    for compression in [Compression::None, Compression::Lz4] {
        fs.remove(&path());
        write(&fs, &entries, &options(compression)).unwrap();
        for table in open_both(&fs, None).unwrap() {
            for access in [CursorAccess::Cached, CursorAccess::Sequential] {
                let mut cursor = table.cursor(access);
                assert!(cursor.memory_bytes() < 1000);
                for forward in [true, false] {
                    if forward {
                        cursor.first();
                    } else {
                        cursor.last();
                    }
                    let mut most = 0;
                    while let Some(entry) = cursor.entry() {
                        let is_huge = entry.value.len() == HUGE;
                        let held = cursor.memory_bytes();
                        assert!(held <= if is_huge { HUGE + HUGE / 50 } else { 300 << 10 }, "{held}");
                        assert!(!is_huge || held >= HUGE, "{held}");
                        most = most.max(held);
                        if forward {
                            cursor.next();
                        } else {
                            cursor.prev();
                        }
                    }
                    assert!(cursor.error().is_none() && most >= HUGE);
                }
            }
        }
    }
}
