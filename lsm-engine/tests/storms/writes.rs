use std::time::Duration;

use lsm_engine::{Durability, Error, Keyspace, Result, Ticket, WriteBatch};

use crate::random::Draw;
use crate::reads::Bytes;

use super::faults::WENT_ON;
use super::filter::MARKED;
use super::model::{Commit, Op, difference, same};
use super::world::{Faults, World, wants_memory};

/// Longer than the clock may be set ahead.
pub(super) const LONG: Duration = Duration::from_micros(u64::MAX / 2);

impl World {
    pub(super) fn keyspace(&self, number: usize) -> &Keyspace {
        self.spaces.iter().find(|space| space.number == number).unwrap().keyspace()
    }

    fn value(&mut self) -> Bytes {
        if self.gardener.is_some() && self.random.one_in(4) {
            return MARKED[self.random.below(MARKED.len())].to_vec();
        }
        self.random.value(self.value_bytes_max)
    }

    pub(super) fn operation(&mut self) -> Op {
        let number = self.spaces[self.random.below(self.spaces.len())].number;
        match self.random.below(14) {
            8 => Op::PutExpiring(number, self.random.key(), self.value()),
            9 if !self.sets_clock_back => Op::PutExpired(number, self.random.key(), self.value()),
            10 => Op::SingleDelete(number, self.random.key()),
            0 => {
                let (start, end) = self.random.range();
                Op::DeleteRange(number, start, end)
            }
            1 | 2 => Op::Delete(number, self.random.key()),
            3 | 4 => Op::Merge(number, self.random.key(), self.value()),
            _ => Op::Put(number, self.random.key(), self.value()),
        }
    }

    pub(super) fn write(&mut self) {
        let operations = match self.random.below(100) {
            // If a record may fail, use a batch, since a bug could restore a part of it.
            0..=44 if self.faults == Faults::Injected => 2 + self.random.below(6),
            0..=89 => 1,
            90..=98 => self.random.below(14),
            _ => self.random.below(200),
        };
        let commit: Commit = (0..operations).map(|_| self.operation()).collect();
        let durability = if self.random.one_in(6) { Durability::Sync } else { Durability::Buffered };
        let mut ticket = None;
        let result = match &*commit {
            _ if self.random.one_in(8) => {
                self.risking(|| self.submit(&commit)).map(|kept| ticket = Some(kept))
            }
            [op] => self.risking(|| self.write_one(op, durability)),
            _ => self.risking(|| self.write_batch(&commit, durability)),
        };
        if self.fs.crashed() {
            return self.recover(Some(commit), false);
        }
        // An empty batch writes no record, so it syncs nothing.
        let durable = durability == Durability::Sync && ticket.is_none() && !commit.is_empty();
        match result {
            Ok(()) => {
                if self.promises.doubtful_count() > 0 {
                    self.count(WENT_ON);
                }
                // The ticket of an empty batch says nothing about the writes before it.
                let ticket = ticket.filter(|_| !commit.is_empty());
                self.promises.commit(commit);
                if durable {
                    self.promises.all_durable();
                }
                if let Some(ticket) = ticket {
                    self.keep(ticket);
                }
            }
            Err(error) => self.write_failed(commit, &error),
        }
    }

    fn submit(&self, commit: &Commit) -> Result<Ticket> {
        match &**commit {
            [Op::Put(number, key, value)] => self.keyspace(*number).submit_put(key, value),
            [Op::Merge(number, key, operand)] => self.keyspace(*number).submit_merge(key, operand),
            [Op::Delete(number, key)] => self.keyspace(*number).submit_delete(key),
            [Op::SingleDelete(number, key)] => self.keyspace(*number).submit_single_delete(key),
            [Op::DeleteRange(number, start, end)] => {
                self.keyspace(*number).submit_delete_range(start.clone()..end.clone())
            }
            [Op::PutExpiring(number, key, value)] => {
                self.keyspace(*number).submit_put_expiring(key, value, LONG)
            }
            _ => self.db().submit(self.batch(commit)),
        }
    }

