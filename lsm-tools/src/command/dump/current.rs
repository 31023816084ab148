//! Dumps `CURRENT`.

use std::path::Path;

use lsm_core::Error;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_engine::inspect::Current;

use super::dumper::Dumper;
use crate::exit::Result;
use crate::item::Item;

/// Far more than a pointer takes.
const BYTES_MAX: u64 = 1 << 16;

pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    let file = PosixFs.open_read(path).map_err(|error| Error::io("open", path, error))?;
    let failed = |error| Error::io("read", path, error);
    let mut bytes = vec![0; file.len().map_err(failed)?.min(BYTES_MAX) as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    let current = Current::decode(&bytes, path)?;
    dumper.item(
        &Item::new("current")
            .number("manifest", current.manifest)
            .number("manifest_synced", current.manifest_synced)
            .text("closed", if current.clean.is_some() { "cleanly" } else { "no" }),
    )?;
    if let Some(end) = current.clean {
        dumper.item(
            &Item::new("log_end")
                .number("position", end.end.0)
                .number("segment", end.segment)
                .number("segment_bytes", end.length)
                .text("checksum", format!("{:016x}", end.checksum)),
        )?;
    }
    Ok(())
}
