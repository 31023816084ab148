//! Transactions that live for a while beside other writers, crashes, flushes and compactions.

use std::collections::BTreeSet;
use std::time::Duration;

use lsm_engine::vfs::OperationKind::{Read, Write};
use lsm_engine::{Error, ErrorKind, Isolation, Result, Savepoint, Transaction, TransactionOptions};

use crate::random::Draw;
use crate::reads::{Bytes, Model, rows};

use super::faults::Files::{Log, Tables};
use super::model::{Commit, Op, State, entries, normalized, with};
use super::world::{Faults, World, wants_memory};
use super::writes::LONG;

/// What must happen to transactions in the default seeds.
const COMMITTED: &str = "a commit of a transaction";
const NOTHING_TO_COMMIT: &str = "a commit without writes";
const CONFLICT: &str = "a conflict";
const LOCK_TIMEOUT: &str = "a lock timeout";
const LATER_SNAPSHOT: &str = "a lock that moves the snapshot";
const ROLLED_BACK: &str = "a rollback to a savepoint";
const DROPPED: &str = "a commit after the drop of its keyspace";
const OUTLIVED: &str = "a transaction that outlives its database";
const FAILED_READ: &str = "a commit with a read that fails";
const FAILED_APPEND: &str = "a commit with an append that fails";
const EXPIRED: &str = "a snapshot that expires";

pub(super) const EVENTS: [&str; 11] = [
    COMMITTED,
    NOTHING_TO_COMMIT,
    CONFLICT,
    LOCK_TIMEOUT,
    LATER_SNAPSHOT,
    ROLLED_BACK,
    DROPPED,
    OUTLIVED,
    FAILED_READ,
    FAILED_APPEND,
    EXPIRED,
];

/// An open transaction, and what is known of it.
pub(super) struct Live {
    transaction: Transaction,
    savepoints: Vec<(Savepoint, usize)>,
    known: Known,
}

/// A part of a keyspace: its number, a key, and an exclusive end.
type Part = (usize, Bytes, Bytes);

struct Known {
    options: TransactionOptions,
    /// What its snapshot sees, and the number of that.
    base: State,
    sequence: u64,
    /// Its writes so far.
    writes: Commit,
    /// What it has read so that others must not change it until the commit.
    reads: Vec<Part>,
    /// The keyspaces that it has used.
    used: BTreeSet<usize>,
    /// Number of commits when it began, and of calls that had failed.
    begun: (usize, u64),
}

impl Known {
    /// What it reads: its snapshot, and its own writes.
    fn view(&self) -> State {
        with(&self.base, &self.writes)
    }

    fn is_serializable(&self) -> bool {
        self.options.isolation == Isolation::Serializable
    }

    /// What others must not have changed: what it has read, and the keys and ranges that it writes.
    fn depends_on(&self) -> Vec<Part> {
        let written = self.writes.iter().filter_map(|op| match op {
            // Operands add up whatever others write.
            Op::Merge(..) | Op::Clear(_) => None,
            Op::DeleteRange(number, start, end) => Some((*number, start.clone(), end.clone())),
            Op::Put(number, key, _)
            | Op::PutExpiring(number, key, _)
            | Op::PutExpired(number, key, _)
            | Op::SingleDelete(number, key)
            | Op::Delete(number, key) => Some(of_key(*number, key)),
        });
        self.reads.iter().cloned().chain(written).collect()
    }
}

fn of_key(number: usize, key: &Bytes) -> Part {
    (number, key.clone(), [&key[..], &[0]].concat())
}

fn part(state: &State, (number, start, end): &Part) -> Model {
    let model = entries(state, *number).iter();
    let inside = model.filter(|(key, _)| *key >= start && *key < end);
    normalized(&inside.map(|(key, value)| (key.clone(), value.clone())).collect())
}

impl World {
    /// Begins, goes on with, or ends a transaction.
    pub(super) fn transact(&mut self) {
        match self.random.below(10) {
            0..=2 if self.transactions.len() < 4 => {
                self.begin_transaction();
                let live = self.transactions.pop();
                self.go_on_with(live);
            }
            // All at once, so that few are in the way.
            3 | 4 => {
                self.begin_transaction();
                let live = self.transactions.pop();
                self.go_on_with(live);
                let live = self.transactions.pop();
                self.commit(live);
            }
            5 => {
                let live = self.take_any();
                self.commit(live);
            }
            6 => drop(self.take_any()),
            _ => {
                let live = self.take_any();
                self.go_on_with(live);
            }
        }
    }

    /// Makes a few calls of a transaction.
    fn go_on_with(&mut self, live: Option<Live>) {
        let Some(mut live) = live else { return };
        for _ in 0..=self.random.below(6) {
            if !self.go_on(&mut live) || self.fs.crashed() {
                return;
            }
        }
        self.transactions.push(live);
    }

