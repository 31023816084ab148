//! Followers: read a database that another process has open, and catch up with it.
//!
//! Input: the files of a database that its owner writes. Output: read-only databases, each at one point of the owner's
//! history. A follower writes nothing but its lease.

mod catch_up;
mod files;
#[expect(clippy::module_inception, reason = "the folder has the name of what it is about")]
mod follower;
mod lease;
mod replica;

pub use catch_up::Progress;
pub use follower::Follower;
