//! Reserves the memory of a write before it is logged.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lsm_memtable::Reservation;

use crate::callbacks::{caught, panic_message};
use crate::error::{Error, Result};
use crate::write::committer::Committer;
use crate::write::path::WritePath;

impl Committer {
    /// Takes the memory for the next record from what a memtable reserved ahead. Returns `false` if that does not
    /// suffice.
    #[inline]
    fn take_reserved(&mut self, keyspace: u32, reservation: &Reservation<'_>) -> bool {
        let active = self.writer(keyspace).and_then(|writer| writer.active.as_mut());
        active.is_some_and(|active| active.take_reserved(reservation))
    }

    /// Makes sure that a keyspace has a memtable with memory for the next record. Returns `false` if the system has no
    /// memory.
    fn reserve(&mut self, keyspace: u32, reservation: &Reservation<'_>) -> Result<bool> {
        let active = self.writer(keyspace).and_then(|writer| writer.active.as_mut());
        let reserve = AssertUnwindSafe(|| active.is_some_and(|active| active.reserve(reservation)));
        match catch_unwind(reserve) {
            Ok(true) => Ok(true),
            reserved => self.prepare_next(keyspace, reservation, reserved),
        }
    }

    #[cold]
    fn prepare_next(
        &mut self,
        keyspace: u32,
        reservation: &Reservation<'_>,
        reserved: std::thread::Result<bool>,
    ) -> Result<bool> {
        let tree = self.tree(keyspace).cloned().ok_or(Error::Closed)?;
        reserved
            .map_err(|panic| Error::Callback(panic_message("the start of a write", &*panic)))
            .and_then(|_| caught("the start of a write", || self.reserve_in_next(keyspace, reservation)))
            .inspect_err(|error| tree.fail(error.clone()))
    }

    fn reserve_in_next(&mut self, keyspace: u32, reservation: &Reservation<'_>) -> Result<bool> {
        let active = self.writer(keyspace).and_then(|writer| writer.active.as_ref());
        // If the active memtable is empty, a new one would find no more memory.
        if active.is_some_and(|active| active.memtable.is_empty()) {
            return Ok(false);
        }
        self.begin(keyspace, self.last_sequence(), self.log_end())?;
        let active = self.writer(keyspace).and_then(|writer| writer.active.as_mut());
        Ok(active.is_some_and(|active| active.reserve(reservation)))
    }
}

impl WritePath {
    /// Reserves memory in a keyspace for the next record. Once the record is in the log, its insert must not fail. Fails
    /// if the system has no memory.
    #[inline]
    pub(crate) fn prepare(
        &self,
        committer: &mut Committer,
        keyspace: u32,
        reservation: &Reservation<'_>,
    ) -> Result<()> {
        if committer.take_reserved(keyspace, reservation) {
            return Ok(());
        }
        self.reserve(committer, keyspace, reservation)
    }

    #[cold]
    fn reserve(&self, committer: &mut Committer, keyspace: u32, reservation: &Reservation<'_>) -> Result<()> {
        if committer.reserve(keyspace, reservation)? {
            return Ok(());
        }
        let no_memory = std::io::ErrorKind::OutOfMemory.into();
        Err(Error::io("allocate memory for a write to", &self.resources.directory, no_memory))
    }
}
