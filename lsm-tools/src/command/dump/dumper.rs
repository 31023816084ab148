use crate::exit::Result;
use crate::item::{Item, ItemFormat};
use crate::output::Output;

/// Where a dump goes.
pub(super) struct Dumper {
    pub(super) out: Output,
    pub(super) format: ItemFormat,
    pub(super) values: bool,
    pub(super) raw: bool,
}

impl Dumper {
    pub(super) fn item(&mut self, item: &Item<'_>) -> Result<()> {
        self.out.item(item, self.format)
    }
}
