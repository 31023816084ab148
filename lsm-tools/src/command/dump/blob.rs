//! Dumps a blob file.

use std::path::Path;

use lsm_core::vfs::PosixFs;
use lsm_sstable::BlobReader;

use super::dumper::Dumper;
use crate::exit::Result;
use crate::item::Item;

pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    let blobs = BlobReader::open(&PosixFs, path, None)?;
    let meta = blobs.meta();
    dumper.item(
        &Item::new("blobs")
            .text("id", meta.id.to_string())
            .number("file_bytes", meta.file_bytes)
            .text("checksum", format!("{:016x}", meta.checksum))
            .number("values", meta.values)
            .number("value_bytes", meta.value_bytes)
            .number("numbers", blobs.numbers())
            .number("is_rewritten", u64::from(blobs.is_rewritten())),
    )?;
    let mut failed = None;
    let listed = blobs.for_each(|place| {
        let value = if dumper.values { Some(blobs.read(place)?) } else { None };
        let item = Item::new("blob").number("number", place.number).number("offset", place.offset);
        let item = match &value {
            Some(value) => item.bytes("value", value),
            None => item.number("value_bytes", place.bytes),
        };
        if failed.is_none() {
            failed = dumper.item(&item).err();
        }
        Ok(())
    });
    // What the printing failed with comes first: the rest was not printed.
    failed.map_or(Ok(()), Err)?;
    Ok(listed?)
}