    fn write_one(&self, op: &Op, durability: Durability) -> Result<()> {
        match op {
            // Some do the same by reading first.
            Op::Put(number, key, value) if durability == Durability::Buffered && value.len() % 4 == 1 => {
                self.keyspace(*number).update(key, |_| Some(value)).map(drop)
            }
            Op::Delete(number, key)
                if durability == Durability::Buffered && key.last().is_some_and(|last| last % 4 == 1) =>
            {
                self.keyspace(*number).take(key).map(drop)
            }
            Op::Put(number, key, value) => self.keyspace(*number).put_with(key, value, durability),
            Op::Merge(number, key, operand) => self.keyspace(*number).merge_with(key, operand, durability),
            Op::Delete(number, key) => self.keyspace(*number).delete_with(key, durability),
            Op::DeleteRange(number, start, end) => {
                self.keyspace(*number).delete_range_with(start.clone()..end.clone(), durability)
            }
            Op::SingleDelete(number, key) => self.keyspace(*number).single_delete_with(key, durability),
            Op::PutExpiring(number, key, value) => {
                self.keyspace(*number).put_expiring_with(key, value, LONG, durability)
            }
            Op::Clear(number) => self.keyspace(*number).clear(),
            Op::PutExpired(..) => self.db().write_with(self.batch(&vec![op.clone()]), durability),
        }
    }

    fn write_batch(&self, commit: &Commit, durability: Durability) -> Result<()> {
        self.db().write_with(self.batch(commit), durability)
    }

    fn batch(&self, commit: &Commit) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for op in commit {
            match op {
                Op::Put(number, key, value) => batch.put_in(self.keyspace(*number), key, value),
                Op::Merge(number, key, operand) => batch.merge_in(self.keyspace(*number), key, operand),
                Op::PutExpiring(number, key, value) => {
                    batch.put_expiring_in(self.keyspace(*number), key, value, LONG)
                }
                Op::PutExpired(number, key, value) => {
                    batch.put_expiring_in(self.keyspace(*number), key, value, Duration::ZERO)
                }
                Op::SingleDelete(number, key) => batch.single_delete_in(self.keyspace(*number), key),
                Op::Delete(number, key) => batch.delete_in(self.keyspace(*number), key),
                Op::DeleteRange(number, start, end) => {
                    batch.delete_range_in(self.keyspace(*number), start.clone()..end.clone())
                }
                Op::Clear(_) => unreachable!("no batch clears"),
            };
        }
        batch
    }

    pub(super) fn clear(&mut self) {
        self.note("clear a keyspace");
        let op = Op::Clear(self.spaces[self.random.below(self.spaces.len())].number);
        let result = self.risking(|| self.write_one(&op, Durability::Sync));
        let commit = vec![op];
        if self.fs.crashed() {
            return self.recover(Some(commit), false);
        }
        match result {
            Ok(()) => {
                self.promises.commit(commit);
                self.promises.all_durable();
            }
            Err(error) => self.write_failed(commit, &error),
        }
    }

    /// Handles a failed write: readers see it or not. A crash may restore one that they do not see, since it may be in
    /// the log.
    pub(super) fn write_failed(&mut self, commit: Commit, error: &Error) {
        // These errors happen before the write is in the log.
        let wants_memory = wants_memory(error) || error.to_string().contains("allocate memory");
        assert!(wants_memory || self.faults != Faults::None, "a write fails for no reason: {error}");
        self.note(&format!("failed write: {error}"));
        self.heal();
        let found = self.state();
        let with = self.promises.with(&commit);
        if same(&found, self.promises.now()) {
            let crash = self.promises.doubtful_count() > 2 || self.random.one_in(2);
            match (wants_memory, crash) {
                (true, true) => self.reopen_somehow(),
                (true, false) => {} // Smaller ones may fit.
                (false, true) => {
                    let power = self.random.one_in(4);
                    self.promises.doubt(commit);
                    if !self.random.one_in(3) {
                        self.flush_all();
                    }
                    self.recover(None, power);
                }
                (false, false) => {
                    self.note("go on");
                    self.promises.doubt(commit);
                }
            }
        } else {
            assert!(
                same(&found, &with) && !wants_memory,
                "after {error}, differ{}",
                difference(&with, &found)
            );
            self.promises.commit(commit);
            self.reopen_somehow();
        }
    }

    /// After a failed write: a flush now must not make recovery skip a part of that write.
    fn flush_all(&mut self) {
        if self.db().flush().is_ok() && !self.fs.crashed() {
            self.promises.all_durable();
        }
        self.env.0.run_until_idle();
    }
}
