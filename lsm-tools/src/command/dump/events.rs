//! Dumps a file of the flight recorder.

use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::PosixFs;
use lsm_engine::inspect::RecordedEvents;

use super::dumper::Dumper;
use crate::command::events::print;
use crate::exit::Result;
use crate::item::Item;

pub(super) fn dump(path: &Path, dumper: &mut Dumper) -> Result<()> {
    let mut recorded = RecordedEvents::of_file(Arc::new(PosixFs), path);
    for event in &mut recorded {
        print(&event?, dumper.format, &mut dumper.out)?;
    }
    for dropped in recorded.dropped() {
        dumper.item(&Item::new("dropped").text("why", dropped))?;
    }
    Ok(())
}
