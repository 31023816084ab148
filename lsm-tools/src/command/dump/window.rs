//! Dumps a window of the log.

use std::path::Path;

use lsm_core::Error;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_wal::WindowReader;

use super::dumper::Dumper;
use super::log;
use crate::exit::Result;
use crate::item::Item;

/// Shows where the window begins, the records in it, and those that earlier generations left.
pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    PosixFs.metadata(path).map_err(|error| Error::io("open", path, error))?;
    let Some(mut window) = WindowReader::open(&PosixFs, path)? else {
        let detail = "this is no window of a log, or a power cut took its header";
        return Err(Error::corruption(path, 0, detail).into());
    };
    let item = Item::new("window").number("number", window.number());
    dumper.item(&item.number("area_bytes", window.area_bytes()))?;
    for (offset, base) in window.slots() {
        let item = Item::new("slot").number("offset", offset);
        dumper.item(&match base {
            Some(base) => item.number("base", base),
            None => item.text("base", "none"),
        })?;
    }
    let (mut newest, mut older) = (0_u64, 0_u64);
    let mut end = window.slots().into_iter().filter_map(|(_, base)| base).max().unwrap_or(0);
    while let Some((record, is_newest)) = window.next()? {
        if is_newest {
            newest += 1;
            if record.start.0 > end {
                let item = Item::new("gap").number("start", end).number("end", record.start.0);
                dumper.item(&item.text("why", "no sound record stands here"))?;
            }
            end = record.end.0;
            log::dump_record("record", &record, dumper)?;
            log::dump_writes(&record, dumper)?;
        } else {
            older += 1;
            log::dump_record("stale_record", &record, dumper)?;
        }
    }
    dumper.item(&Item::new("end").number("records", newest).number("stale_records", older))
}
