//! A vector that one thread appends to while others read.

use std::sync::OnceLock;

const FIRST_CHUNK: usize = 32;
/// Room for 2^31 items, in chunks of 2^30 at most.
const CHUNK_COUNT: usize = 26;

/// A vector that only grows, whose items never move: one thread pushes while others read.
///
/// Items live in chunks of doubling size. Reading takes no lock; an index handed over by a release store finds
/// its item.
pub(super) struct AppendVec<T> {
    chunks: [OnceLock<Box<[OnceLock<T>]>>; CHUNK_COUNT],
}

impl<T> AppendVec<T> {
    pub(super) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNK_COUNT] }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, offset) = locate(index);
        self.chunks.get(chunk)?.get()?.get(offset)?.get()
    }

    /// Stores `item` at `index`, the number of items so far. Returns the bytes newly allocated, or `None` if
    /// there is no room for so many items, or there is an item already.
    pub(super) fn push(&self, index: u32, item: T) -> Option<usize> {
        let (chunk, offset) = locate(index);
        let slot = self.chunks.get(chunk)?;
        let mut allocated_bytes = 0;
        let items = slot.get_or_init(|| {
            let items: Box<[OnceLock<T>]> = (0..FIRST_CHUNK << chunk).map(|_| OnceLock::new()).collect();
            allocated_bytes = size_of_val(&*items);
            items
        });
        items.get(offset)?.set(item).ok()?;
        Some(allocated_bytes)
    }
}

#[inline]
fn locate(index: u32) -> (usize, usize) {
    // Chunk c holds the indexes from (2^c - 1) * FIRST_CHUNK on.
    let shifted = index as usize / FIRST_CHUNK + 1;
    let chunk = shifted.ilog2() as usize;
    (chunk, index as usize - ((1 << chunk) - 1) * FIRST_CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_where_they_were_put() {
        let vec = AppendVec::new();
        for index in 0..1000 {
            assert!(vec.get(index).is_none());
            vec.push(index, index * 3).expect("there is room");
        }
        for index in 0..1000 {
            assert_eq!(vec.get(index), Some(&(index * 3)));
        }
        assert!(vec.push(5, 0).is_none(), "an item never changes");
    }
}
