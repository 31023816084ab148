//! What a load is.

use std::thread;
use std::time::Duration;

use lsm_dev::Random;
use lsm_engine::{Db, Keyspace, Slice};

/// One kind of use, in a thread of its own.
pub(crate) trait Load: Send {
    /// Does a few operations. Panics if a read does not give what was written.
    fn step(&mut self, db: &Db, random: &mut Random);

    /// The last step was done: lets go of what it holds.
    fn stopped(&mut self) {}

    /// Panics if `db` does not hold what this load has written. No load runs meanwhile.
    fn check(&self, db: &Db);

    /// What it did, in one line.
    fn report(&self) -> String;
}

/// A keyspace that must be there.
pub(crate) fn keyspace(db: &Db, name: &str) -> Keyspace {
    db.existing_keyspace(name).unwrap().unwrap_or_else(|| panic!("there is no keyspace {name}"))
}

/// Whether these are the same entries.
pub(crate) fn equal<'m>(
    mut found: impl Iterator<Item = (Slice, Slice)>,
    mut expected: impl Iterator<Item = (&'m Vec<u8>, &'m Vec<u8>)>,
) -> bool {
    loop {
        match (found.next(), expected.next()) {
            (None, None) => return true,
            (Some(found), Some(expected)) if found.0 == expected.0 && found.1 == expected.1 => {}
            _ => return false,
        }
    }
}

/// Lets the other loads work.
pub(crate) fn pause() {
    thread::sleep(Duration::from_millis(50));
}

/// `count` bytes that do not shrink by compression.
pub(crate) fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    let mut value: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    value.truncate(count);
    value
}
