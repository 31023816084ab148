//! Reading a log: from segment to segment and into the window, and deciding where it ends. Writes nothing.

pub(crate) mod damage;
pub(crate) mod findings;
pub(crate) mod segment_list;
pub(crate) mod tail;
pub(crate) mod wal_reader;
pub(crate) mod window_reader;
