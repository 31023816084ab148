//! Dumps a manifest.

use std::path::Path;

use lsm_core::Error;
use lsm_core::vfs::PosixFs;
use lsm_engine::inspect::VersionEdit;
use lsm_wal::{RecordFileReader, RecoveryMode};

use super::dumper::Dumper;
use super::log;
use crate::exit::Result;
use crate::item::Item;

pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    let mut reader = RecordFileReader::open(&PosixFs, path, 0, RecoveryMode::TolerateTornTail)?;
    if reader.file_number().is_none() {
        return Err(Error::corruption(path, 0, "this is not a manifest: the header is missing").into());
    }
    while let Some(record) = reader.next()? {
        log::dump_record("record", &record, dumper)?;
        if !dumper.raw {
            let edit =
                VersionEdit::decode(record.payload).map_err(|error| error.at(record.path, record.offset))?;
            dump_edit(&edit, dumper)?;
        }
    }
    log::dump_end(reader.report(), dumper)
}

fn dump_history(edit: &VersionEdit, dumper: &mut Dumper) -> Result<()> {
    for epoch in &edit.epochs {
        let item = Item::new("epoch").number("number", epoch.number).text("id", format!("{:016x}", epoch.id));
        dumper.item(&item.number("position", epoch.position).number("sequence", epoch.sequence))?;
    }
    for slot in &edit.slots {
        let item = Item::new("change_slot").bytes("name", slot.name.as_bytes());
        let item = item.number("bytes_max", slot.bytes_max);
        dumper.item(&item.text("position", slot.position.to_string()))?;
    }
    for name in &edit.dropped_slots {
        dumper.item(&Item::new("change_slot_dropped").bytes("name", name.as_bytes()))?;
    }
    for event in &edit.keyspace_events {
        let what = if event.is_drop { "drop_event" } else { "create_event" };
        let item = Item::new(what).number("number", event.number).number("keyspace", event.keyspace);
        dumper.item(&item.bytes("name", event.name.as_bytes()).number("sequence", event.sequence))?;
    }
    if let Some(count) = edit.keyspace_event_count {
        dumper.item(&Item::new("keyspace_event_count").number("is", count))?;
    }
    Ok(())
}

fn dump_edit(edit: &VersionEdit, dumper: &mut Dumper) -> Result<()> {
    let numbers = [
        ("next_number", edit.next_number),
        ("last_sequence", edit.last_sequence),
        ("next_keyspace", edit.next_keyspace.map(u64::from)),
        ("clock_micros", edit.clock_micros),
        ("age_clock_micros", edit.age_clock_micros),
        ("purged", edit.purged),
        ("log_begun", edit.log_begun),
    ];
    for (what, number) in numbers {
        if let Some(number) = number {
            dumper.item(&Item::new(what).number("is", number))?;
        }
    }
    if let Some(id) = edit.database_id {
        dumper.item(&Item::new("database").text("id", format!("{id:032x}")))?;
    }
    if let Some(start) = edit.log {
        let item = Item::new("log_start").number("position", start.position).number("segment", start.segment);
        dumper.item(&item.number("synced", start.synced))?;
    }
    dump_history(edit, dumper)?;
    for keyspace in &edit.keyspaces {
        let item = Item::new("keyspace").number("id", keyspace.id).bytes("name", keyspace.name.as_bytes());
        dumper.item(&item)?;
        for (name, value) in keyspace.options.iter() {
            let item = Item::new("keyspace_option").number("keyspace", keyspace.id);
            dumper.item(&item.text("name", name).bytes("value", value))?;
        }
    }
    for &id in &edit.dropped {
        dumper.item(&Item::new("keyspace_dropped").number("id", id))?;
    }
    for &(keyspace, sequence) in &edit.flushed {
        dumper.item(&Item::new("flushed").number("keyspace", keyspace).number("sequence", sequence))?;
    }
    for &(keyspace, number) in &edit.removed {
        dumper.item(&Item::new("table_removed").number("keyspace", keyspace).number("number", number))?;
    }
    for blob in &edit.added_blobs {
        dumper.item(
            &Item::new("blob_file_added")
                .number("keyspace", blob.keyspace)
                .number("blob", blob.blob)
                .number("number", blob.number)
                .text("id", blob.meta.id.to_string())
                .number("file_bytes", blob.meta.file_bytes)
                .number("values", blob.meta.values)
                .number("value_bytes", blob.meta.value_bytes),
        )?;
    }
    for table in &edit.added {
        let item = Item::new("table_added")
            .number("keyspace", table.keyspace)
            .number("level", table.level)
            .number("run", table.run)
            .number("number", table.number)
            .number("created_micros", table.created_micros)
            .text("id", table.meta.id.to_string())
            .number("file_bytes", table.meta.file_bytes)
            .number("entries", table.meta.entries)
            .bytes("smallest", &table.meta.smallest)
            .bytes("largest", &table.meta.largest);
        dumper.item(&match table.meta.global_sequence {
            0 => item,
            sequence => item.number("global_sequence", sequence),
        })?;
    }
    Ok(())
}