    fn take_any(&mut self) -> Option<Live> {
        let count = self.transactions.len();
        (count > 0).then(|| self.transactions.swap_remove(self.random.below(count)))
    }

    fn begin_transaction(&mut self) {
        let options = TransactionOptions {
            isolation: if self.random.one_in(3) { Isolation::Snapshot } else { Isolation::Serializable },
            locks: self.random.one_in(3).then(|| Duration::from_micros(self.random.next() % 3000)),
        };
        let transaction = self.db().transaction_with(options).unwrap();
        let known = Known {
            options,
            base: self.promises.now().clone(),
            sequence: transaction.sequence(),
            writes: Commit::new(),
            reads: Vec::new(),
            used: BTreeSet::new(),
            begun: (self.promises.count(), self.fired()),
        };
        self.transactions.push(Live { transaction, savepoints: Vec::new(), known });
    }

    /// Reads or writes. Returns `false` if the transaction must end.
    fn go_on(&mut self, live: &mut Live) -> bool {
        let number = self.spaces[self.random.below(self.spaces.len())].number;
        live.known.used.insert(number);
        let result = match self.random.below(12) {
            0..=2 => self.read_key(live, number),
            3 => self.read_range(live, number),
            4 => {
                live.savepoints.push((live.transaction.savepoint(), live.known.writes.len()));
                Ok(())
            }
            5 if !live.savepoints.is_empty() => {
                let index = self.random.below(live.savepoints.len());
                live.savepoints.truncate(index + 1);
                let (savepoint, length) = &live.savepoints[index];
                live.transaction.rollback_to(savepoint).unwrap();
                live.known.writes.truncate(*length);
                self.count(ROLLED_BACK);
                Ok(())
            }
            _ => self.write_own(live),
        };
        self.look_at_the_snapshot(live);
        let Err(error) = result else { return true };
        if self.fs.crashed() {
            return false;
        }
        match error.kind() {
            ErrorKind::LockTimeout => {
                let takes_locks = |known: &Known| known.options.locks.is_some();
                assert!(takes_locks(&live.known), "{error}");
                assert!(self.transactions.iter().any(|other| takes_locks(&other.known)), "{error}");
                self.count(LOCK_TIMEOUT);
                true
            }
            // What was locked now has changed.
            ErrorKind::Conflict => {
                assert!(live.known.options.locks.is_some(), "{error}");
                self.check_conflict(&live.known, &error);
                false
            }
            ErrorKind::SnapshotExpired => {
                self.note_expired(&error);
                false
            }
            _ => {
                let is_for_memory = wants_memory(&error);
                assert!(is_for_memory || self.may_fail(), "a transaction fails for no reason: {error}");
                true
            }
        }
    }

    /// A lock may have moved the snapshot to the present.
    fn look_at_the_snapshot(&mut self, live: &mut Live) {
        if live.transaction.sequence() != live.known.sequence {
            assert!(live.known.options.locks.is_some(), "a snapshot moves without locks");
            live.known.sequence = live.transaction.sequence();
            live.known.base = self.promises.now().clone();
            self.count(LATER_SNAPSHOT);
        }
    }

    fn read_key(&mut self, live: &mut Live, number: usize) -> Result<()> {
        let (key, how) = (self.random.key(), self.random.below(3));
        let (keyspace, transaction) = (self.keyspace(number), &live.transaction);
        let found = match how {
            0 => transaction.untracked().get_in(keyspace, &key),
            1 => transaction.get_for_update_in(keyspace, &key),
            _ => transaction.get_in(keyspace, &key),
        }?;
        self.look_at_the_snapshot(live);
        let what = of_key(number, &key);
        let found = Model::from_iter(found.map(|value| (key, value.to_vec())));
        assert_eq!(normalized(&found), part(&live.known.view(), &what));
        if how == 1 || how == 2 && live.known.is_serializable() {
            live.known.reads.push(what);
        }
        Ok(())
    }

    fn read_range(&mut self, live: &mut Live, number: usize) -> Result<()> {
        let (start, end) = self.random.range();
        let (backward, untracked) = (self.random.one_in(2), self.random.one_in(3));
        let (keyspace, range) = (self.keyspace(number), start.clone()..end.clone());
        let transaction = &live.transaction;
        let iter = if untracked {
            transaction.untracked().range_in(keyspace, range)
        } else {
            transaction.range_in(keyspace, range)
        };
        let mut found = if backward { rows(iter.rev()) } else { rows(iter) }?;
        self.look_at_the_snapshot(live);
        if backward {
            found.reverse();
        }
        assert!(found.is_sorted());
        let what = (number, start, end);
        assert_eq!(normalized(&found.into_iter().collect()), part(&live.known.view(), &what));
        if !untracked && live.known.is_serializable() {
            live.known.reads.push(what);
        }
        Ok(())
    }

