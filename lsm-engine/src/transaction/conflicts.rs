//! The commit: looks for conflicts, and writes if there are none.
//!
//! A key or range that the transaction depends on conflicts if a newer version or range delete is there. So plain writes
//! count by themselves, and no list of past commits is needed. Almost all of the search happens outside the commit lock;
//! under it, only what became visible meanwhile is searched, and only in memory.

use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_wal::Durability;

use super::state::{Part, State};
use crate::batch::WriteBatch;
use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::read::{Change, Changes, KeyRange};
use crate::write::{RangeWatch, WritePath, Written};

/// After this many searches that a flush made useless, tables are read under the commit lock.
pub(super) const SEARCHES_MAX: u32 = 4;

/// What asks memtables and filters of users.
pub(super) const SEARCH: &str = "the search for conflicts of a transaction";

/// Where to search.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Memory,
    Everywhere,
}

/// What a search found.
enum Found {
    Nothing,
    Change(KeyRange, SequenceNumber),
    /// A table would have to be read.
    Unknown,
}

/// Commits the writes of a transaction.
///
/// Ranges are not searched under the lock, since that takes a time that grows with what is in them: they are watched from
/// before the search outside the lock, and it is enough to ask the watch.
pub(super) fn commit(path: &WritePath, state: &mut State, batch: &mut WriteBatch) -> Result<Written> {
    let payload = batch.finish()?;
    state.check_keyspaces()?;
    state.check_old_walks(path)?;
    let start = state.snapshot.sequence();
    let ranges = state.ranges();
    let watch = (!ranges.is_empty()).then(|| path.committer.lock().watch(ranges));
    let (mut checked, mut searches) = (start, 0);
    loop {
        // Load the number first: each write up to it is then in the states that are searched.
        let visible = path.visibility.sequence();
        if visible > checked {
            state.check(checked)?;
            checked = visible;
        }
        searches += 1;
        let search = if searches > SEARCHES_MAX { Where::Everywhere } else { Where::Memory };
        let mut is_stale = false;
        let written = path.write_batch_checked(payload, Durability::Buffered, || {
            // A drop of a keyspace has no number.
            state.check_keyspaces()?;
            if path.visibility.sequence() == checked {
                return Ok(());
            }
            state.check_watch(watch.as_deref(), checked)?;
            is_stale = state.search(checked, search)?;
            if is_stale { Err(Error::invalid("tables changed")) } else { Ok(()) }
        });
        if !is_stale {
            return written;
        }
    }
}

impl State {
    /// Fails if something that the transaction depends on was changed after `after`.
    pub(super) fn check(&mut self, after: SequenceNumber) -> Result<()> {
        self.search(after, Where::Everywhere).map(|_| ())
    }

    fn check_keyspaces(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.tree.check_usable())
    }

    /// The ranges that the transaction depends on, with their keyspaces.
    fn ranges(&mut self) -> Vec<(u32, KeyRange)> {
        let of_part = |part: &mut Part| {
            let id = part.tree.id;
            let ranges: Vec<_> = part.ranges().map(|range| (id, range)).collect();
            ranges
        };
        self.parts.iter_mut().flat_map(of_part).collect()
    }

    /// Fails if a write went into a range since it is watched, or if tables were dropped.
    fn check_watch(&mut self, watch: Option<&RangeWatch>, checked: SequenceNumber) -> Result<()> {
        let Some(watch) = watch else { return Ok(()) };
        for part in &mut self.parts {
            let untraced = Changes::new(&part.tree.load(), checked).untraced();
            let range = part.ranges().next();
            if let (Some(sequence), Some(range)) = (untraced, range) {
                return Err(conflict(&part.tree.name, &range, sequence));
            }
        }
        let Some(hit) = watch.hit() else { return Ok(()) };
        let part = self.parts.iter().find(|part| part.tree.id == hit.keyspace);
        let name = part.map(|part| Arc::clone(&part.tree.name)).unwrap_or_default();
        Err(conflict(&name, &hit.range, hit.sequence))
    }

    /// Like [`check`](Self::check). Returns `true` if a table would have to be read.
    fn search(&mut self, after: SequenceNumber, place: Where) -> Result<bool> {
        let mut is_unknown = false;
        for part in &mut self.parts {
            match caught(SEARCH, || part.search(after, place))? {
                Found::Nothing => {}
                Found::Change(what, sequence) => return Err(conflict(&part.tree.name, &what, sequence)),
                Found::Unknown => is_unknown = true,
            }
        }
        // Without the snapshot, compactions may have taken the number of a later version.
        self.snapshot.check()?;
        Ok(is_unknown)
    }

    /// Checks what was read at older snapshots than the current one, and adds it to what is checked from now on.
    fn check_old_walks(&mut self, path: &WritePath) -> Result<()> {
        let old: Vec<_> = self.old_walks.drain(..).chain(self.walks.take()).collect();
        for walk in old {
            if path.visibility.sequence() > walk.snapshot.sequence() {
                self.check_range(walk.part, &walk.range, walk.snapshot.sequence())?;
                walk.snapshot.check()?;
            }
            self.track_range(walk.part, walk.range);
        }
        Ok(())
    }

    /// Fails if a range was changed after `after`.
    pub(super) fn check_range(&self, part: usize, range: &KeyRange, after: SequenceNumber) -> Result<()> {
        let Some(part) = self.parts.get(part) else { return Ok(()) };
        let state = part.tree.load_full();
        match caught(SEARCH, || Changes::new(&state, after).of_range(&range.bounds()))? {
            None => Ok(()),
            Some(sequence) => Err(conflict(&part.tree.name, range, sequence)),
        }
    }
}

