//! Filters: a few bits a key that spare most reads of tables which do not have the key.

mod bloom;
mod directory;
mod policy;

pub use bloom::BloomFilter;
pub(crate) use directory::FilterDirectory;
pub use policy::FilterPolicy;