    fn write_own(&mut self, live: &mut Live) -> Result<()> {
        let op = match self.operation() {
            // The time until it expires counts from the commit, so the transaction itself would see the value.
            Op::PutExpired(number, key, value) => Op::Put(number, key, value),
            op => op,
        };
        live.known.used.insert(op.keyspace());
        let (keyspace, transaction) = (self.keyspace(op.keyspace()), &live.transaction);
        self.risking(|| match &op {
            Op::Put(_, key, value) => transaction.put_in(keyspace, key, value),
            Op::Merge(_, key, operand) => transaction.merge_in(keyspace, key, operand),
            Op::PutExpiring(_, key, value) => transaction.put_expiring_in(keyspace, key, value, LONG),
            Op::SingleDelete(_, key) => transaction.single_delete_in(keyspace, key),
            Op::Delete(_, key) => transaction.delete_in(keyspace, key),
            Op::DeleteRange(_, start, end) => {
                transaction.delete_range_in(keyspace, start.clone()..end.clone())
            }
            Op::PutExpired(..) | Op::Clear(_) => unreachable!("no transaction does that"),
        })?;
        live.known.writes.push(op);
        Ok(())
    }

    fn commit(&mut self, live: Option<Live>) {
        let Some(Live { transaction, mut known, .. }) = live else { return };
        known.writes.retain(|op| !matches!(op, Op::DeleteRange(_, start, end) if start == end));
        // Here reads and appends fail that have few other occasions to.
        match self.random.below(8) {
            0 => self.inject((Read, Tables)),
            1 => self.inject((Write, Log)),
            _ => {}
        }
        self.note("commit a transaction");
        let fired = |world: &Self| (world.fired_of((Read, Tables)), world.fired_of((Write, Log)));
        let (reads, appends) = fired(self);
        let result = self.risking(|| transaction.commit());
        if fired(self).0 > reads {
            self.count(FAILED_READ);
        }
        if fired(self).1 > appends {
            self.count(FAILED_APPEND);
        }
        if self.fs.crashed() {
            return self.recover(Some(known.writes), false);
        }
        match result {
            Ok(_) if known.writes.is_empty() => self.count(NOTHING_TO_COMMIT),
            Ok(ticket) => {
                for what in known.depends_on() {
                    let (then, now) = (part(&known.base, &what), part(self.promises.now(), &what));
                    assert_eq!(now, then, "a commit although {what:?} was changed; {:?}", known.options);
                }
                self.promises.commit(known.writes);
                self.keep(ticket);
                self.count(COMMITTED);
            }
            Err(error) => self.commit_failed(known, &error),
        }
    }

    fn commit_failed(&mut self, known: Known, error: &Error) {
        let lives = |number: &usize| self.spaces.iter().any(|space| space.number == *number);
        match error.kind() {
            ErrorKind::Conflict => self.check_conflict(&known, error),
            ErrorKind::SnapshotExpired => self.note_expired(error),
            ErrorKind::Closed => {
                assert!(!known.used.iter().all(lives), "no keyspace was dropped: {error}");
                self.count(DROPPED);
            }
            _ => return self.write_failed(known.writes, error),
        }
        // Nothing is half done.
        if self.faults == Faults::None && self.random.one_in(4) {
            self.check_state("after a commit that was refused");
        }
    }

    /// Nobody is in conflict with itself.
    fn check_conflict(&mut self, known: &Known, error: &Error) {
        // What filters change, and what failed, has sequence numbers, too.
        let is_alone = known.begun == (self.promises.count(), self.fired());
        assert!(
            !is_alone || self.gardener.is_some() || self.faults != Faults::None,
            "nobody else wrote: {error}"
        );
        self.count(CONFLICT);
    }

    pub(super) fn note_expired(&mut self, error: &Error) {
        assert!(self.snapshots_expire && error.kind() == ErrorKind::SnapshotExpired, "{error}");
        self.count(EXPIRED);
    }

    /// Transactions of a database that was closed: each call fails, and nothing is written.
    pub(super) fn check_closed_transactions(&mut self) {
        for Live { transaction, known, .. } in std::mem::take(&mut self.transactions) {
            let closed = |result: Result<()>| {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            };
            closed(transaction.put("after", "the end"));
            closed(transaction.merge("after", "the end"));
            closed(transaction.delete_range("a".."b"));
            if known.writes.is_empty() || self.random.one_in(2) {
                closed(transaction.commit().map(drop));
                self.count(OUTLIVED);
            }
        }
    }
}
