//! Which record ought to stand where in a window's area.
//!
//! The writer begins the area anew when a record does not fit behind the last, and behind each record that is too
//! long for the window, so the generations follow from the records' lengths. An append that failed may have begun a
//! generation too: the slots say so for the newest.

use std::ops::Range;

/// The times that the area was filled from its front, oldest first.
pub(super) struct Generations {
    area_bytes: u64,
    filled: Vec<Generation>,
    /// A generation begins here, whatever the lengths say.
    forced: Option<u64>,
}

#[derive(Clone, Copy)]
struct Generation {
    /// Log position of the area's first byte.
    base: u64,
    /// End of the last record.
    end: u64,
}

/// A stretch of the area, and the log position that its first byte had.
pub(super) struct Piece {
    pub(super) area: Range<u64>,
    pub(super) position: u64,
}

impl Generations {
    pub(super) fn new(area_bytes: u64, base: u64, forced: Option<u64>) -> Self {
        Self { area_bytes, filled: vec![Generation { base, end: base }], forced }
    }

    /// Takes note of the next record of the log.
    pub(super) fn add(&mut self, positions: &Range<u64>) {
        if self.forced == Some(positions.start) {
            self.begin(positions.start);
        }
        let Some(last) = self.filled.last_mut() else { return };
        if positions.start < last.base {
            return;
        }
        if positions.end - positions.start > self.area_bytes / 2 {
            self.begin(positions.end);
        } else if positions.end - last.base <= self.area_bytes {
            last.end = positions.end;
        } else {
            self.begin(positions.start);
            self.add(positions);
        }
    }

    fn begin(&mut self, base: u64) {
        if self.filled.last().is_none_or(|last| last.base < base) {
            self.filled.push(Generation { base, end: base });
        }
    }

    pub(super) fn has_base(&self, base: u64) -> bool {
        self.filled.binary_search_by_key(&base, |generation| generation.base).is_ok()
    }

    pub(super) fn len(&self) -> usize {
        self.filled.len()
    }

    /// What stands in the area after the first `count` generations: each covers the beginning of those before. Ordered
    /// by place, without gaps, from the area's beginning on.
    pub(super) fn layout(&self, count: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut covered = 0;
        for generation in self.filled.iter().take(count).rev() {
            let bytes = generation.end - generation.base;
            if bytes > covered {
                pieces.push(Piece { area: covered..bytes, position: generation.base + covered });
                covered = bytes;
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_follow_from_the_lengths_of_records() {
        let mut generations = Generations::new(100, 0, None);
        // The third does not fit, the fourth is too long for the window, the fifth is the first of its generation.
        for positions in [0..40, 40..88, 88..128, 128..188, 188..204] {
            generations.add(&positions);
        }
        let pieces = generations.layout(generations.len());
        let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece.area, piece.position)).collect();
        assert_eq!(pieces, [(0..16, 188), (16..40, 104), (40..88, 40)]);
        assert!(generations.has_base(88) && generations.has_base(188) && !generations.has_base(128));
    }
}