impl Part {
    /// The ranges that were read or deleted.
    fn ranges(&mut self) -> impl Iterator<Item = KeyRange> + use<'_> {
        let (_, ranges) = self.tracked.settled();
        let deleted = self.writes.deleted();
        let deleted = deleted.map(|(start, end)| KeyRange { start: start.clone(), end: Some(end.clone()) });
        ranges.iter().cloned().chain(deleted)
    }

    fn search(&mut self, after: SequenceNumber, place: Where) -> Result<Found> {
        let state = self.tree.load();
        let changes = Changes::new(&state, after);
        let mut is_unknown = false;
        let (keys, _) = self.tracked.settled();
        // Merges do not depend on what others write: their operands add up.
        let written = self.writes.writes().filter(|(_, write)| !write.is_merge()).map(|(key, _)| key);
        for key in keys.iter().chain(written) {
            let change = match place {
                Where::Memory => changes.of_key_in_memory(key),
                Where::Everywhere => changes.of_key(key)?.map_or(Change::None, Change::At),
            };
            match change {
                Change::None => {}
                Change::At(sequence) => return Ok(Found::Change(KeyRange::of_key(key), sequence)),
                Change::Unknown => is_unknown = true,
            }
        }
        // Ranges are watched instead.
        if place == Where::Everywhere {
            for range in self.ranges() {
                if let Some(sequence) = changes.of_range(&range.bounds())? {
                    return Ok(Found::Change(range, sequence));
                }
            }
        }
        Ok(if is_unknown { Found::Unknown } else { Found::Nothing })
    }
}

#[cold]
pub(super) fn conflict(keyspace: &str, what: &KeyRange, sequence: SequenceNumber) -> Error {
    Error::Conflict(
        format!(
            "{what} of keyspace {keyspace:?} was changed by another write, number {sequence}, after the transaction \
             began; repeat the transaction"
        )
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use super::*;
    use crate::Options;
    use crate::memory::TransactionCharge;
    use crate::transaction::state::Limits;

    #[test]
    fn a_write_between_the_search_and_the_commit_is_noticed_in_a_range() {
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        let limits = Limits { written_bytes_max: 1 << 20, tracked_bytes_max: 1 << 20 };
        let mut state = State::new(
            Arc::new(db.snapshot().unwrap()),
            limits,
            TransactionCharge::new(&db.database.resources.memory),
            None,
        );
        let part = state.part(&db.default.tree());
        state.track_range(part, KeyRange { start: "b".into(), end: Some("d".into()) });
        let path = db.database.write_path().unwrap();
        let ranges = state.ranges();
        let watch = path.committer.lock().watch(ranges);
        let checked = path.visibility.sequence();
        state.check(checked).unwrap();
        db.put("a", "").unwrap();
        state.check_watch(Some(&watch), checked).unwrap();
        db.put("c", "").unwrap();
        let error = state.check_watch(Some(&watch), checked).unwrap_err().to_string();
        assert!(error.starts_with("the range from \"b\" up to \"d\" of keyspace \"default\""), "{error}");
        drop((state, db));
        env.drop_jobs();
    }
}
