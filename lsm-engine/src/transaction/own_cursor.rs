//! A cursor over a snapshot and the transaction's own writes over it.

use std::ops::Bound;
use std::sync::Arc;

use lsm_core::Slice;

use super::overlay::{Overlay, OwnWrite};
use crate::error::Result;
use crate::keyspaces::{ReadPoint, ReadState};
use crate::read::{Bounds, DbCursor};

/// Merges a cursor over a snapshot with the writes of the transaction.
pub(super) struct OwnCursor {
    /// Never stands on a key that the transaction wrote or deleted, except before the first move.
    base: DbCursor,
    /// `None` if the transaction wrote nothing here.
    own: Option<Own>,
    place: Place,
}

struct Own {
    writes: Arc<Overlay>,
    /// The keyspace before the transaction.
    state: Arc<ReadState>,
    bounds: Bounds,
    point: ReadPoint<'static>,
    /// The next own key in the direction of the cursor, with its value. An error is returned when the cursor gets there.
    next: Option<(Slice, Result<Slice>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// On the key of the base, or of the transaction. The other one stands after it, in the direction of the cursor.
    Base(Direction),
    Own(Direction),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}
use Direction::{Backward, Forward};

impl Own {
    /// Finds the first own key with a value from `from` on, in the given direction.
    fn look(&mut self, direction: Direction, from: Bound<&[u8]>) {
        let writes = Arc::clone(&self.writes);
        self.next = match direction {
            Forward => self.look_among(writes.writes_from(from)),
            Backward => self.look_among(writes.writes_up_to(from).rev()),
        };
    }

    fn look_among<'o>(
        &self,
        writes: impl Iterator<Item = (&'o Slice, &'o OwnWrite)>,
    ) -> Option<(Slice, Result<Slice>)> {
        for (key, write) in writes {
            if self.bounds.above_upper(key) || self.bounds.below_lower(key) {
                break;
            }
            let value = self.writes.value_of(key, write, &self.state, &self.point);
            if let Some(value) = value.transpose() {
                return Some((key.clone(), value));
            }
        }
        None
    }
}

impl OwnCursor {
    pub(super) fn new(
        mut base: DbCursor,
        writes: &Arc<Overlay>,
        state: &Arc<ReadState>,
        bounds: Bounds,
        point: ReadPoint<'static>,
    ) -> Self {
        let own = (!writes.is_empty()).then(|| Own {
            writes: Arc::clone(writes),
            state: Arc::clone(state),
            bounds,
            point,
            next: None,
        });
        if own.is_some() {
            base.keep_refusals();
        }
        Self { base, own, place: Place::Nowhere }
    }

    pub(super) fn first(&mut self) -> Result<()> {
        self.place = Place::Nowhere;
        self.base.first()?;
        self.start(Forward, |bounds| bounds.lower.clone())
    }

    pub(super) fn last(&mut self) -> Result<()> {
        self.place = Place::Nowhere;
        self.base.last()?;
        self.start(Backward, |bounds| bounds.upper.clone())
    }

    pub(super) fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.place = Place::Nowhere;
        self.base.seek(key)?;
        self.start(Forward, |bounds| {
            if bounds.below_lower(key) {
                bounds.lower.clone()
            } else {
                Bound::Included(Slice::copy_from(key))
            }
        })
    }

    pub(super) fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        self.place = Place::Nowhere;
        self.base.seek_for_prev(key)?;
        self.start(Backward, |bounds| {
            if bounds.above_upper(key) {
                bounds.upper.clone()
            } else {
                Bound::Included(Slice::copy_from(key))
            }
        })
    }

    pub(super) fn next(&mut self) -> Result<()> {
        self.step(Forward).inspect_err(|_| self.place = Place::Nowhere)
    }

    pub(super) fn prev(&mut self) -> Result<()> {
        self.step(Backward).inspect_err(|_| self.place = Place::Nowhere)
    }

    pub(super) fn entry(&self) -> Option<(&[u8], &[u8])> {
        match self.place {
            Place::Nowhere => None,
            Place::Base(_) => self.base.entry(),
            Place::Own(_) => {
                let (key, value) = self.own.as_ref()?.next.as_ref()?;
                Some((key, value.as_ref().ok()?))
            }
        }
    }

    /// Whether the last move was backward.
    fn direction(&self) -> Option<Direction> {
        match self.place {
            Place::Nowhere => None,
            Place::Base(direction) | Place::Own(direction) => Some(direction),
        }
    }

    /// Ends a positioning: the base has moved.
    fn start(&mut self, direction: Direction, from: impl FnOnce(&Bounds) -> Bound<Slice>) -> Result<()> {
        if let Some(own) = &mut self.own {
            let from = from(&own.bounds);
            own.look(direction, from.as_ref().map(|key| &**key));
        }
        self.settle(direction)
    }

    fn step(&mut self, direction: Direction) -> Result<()> {
        match self.direction() {
            None => return Ok(()),
            Some(before) if before != direction && self.own.is_some() => self.turn(direction)?,
            Some(_) => {}
        }
        match (&mut self.own, self.place) {
            (Some(own), Place::Own(_)) => {
                let last = own.next.take().map(|(key, _)| key).unwrap_or_default();
                own.look(direction, Bound::Excluded(&last));
            }
            _ => match direction {
                Forward => self.base.next()?,
                Backward => self.base.prev()?,
            },
        }
        self.settle(direction)
    }

    /// Changes the direction: what is not the current key moves to the other side of it.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let Some((key, _)) = self.entry() else { return Ok(()) };
        let key = Slice::copy_from(key);
        match self.place {
            Place::Base(_) => {
                if let Some(own) = &mut self.own {
                    own.look(direction, Bound::Excluded(&key));
                }
                self.place = Place::Base(direction);
            }
            Place::Own(_) => {
                // The base holds no version of the key that is to be shown, so it need not be passed.
                match direction {
                    Forward => self.base.seek(&key)?,
                    Backward => self.base.seek_for_prev(&key)?,
                }
                self.place = Place::Own(direction);
            }
            Place::Nowhere => {}
        }
        Ok(())
    }

    /// Moves the base past what the transaction wrote or deleted, and finds which of the two comes first. Fails if that
    /// has no value because a merge was refused.
    fn settle(&mut self, direction: Direction) -> Result<()> {
        self.place = Place::Nowhere;
        let Some(own) = &self.own else {
            if self.base.key().is_some() {
                self.place = Place::Base(direction);
            }
            return Ok(());
        };
        while let Some(key) = self.base.key() {
            if own.writes.has_write(key) {
                match direction {
                    Forward => self.base.next()?,
                    Backward => self.base.prev()?,
                }
            } else if let Some((start, end)) = own.writes.deleted_around(key) {
                match direction {
                    Forward => self.base.seek(end)?,
                    Backward => {
                        self.base.seek_for_prev(start)?;
                        if self.base.key() == Some(start) {
                            self.base.prev()?;
                        }
                    }
                }
            } else {
                break;
            }
        }
        let base_is_next = match (self.base.key(), &own.next) {
            (None, None) => return Ok(()),
            (Some(base), Some((own, _))) => (base < &**own) == (direction == Forward),
            (base, _) => base.is_some(),
        };
        let refusal = match &own.next {
            Some((_, value)) if !base_is_next => value.as_ref().err(),
            _ => self.base.refusal(),
        };
        if let Some(error) = refusal {
            return Err(error.clone());
        }
        self.place = if base_is_next { Place::Base(direction) } else { Place::Own(direction) };
        Ok(())
    }
}
