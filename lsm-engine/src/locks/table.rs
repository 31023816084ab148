//! The locks that are held and wanted, and who waits for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use lsm_core::Slice;
use lsm_core::env::Event;

use crate::read::KeyRange;

/// The number of a transaction.
pub(super) type Owner = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockMode {
    /// Others may lock the same for reading.
    Shared,
    /// Nobody else may lock the same.
    Exclusive,
}
use LockMode::Exclusive;

/// What can be locked.
#[derive(Clone, Debug)]
pub(crate) enum Lockable {
    Key(Slice),
    Range(KeyRange),
}

/// A lock, held or wanted.
#[derive(Clone, Debug)]
pub(super) struct Lock {
    pub(super) keyspace: u32,
    /// The name of the keyspace.
    pub(super) name: Arc<str>,
    pub(super) what: Lockable,
    pub(super) mode: LockMode,
}

/// The locks of all transactions of a database.
#[derive(Default)]
pub(super) struct LockTable {
    keyspaces: BTreeMap<u32, Held>,
    /// What each transaction holds.
    owners: BTreeMap<Owner, Vec<(u32, Lockable)>>,
    /// The requests that wait, in the order in which they came. A transaction waits for one lock at a time.
    waiting: Vec<Request>,
}

/// The held locks of one keyspace.
#[derive(Default)]
struct Held {
    /// The locks on single keys, one for each owner of a key.
    keys: BTreeMap<Slice, Vec<(Owner, LockMode)>>,
    ranges: Vec<(KeyRange, Owner, LockMode)>,
}

struct Request {
    owner: Owner,
    lock: Lock,
    /// Notified when the lock is granted.
    granted: Event,
}

/// One step of a deadlock: `waiter` waits for a lock that `holder` is in the way of.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) waiter: Owner,
    pub(super) lock: Lock,
    pub(super) holder: Owner,
}

impl Lockable {
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(one), Self::Key(other)) => one == other,
            (Self::Key(key), Self::Range(range)) | (Self::Range(range), Self::Key(key)) => {
                range.contains(key)
            }
            (Self::Range(one), Self::Range(other)) => one.overlaps(other),
        }
    }

    /// Memory that a held lock takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        // In the table and in the list of its owner.
        const OVERHEAD_BYTES: usize = 2 * size_of::<Lockable>() + 96;
        OVERHEAD_BYTES
            + match self {
                Self::Key(key) => key.len(),
                Self::Range(range) => range.start.len() + range.end.as_ref().map_or(0, |end| end.len()),
            }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Lockable::Key(key) => write!(f, "key \"{}\"", key.escape_ascii())?,
            Lockable::Range(range) => write!(f, "{range}")?,
        }
        write!(f, " of keyspace {:?}", self.name)
    }
}

impl Lock {
    fn is_in_the_way_of(&self, other: &Self) -> bool {
        self.keyspace == other.keyspace
            && (self.mode == Exclusive || other.mode == Exclusive)
            && self.what.overlaps(&other.what)
    }
}

impl Held {
    /// The locks that overlap, with their owners. An owner may occur more than once.
    fn overlapping<'h>(&'h self, what: &'h Lockable) -> impl Iterator<Item = (Owner, LockMode)> + 'h {
        let (lower, upper) = match what {
            Lockable::Key(key) => (Bound::Included(&**key), Bound::Included(&**key)),
            Lockable::Range(range) => (
                Bound::Included(&*range.start),
                range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
            ),
        };
        let is_empty = matches!((lower, upper), (Bound::Included(a), Bound::Excluded(b)) if a >= b);
        let keys = (!is_empty).then(|| self.keys.range::<[u8], _>((lower, upper))).into_iter().flatten();
        let ranges = self.ranges.iter().filter(move |(range, ..)| match what {
            Lockable::Key(key) => range.contains(key),
            Lockable::Range(other) => range.overlaps(other),
        });
        keys.flat_map(|(_, owners)| owners.iter().copied())
            .chain(ranges.map(|&(_, owner, mode)| (owner, mode)))
    }

    /// Whether the owner holds a lock that makes this one needless.
    fn covers(&self, owner: Owner, what: &Lockable, mode: LockMode) -> bool {
        let is_enough = |other: &(Owner, LockMode)| other.0 == owner && other.1 >= mode;
        let by_range =
            self.ranges.iter().filter(|(_, other, held)| is_enough(&(*other, *held))).any(|(range, ..)| {
                match what {
                    Lockable::Key(key) => range.contains(key),
                    Lockable::Range(other) => {
                        range.start <= other.start
                            && range
                                .end
                                .as_ref()
                                .is_none_or(|end| other.end.as_ref().is_some_and(|other| other <= end))
                    }
                }
            });
        by_range
            || match what {
                Lockable::Key(key) => self.keys.get(key).is_some_and(|owners| owners.iter().any(is_enough)),
                Lockable::Range(_) => false,
            }
    }
}

