//! Dumps the lease of a follower.

use std::path::Path;

use lsm_core::Error;
use lsm_core::vfs::PosixFs;
use lsm_engine::inspect::Lease;

use super::dumper::Dumper;
use crate::exit::Result;
use crate::item::Item;

pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    let failed = |error| Error::io("read", path, error);
    let bytes = Lease::read(&PosixFs, path).map_err(failed)?;
    let bytes = bytes.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    let lease = Lease::decode(&bytes).ok_or_else(|| {
        Error::corruption(path, 0, "this is no lease, or one that is being written: try again")
    })?;
    let item = Item::new("lease")
        .text("id", format!("{:016x}", lease.id))
        .number("renewals", lease.renewals)
        .number("micros", lease.micros)
        .number("manifest", lease.edits.manifest)
        .number("manifest_position", lease.edits.position);
    dumper.item(&match lease.log {
        Some(log) => item.number("log", log),
        None => item.text("log", "none"),
    })
}
