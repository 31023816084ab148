use lsm_core::frame::{FrameSlot, Visit};

/// A slot for each block of a table.
#[derive(Debug)]
pub(super) struct Slots(pub(super) Box<[FrameSlot]>);

impl Slots {
    pub(super) fn slot(&self, block: u32) -> Option<&FrameSlot> {
        self.0.get(block as usize)
    }

    /// The clock's hand comes by.
    pub(super) fn visit(&self, block: u32) -> Visit {
        self.slot(block).map_or(Visit::Empty, FrameSlot::visit)
    }
}