impl LockTable {
    /// Whether the owner holds the lock, or a stronger one.
    pub(super) fn holds(&self, owner: Owner, lock: &Lock) -> bool {
        self.keyspaces.get(&lock.keyspace).is_some_and(|held| held.covers(owner, &lock.what, lock.mode))
    }

    /// The owners of held locks that are in the way of a request.
    fn holders(&self, owner: Owner, lock: &Lock) -> BTreeSet<Owner> {
        let held = self.keyspaces.get(&lock.keyspace).into_iter();
        let overlapping = held.flat_map(|held| held.overlapping(&lock.what));
        let in_the_way = overlapping
            .filter(|&(other, mode)| other != owner && (mode == Exclusive || lock.mode == Exclusive));
        in_the_way.map(|(other, _)| other).collect()
    }

    /// The owners of requests before `position` in the queue that are in the way of a request.
    fn earlier<'l>(
        &'l self,
        position: usize,
        owner: Owner,
        lock: &'l Lock,
    ) -> impl Iterator<Item = Owner> + 'l {
        let earlier = self.waiting.iter().take(position);
        let in_the_way =
            earlier.filter(move |other| other.owner != owner && other.lock.is_in_the_way_of(lock));
        in_the_way.map(|other| other.owner)
    }

    /// Whether `from` waits for `to`, in any number of steps, for a held lock or for its turn.
    fn waits_for(&self, from: Owner, to: Owner) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(owner) = next.pop() {
            if owner == to {
                return true;
            }
            if seen.insert(owner)
                && let Some(position) = self.waiting.iter().position(|request| request.owner == owner)
                && let Some(Request { lock, .. }) = self.waiting.get(position)
            {
                next.extend(self.holders(owner, lock));
                next.extend(self.earlier(position, owner, lock));
            }
        }
        false
    }

    /// Whether a request at `position` in the queue has to wait. It passes earlier ones that wait for its own owner:
    /// otherwise both would wait forever, although no lock is in the way.
    fn must_wait(&self, position: usize, owner: Owner, lock: &Lock) -> bool {
        !self.holders(owner, lock).is_empty()
            || self.earlier(position, owner, lock).any(|other| !self.waits_for(other, owner))
    }

    /// Takes the lock if nothing is in the way.
    pub(super) fn try_lock(&mut self, owner: Owner, lock: &Lock) -> bool {
        let is_free = !self.must_wait(self.waiting.len(), owner, lock);
        if is_free {
            self.grant(owner, lock);
        }
        is_free
    }

    /// Joins the queue. Fails with the cycle if that makes a deadlock; the request is then not in the queue.
    pub(super) fn wait(&mut self, owner: Owner, lock: &Lock) -> Result<Event, Vec<Edge>> {
        let granted = Event::new();
        self.waiting.push(Request { owner, lock: lock.clone(), granted: granted.clone() });
        // Those whose turn comes only after that of this request may go first now.
        self.grant_waiting();
        match self.cycle(owner) {
            Some(cycle) => {
                self.give_up(owner);
                Err(cycle)
            }
            None => Ok(granted),
        }
    }

    /// The cycle of held locks that `owner` waits in. Waiting for a turn makes no deadlock; see
    /// [`must_wait`](Self::must_wait).
    fn cycle(&self, owner: Owner) -> Option<Vec<Edge>> {
        let mut seen = BTreeSet::new();
        let mut path = Vec::new();
        self.search(owner, owner, &mut seen, &mut path).then_some(path)
    }

    fn search(&self, from: Owner, to: Owner, seen: &mut BTreeSet<Owner>, path: &mut Vec<Edge>) -> bool {
        let Some(request) = self.waiting.iter().find(|request| request.owner == from) else { return false };
        for holder in self.holders(from, &request.lock) {
            path.push(Edge { waiter: from, lock: request.lock.clone(), holder });
            if holder == to || (seen.insert(holder) && self.search(holder, to, seen, path)) {
                return true;
            }
            path.pop();
        }
        false
    }

    /// Leaves the queue without the lock. Returns the owners that are in the way.
    pub(super) fn give_up(&mut self, owner: Owner) -> Vec<Owner> {
        let Some(position) = self.waiting.iter().position(|request| request.owner == owner) else {
            return Vec::new();
        };
        let request = self.waiting.remove(position);
        let holders = self.holders(owner, &request.lock).into_iter();
        let in_the_way = holders.chain(self.earlier(position, owner, &request.lock)).collect();
        self.grant_waiting();
        in_the_way
    }

    pub(super) fn is_waiting(&self, owner: Owner) -> bool {
        self.waiting.iter().any(|request| request.owner == owner)
    }

    /// Releases all locks of an owner.
    pub(super) fn release(&mut self, owner: Owner) {
        for (keyspace, what) in self.owners.remove(&owner).unwrap_or_default() {
            let Some(held) = self.keyspaces.get_mut(&keyspace) else { continue };
            match what {
                Lockable::Key(key) => {
                    if let Some(owners) = held.keys.get_mut(&key) {
                        owners.retain(|(other, _)| *other != owner);
                        if owners.is_empty() {
                            held.keys.remove(&key);
                        }
                    }
                }
                Lockable::Range(_) => held.ranges.retain(|(_, other, _)| *other != owner),
            }
            if held.keys.is_empty() && held.ranges.is_empty() {
                self.keyspaces.remove(&keyspace);
            }
        }
        self.grant_waiting();
    }

    /// Wakes all who wait.
    pub(super) fn wake_all(&self) {
        for request in &self.waiting {
            request.granted.notify();
        }
    }

    fn grant_waiting(&mut self) {
        let mut position = 0;
        while let Some(request) = self.waiting.get(position) {
            if self.must_wait(position, request.owner, &request.lock) {
                position += 1;
                continue;
            }
            let Request { owner, lock, granted } = self.waiting.remove(position);
            self.grant(owner, &lock);
            granted.notify();
            // Those before it may have waited for their turn behind others only.
            position = 0;
        }
    }

    fn grant(&mut self, owner: Owner, lock: &Lock) {
        let held = self.keyspaces.entry(lock.keyspace).or_default();
        match &lock.what {
            Lockable::Key(key) => {
                let owners = held.keys.entry(key.clone()).or_default();
                if let Some((_, mode)) = owners.iter_mut().find(|(other, _)| *other == owner) {
                    *mode = lock.mode.max(*mode);
                    return;
                }
                owners.push((owner, lock.mode));
            }
            Lockable::Range(range) => held.ranges.push((range.clone(), owner, lock.mode)),
        }
        self.owners.entry(owner).or_default().push((lock.keyspace, lock.what.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockMode::Shared;

    fn key(name: &str, mode: LockMode) -> Lock {
        Lock { keyspace: 0, name: "default".into(), what: Lockable::Key(name.into()), mode }
    }

    fn range(start: &str, end: &str, mode: LockMode) -> Lock {
        let range = KeyRange { start: start.into(), end: Some(end.into()) };
        Lock { keyspace: 0, name: "default".into(), what: Lockable::Range(range), mode }
    }

    fn waiting(table: &LockTable) -> Vec<Owner> {
        table.waiting.iter().map(|request| request.owner).collect()
    }

    #[test]
    fn readers_share_and_writers_exclude_keys_and_ranges() {
        let mut table = LockTable::default();
        assert!(table.try_lock(1, &key("a", Shared)) && table.try_lock(2, &key("a", Shared)));
        assert!(!table.try_lock(3, &key("a", Exclusive)) && !table.try_lock(3, &range("a", "b", Exclusive)));
        assert!(
            table.try_lock(3, &range("a", "c", Shared)) && table.try_lock(3, &range("c", "e", Exclusive))
        );
        assert!(!table.try_lock(1, &key("c", Shared)) && table.try_lock(1, &key("e", Exclusive)));
        assert!(!table.try_lock(1, &key("b", Exclusive)) && !table.try_lock(1, &range("b", "z", Exclusive)));
        assert!(!table.try_lock(2, &range("d", "f", Shared)) && table.try_lock(2, &key("b", Shared)));
        let elsewhere = Lock { keyspace: 1, ..key("c", Exclusive) };
        assert!(table.try_lock(1, &elsewhere));
        table.release(3);
        assert!(table.try_lock(1, &key("c", Shared)) && table.holds(1, &key("c", Shared)));
        for owner in [1, 2] {
            table.release(owner);
        }
        assert!(table.keyspaces.is_empty() && table.owners.is_empty());
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken_again() {
        let mut table = LockTable::default();
        table.try_lock(1, &range("a", "f", Exclusive));
        assert!(table.holds(1, &key("a", Exclusive)) && table.holds(1, &range("b", "f", Shared)));
        assert!(!table.holds(1, &key("f", Shared)) && !table.holds(1, &range("b", "g", Shared)));
        table.try_lock(1, &key("x", Shared));
        assert!(!table.holds(1, &key("x", Exclusive)) && !table.holds(2, &key("x", Shared)));
    }

    #[test]
    fn the_queue_is_fair() {
        let mut table = LockTable::default();
        table.try_lock(1, &key("a", Shared));
        table.wait(2, &key("a", Exclusive)).unwrap();
        // A later reader does not pass the writer, but does elsewhere.
        assert!(!table.try_lock(3, &key("a", Shared)) && table.try_lock(3, &key("b", Shared)));
        table.wait(3, &range("a", "b", Shared)).unwrap();
        table.wait(4, &key("a", Shared)).unwrap();
        table.release(1);
        assert_eq!(waiting(&table), [3, 4]);
        table.release(2);
        assert_eq!(waiting(&table), []);
    }

    #[test]
    fn a_writer_that_gives_up_lets_the_readers_behind_it_go() {
        let mut table = LockTable::default();
        table.try_lock(1, &key("a", Shared));
        table.wait(2, &key("a", Exclusive)).unwrap();
        table.wait(3, &key("a", Shared)).unwrap();
        assert_eq!(table.give_up(2), [1]);
        assert!(!table.is_waiting(3) && table.holds(3, &key("a", Shared)));
    }

    #[test]
    fn the_only_reader_becomes_a_writer_although_others_wait() {
        let mut table = LockTable::default();
        table.try_lock(1, &key("a", Shared));
        table.wait(2, &key("a", Exclusive)).unwrap();
        assert!(table.try_lock(1, &key("a", Exclusive)), "the other waits for this one");
        table.release(1);
        assert!(table.holds(2, &key("a", Exclusive)));
    }

    #[test]
    fn two_readers_that_become_writers_are_a_deadlock() {
        let mut table = LockTable::default();
        table.try_lock(1, &key("a", Shared));
        table.try_lock(2, &key("a", Shared));
        table.wait(1, &key("a", Exclusive)).unwrap();
        let cycle = table.wait(2, &key("a", Exclusive)).unwrap_err();
        assert_eq!(cycle.iter().map(|edge| (edge.waiter, edge.holder)).collect::<Vec<_>>(), [(2, 1), (1, 2)]);
        assert_eq!(waiting(&table), [1]);
        table.release(2);
        assert!(table.holds(1, &key("a", Exclusive)));
    }

    #[test]
    fn a_cycle_of_three_is_found_with_all_its_locks() {
        let mut table = LockTable::default();
        for (owner, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            table.try_lock(owner, &key(name, Exclusive));
        }
        table.wait(1, &key("b", Shared)).unwrap();
        table.wait(4, &key("a", Shared)).unwrap();
        table.wait(2, &range("c", "d", Exclusive)).unwrap();
        let cycle = table.wait(3, &key("a", Exclusive)).unwrap_err();
        let steps: Vec<_> =
            cycle.iter().map(|edge| (edge.waiter, edge.lock.to_string(), edge.holder)).collect();
        assert_eq!(
            steps,
            [
                (3, "key \"a\" of keyspace \"default\"".to_owned(), 1),
                (1, "key \"b\" of keyspace \"default\"".to_owned(), 2),
                (2, "the range from \"c\" up to \"d\" of keyspace \"default\"".to_owned(), 3),
            ]
        );
    }

    /// Transaction 3 waits for its turn behind 2, which waits for 1. When 1 then needs what 3 holds, no lock is in the way
    /// of 3: it is let past 2.
    #[test]
    fn waiting_for_a_turn_alone_is_no_deadlock() {
        let mut table = LockTable::default();
        table.try_lock(1, &key("a", Shared));
        table.try_lock(3, &key("b", Exclusive));
        table.wait(2, &key("a", Exclusive)).unwrap();
        table.wait(3, &key("a", Shared)).unwrap();
        table.wait(1, &key("b", Shared)).unwrap();
        assert_eq!(waiting(&table), [2, 1]);
        table.release(3);
        assert_eq!(waiting(&table), [2]);
        table.release(1);
        assert_eq!(waiting(&table), []);
    }
}
