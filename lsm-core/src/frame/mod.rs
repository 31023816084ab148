//! Frames: byte strings that a cache keeps where reading them costs the fewest misses.
//!
//! A [`Frame`] is an immutable byte string behind one counted pointer. Those of a
//! [`FramePool`] lie in huge pages. A [`FrameSlot`] is the place of a frame in a cache, eight bytes: whoever reads it pins the frame for the length of a call, which is
//! one atomic addition that also gives the address; whoever evicts takes the frame out unless it is pinned.
//!
//! ```
//! use lsm_core::frame::{Frame, FrameSlot, Visit};
//! let slot = FrameSlot::default();
//! assert!(slot.fill(Frame::copy_from(b"block")).is_ok());
//! assert_eq!(*slot.pin().expect("just filled"), *b"block");
//! assert!(matches!(slot.visit(), Visit::Spared)); // it was read
//! assert!(matches!(slot.visit(), Visit::Taken(frame) if *frame == *b"block"));
//! ```

mod counted;
mod pool;
mod slot;
mod spans;

pub use counted::Frame;
pub use pool::FramePool;
pub use slot::{FrameSlot, PinnedFrame, Visit};
