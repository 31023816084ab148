//! Data blocks: sorted runs of entries that are searched without being decoded.

mod builder;
mod frame;
mod header;
mod load;

pub(crate) use builder::BlockBuilder;
pub(crate) use frame::{Frame, Row, Shape, renumber};
pub(crate) use header::{BlockHeader, ROWS_MAX};
pub(crate) use load::load;
