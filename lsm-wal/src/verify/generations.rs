//! Which record ought to stand where in a window's area.
//!
//! The writer begins the area anew when a record does not fit behind the last, and behind each record that is too
//! long for the window. It uses a part of the area at first, and a larger one each time that this is full. So the
//! generations follow from the records' lengths, unless there was no memory for a larger part. An append that failed may have begun a
//! generation too: the slots say so for the newest.

use std::ops::Range;

use crate::format::window::room_after;

/// The times that the area was filled from its front, oldest first.
pub(super) struct Generations {
    area_bytes: u64,
    /// The part of the area that is in use.
    room_bytes: u64,
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
    /// Those of a window whose first record is at `base`.
    pub(super) fn new(area_bytes: u64, base: u64) -> Self {
        let filled = vec![Generation { base, end: base }];
        Self { area_bytes, room_bytes: 0, filled, forced: None }
    }

    /// The last two of a window, whatever part of the area the writer used: they begin at these positions.
    pub(super) fn last_two(area_bytes: u64, older: u64, newest: Option<u64>) -> Self {
        Self { room_bytes: area_bytes, forced: newest, ..Self::new(area_bytes, older) }
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
        } else if positions.end - last.base <= self.room_bytes {
            last.end = positions.end;
        } else {
            let record_bytes = positions.end - positions.start;
            self.room_bytes = room_after(self.room_bytes, record_bytes, self.area_bytes);
            self.begin(positions.start);
            self.add(positions);
        }
    }

    fn begin(&mut self, base: u64) {
        if self.filled.last().is_none_or(|last| last.base < base) {
            self.filled.push(Generation { base, end: base });
        }
    }

    /// Whether generations that followed each other began at these positions, the newest first.
    pub(super) fn has_bases(&self, bases: &[u64]) -> bool {
        let mut begun = self
            .filled
            .iter()
            .rev()
            .map(|generation| generation.base)
            .skip_while(|base| bases.first().is_some_and(|newest| base != newest));
        bases.iter().all(|&base| begun.next() == Some(base))
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
        let mut generations = Generations::last_two(100, 0, None);
        // The third does not fit, the fourth is too long for the window, the fifth is the first of its generation.
        for positions in [0..40, 40..88, 88..128, 128..188, 188..204] {
            generations.add(&positions);
        }
        let pieces = generations.layout(generations.len());
        let pieces: Vec<_> = pieces.into_iter().map(|piece| (piece.area, piece.position)).collect();
        assert_eq!(pieces, [(0..16, 188), (16..40, 104), (40..88, 40)]);
        assert!(generations.has_bases(&[188, 88]) && generations.has_bases(&[88, 0]));
        assert!(!generations.has_bases(&[188, 0]) && !generations.has_bases(&[128]));
    }

    #[test]
    fn a_window_uses_a_larger_part_of_its_area_each_time_that_it_is_full() {
        let mut generations = Generations::new(1600, 0);
        // The parts have 96, 192 and 384 bytes.
        for start in (0..560).step_by(40) {
            generations.add(&(start..start + 40));
        }
        assert!(generations.has_bases(&[240, 80, 0]));
    }
}
