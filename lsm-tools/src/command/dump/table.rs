//! Dumps a table.

use std::path::Path;

use lsm_core::Cursor;
use lsm_core::vfs::PosixFs;
use lsm_sstable::{CursorAccess, Table, TableOpen};

use super::dumper::Dumper;
use crate::exit::Result;
use crate::item::{Item, name_of};

pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    let table = Table::open(&PosixFs, path, None, &TableOpen::default())?;
    let (meta, properties) = (table.meta(), table.properties());
    dumper.item(
        &Item::new("table")
            .text("id", meta.id.to_string())
            .number("file_bytes", meta.file_bytes)
            .text("checksum", format!("{:016x}", meta.checksum))
            .number("entries", meta.entries)
            .number("distinct_keys", properties.distinct_keys)
            .number("tombstones", meta.tombstones)
            .number("range_tombstones", meta.range_tombstones)
            .bytes("smallest", &meta.smallest)
            .bytes("largest", &meta.largest)
            .number("smallest_sequence", meta.smallest_sequence)
            .number("largest_sequence", meta.largest_sequence)
            .number("raw_key_bytes", meta.raw_key_bytes)
            .number("raw_value_bytes", meta.raw_value_bytes),
    )?;
    dumper.item(
        &Item::new("properties")
            .text("compression", properties.compression.clone())
            .text("filter", properties.filter.clone())
            .text("prefix_extractor", properties.prefix_extractor.clone())
            .number("data_blocks", properties.data_blocks)
            .number("data_bytes", properties.data_bytes)
            .number("raw_data_bytes", properties.raw_data_bytes)
            .number("merge_operands", properties.merge_operands)
            .number("expiring", properties.expiring)
            .number("earliest_expiry_micros", properties.earliest_expiry_micros)
            .number("latest_expiry_micros", properties.latest_expiry_micros),
    )?;
    for held in meta.blobs.iter() {
        let item = Item::new("points_to").number("blob", held.blob).number("values", held.values);
        dumper.item(&item.number("value_bytes", held.bytes))?;
    }
    for fragment in table.range_tombstones().iter() {
        for &sequence in fragment.sequences {
            let item = Item::new("range_delete").number("sequence", sequence);
            dumper.item(&item.bytes("key", fragment.start).bytes("end", fragment.end))?;
        }
    }
    let mut cursor = table.cursor(CursorAccess::Sequential);
    cursor.first();
    while let Some(entry) = cursor.entry() {
        let item = Item::new(name_of(entry.kind)).number("sequence", entry.sequence).bytes("key", entry.key);
        dumper.item(&item.value(entry.kind, entry.value, dumper.values))?;
        cursor.next();
    }
    match cursor.error() {
        Some(error) => Err(error.clone().into()),
        None => Ok(()),
    }
}
