//! The flight recorder: files `EVENTS-N` with the last events, so that a stall of yesterday can be explained.
//!
//! The clean-up job writes the new events about once a second, as one record, and closing writes the last ones. A file
//! has the format of the manifest ([`RecordFile`]). A full file is followed by another, and the oldest is removed. Only
//! closing syncs: a power cut may take the last events, and a file that it damaged harms nobody. A failure of the
//! recorder is a warning, and the events are tried again with the next ones.

mod reader;
mod record;
mod writer;

pub use reader::RecordedEvents;
pub(crate) use writer::Recorder;
