//! The leases of followers, as the owner of the database sees them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::env::Env;
use lsm_core::vfs::Vfs;
use parking_lot::Mutex;

use super::files::LEASE_SLOT_COUNT;
use super::lease::{EditPosition, Lease};
use crate::options::LEASE_MICROS_MAX;

/// The leases of followers. The owner looks at them before it removes obsolete files or a part of the log, and at no
/// other time.
pub(crate) struct Leases {
    vfs: Arc<dyn Vfs>,
    env: Arc<dyn Env>,
    directory: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    slots: BTreeMap<u8, Slot>,
    /// The last edit.
    edits: EditPosition,
}

/// A lease, as it was when it was looked at last.
struct Slot {
    bytes: Vec<u8>,
    /// It lives up to this time of the monotonic clock, unless it changes.
    until_micros: u64,
}

/// What followers need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Files that were removed by edits after this one; `None` if there is no follower.
    pub(crate) edits: Option<EditPosition>,
    /// The log from this position on, if any of it.
    pub(crate) log: Option<u64>,
    /// Number of followers.
    pub(crate) followers: usize,
}

impl Leases {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, env: Arc<dyn Env>, directory: PathBuf) -> Self {
        Self { vfs, env, directory, seen: Mutex::default() }
    }

    /// Notes the end of the manifest. Files that became obsolete before this call were removed by an edit before it.
    pub(crate) fn note_edit(&self, edits: EditPosition) {
        self.seen.lock().edits = edits;
    }

    /// The last edit that was noted.
    pub(crate) fn last_edit(&self) -> EditPosition {
        self.seen.lock().edits
    }

    /// Looks what followers need. Removes leases that were not renewed for their time.
    ///
    /// A follower writes its lease before it reads the manifest. So who sees no lease after an edit was logged knows that
    /// every later follower reads that edit.
    pub(crate) fn look(&self) -> Needed {
        let mut needed = Needed::default();
        let mut seen = self.seen.lock();
        for slot in 0..LEASE_SLOT_COUNT {
            let path = Lease::path(&self.directory, slot);
            let bytes = match Lease::read(&*self.vfs, &path) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    seen.slots.remove(&slot);
                    continue;
                }
                // Whoever cannot be asked needs everything, for the longest time of a lease.
                Err(_) => Vec::new(),
            };
            let now_micros = self.env.monotonic_micros();
            let lease = Lease::decode(&bytes);
            match seen.slots.get(&slot) {
                Some(known) if known.bytes == bytes => {
                    if now_micros > known.until_micros {
                        let _ = self.vfs.remove_file(&path);
                        seen.slots.remove(&slot);
                        continue;
                    }
                }
                _ => {
                    let micros = lease.map_or(LEASE_MICROS_MAX, |lease| lease.micros.min(LEASE_MICROS_MAX));
                    let until_micros = now_micros.saturating_add(micros);
                    seen.slots.insert(slot, Slot { bytes, until_micros });
                }
            }
            let edits = lease.map(|lease| lease.edits).unwrap_or_default();
            let log = lease.map_or(Some(0), |lease| lease.log);
            needed.followers += 1;
            needed.edits = Some(needed.edits.map_or(edits, |other| other.min(edits)));
            needed.log = [needed.log, log].into_iter().flatten().min();
        }
        needed
    }

    /// Ends all leases, so that their followers notice it. For a full disk, where files must go.
    pub(crate) fn revoke_all(&self) {
        for slot in 0..LEASE_SLOT_COUNT {
            let _ = self.vfs.remove_file(&Lease::path(&self.directory, slot));
        }
        self.seen.lock().slots.clear();
    }
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lsm_core::env::SimEnv;
    use lsm_core::vfs::SimFs;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn lease(id: u64, renewals: u64, position: u64) -> Lease {
        let edits = EditPosition { manifest: 3, position };
        Lease { id, renewals, micros: 10 * SECOND, edits, log: None }
    }

    #[test]
    fn a_lease_lives_while_it_changes_and_ends_by_itself() {
        let (fs, env) = (SimFs::new(), SimEnv::new(1));
        let leases = Leases::new(Arc::new(fs.clone()), Arc::new(env.clone()), "/".into());
        assert_eq!(leases.look(), Needed::default());
        let write =
            |slot, lease: Lease| fs.write_all(&Lease::path(Path::new("/"), slot), &lease.encode()).unwrap();
        write(1, lease(7, 0, 50));
        write(4, Lease { log: Some(12), ..lease(8, 0, 40) });
        let both =
            Needed { edits: Some(EditPosition { manifest: 3, position: 40 }), log: Some(12), followers: 2 };
        assert_eq!(leases.look(), both);
        // The wall clock does not matter, neither forward nor back.
        env.set_unix_micros(1);
        env.advance(9 * SECOND);
        write(1, lease(7, 1, 50));
        assert_eq!(leases.look(), both);
        env.advance(2 * SECOND);
        let one = Needed { edits: Some(EditPosition { manifest: 3, position: 50 }), log: None, followers: 1 };
        assert_eq!(leases.look(), one);
        assert!(fs.read_all(&Lease::path(Path::new("/"), 4)).is_err(), "the dead lease is gone");
        env.advance(20 * SECOND);
        // It was renewed since the last look, however long ago that was.
        write(1, lease(7, 2, 50));
        assert_eq!(leases.look(), one);
        env.advance(10 * SECOND + 1);
        assert_eq!(leases.look(), Needed::default());
        assert_eq!(fs.paths(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_lease_that_makes_no_sense_keeps_everything_for_a_bounded_time() {
        let (fs, env) = (SimFs::new(), SimEnv::new(1));
        let leases = Leases::new(Arc::new(fs.clone()), Arc::new(env.clone()), "/".into());
        let everything = Needed { edits: Some(EditPosition::default()), log: Some(0), followers: 1 };
        for bytes in [&b""[..], b"x", &[0; 4096], &lease(1, 1, 1).encode()[..71]] {
            fs.write_all(&Lease::path(Path::new("/"), 0), bytes).unwrap();
            assert_eq!(leases.look(), everything);
            env.advance(LEASE_MICROS_MAX);
            assert_eq!(leases.look(), everything);
            env.advance(1);
            assert_eq!(leases.look(), Needed::default());
        }
        // One that claims to last forever does not.
        let forever = Lease { micros: u64::MAX, ..lease(1, 1, 1) };
        fs.write_all(&Lease::path(Path::new("/"), 0), &forever.encode()).unwrap();
        assert_eq!(leases.look().followers, 1);
        env.advance(LEASE_MICROS_MAX + 1);
        assert_eq!(leases.look().followers, 0);
    }
}
