//! The lease of this follower: claims it, renews it, and notices when it is lost.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use lsm_core::env::{Env, Event, Job, Step};
use lsm_core::vfs::Vfs;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::version::Version;
use crate::version::files::LEASE_SLOT_COUNT;
use crate::version::lease::{EditPosition, Lease};

/// A renewal is due after this part of the lease.
const RENEWALS_PER_LEASE: u64 = 3;

/// The lease of a follower.
pub(crate) struct HeldLease {
    vfs: Arc<dyn Vfs>,
    env: Arc<dyn Env>,
    /// `None` for a follower that wants no lease.
    path: Option<PathBuf>,
    held: Mutex<Held>,
    /// Notified at its end.
    ended: Event,
}

struct Held {
    lease: Lease,
    /// What the file must hold.
    written: Vec<u8>,
    /// When it was renewed last.
    renewed_micros: u64,
    /// Why it is lost.
    lost: Option<Arc<str>>,
    /// The last edit that the current state has.
    current: EditPosition,
    /// Versions that were replaced, and the last edit that they have. Their readers may read files that later edits
    /// removed.
    replaced: Vec<(Weak<Version>, EditPosition)>,
}

impl HeldLease {
    /// Claims a lease of `micros` that needs everything. `None` for no lease.
    pub(crate) fn claim(
        vfs: &Arc<dyn Vfs>,
        env: &Arc<dyn Env>,
        directory: &Path,
        micros: Option<u64>,
    ) -> Result<Arc<Self>> {
        let edits = EditPosition::default();
        let lease = Lease { id: env.random(), renewals: 0, micros: micros.unwrap_or(0), edits, log: Some(0) };
        let (written, renewed_micros) = (lease.encode(), env.monotonic_micros());
        let path = match micros {
            Some(_) => Some(create(&**vfs, directory, &written)?),
            None => None,
        };
        let held = Held { lease, written, renewed_micros, lost: None, current: edits, replaced: Vec::new() };
        let (vfs, env) = (Arc::clone(vfs), Arc::clone(env));
        let claimed = Arc::new(Self { vfs, env, path, held: Mutex::new(held), ended: Event::new() });
        if claimed.path.is_some() {
            let renewal = Renewal { lease: Arc::downgrade(&claimed), ended: claimed.ended.clone() };
            claimed.env.spawn(lsm_core::env::Priority::High, Box::new(renewal));
        }
        Ok(claimed)
    }

    /// Fails if the lease is lost, as far as this follower knows.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_held(&mut self.held.lock())
    }

    fn check_held(&self, held: &mut Held) -> Result<()> {
        if self.path.is_some() && held.lost.is_none() && self.is_over(held) {
            held.lost =
                Some("it was not renewed in time: this process was stopped, or its clock jumped".into());
        }
        match &held.lost {
            Some(why) => Err(lost(why)),
            None => Ok(()),
        }
    }

    fn is_over(&self, held: &Held) -> bool {
        self.env.monotonic_micros().saturating_sub(held.renewed_micros) >= held.lease.micros
    }

    /// Why a table that this follower reads may have been removed. `None` if it may not.
    pub(crate) fn why_files_vanish(&self) -> Option<Arc<str>> {
        if self.path.is_none() {
            return Some("the follower has no lease, and the file was removed; call Follower::reopen".into());
        }
        match self.renew() {
            Err(Error::FellBehind(why)) => Some(why),
            _ => None,
        }
    }

    /// Renews the lease, so that it lasts for its whole time from now on. Fails if it is lost.
    pub(crate) fn renew(&self) -> Result<()> {
        self.renew_with(|_| ())
    }

    /// Needs the log, all of it from now on, or none of it.
    pub(crate) fn need_log(&self, needed: bool) -> Result<()> {
        self.renew_with(|held| held.lease.log = needed.then_some(0))
    }

    /// From now on the current state has the edits up to `edits`; `replaced` are versions that it has no more.
    pub(crate) fn advance(&self, edits: EditPosition, replaced: Vec<Weak<Version>>) -> Result<()> {
        self.renew_with(|held| {
            let before = std::mem::replace(&mut held.current, edits);
            held.replaced.extend(replaced.into_iter().map(|version| (version, before)));
            held.lease.log = None;
        })
    }

    fn renew_with(&self, change: impl FnOnce(&mut Held)) -> Result<()> {
        let mut held = self.held.lock();
        self.check_held(&mut held)?;
        change(&mut held);
        held.replaced.retain(|(version, _)| version.strong_count() > 0);
        let oldest = held.replaced.iter().map(|&(_, edits)| edits).min();
        held.lease.edits = oldest.map_or(held.current, |oldest| oldest.min(held.current));
        let Some(path) = &self.path else { return Ok(()) };
        let started_micros = self.env.monotonic_micros();
        held.lease.renewals += 1;
        let bytes = held.lease.encode();
        let rewritten = self.rewrite(path, &held.written, &bytes);
        match rewritten {
            Ok(true) => {}
            Ok(false) => held.lost = Some(format!("{} is gone, or another's now", path.display()).into()),
            Err(error) => return Err(Error::io("renew", path, error)),
        }
        // A write that took too long may have come after the owner looked last.
        self.check_held(&mut held)?;
        held.written = bytes;
        held.renewed_micros = started_micros;
        Ok(())
    }

    /// Writes the file if it holds what this follower wrote last.
    fn rewrite(&self, path: &Path, expected: &[u8], bytes: &[u8]) -> std::io::Result<bool> {
        if Lease::read(&*self.vfs, path)?.is_none_or(|found| found != expected) {
            return Ok(false);
        }
        let file = match self.vfs.open_write(path) {
            Err(error) if error.kind() == Io::NotFound => return Ok(false),
            file => file?,
        };
        file.write_at(bytes, 0)?;
        Ok(true)
    }

    /// When the next renewal is due.
    fn due_micros(&self) -> u64 {
        let held = self.held.lock();
        held.renewed_micros.saturating_add(held.lease.micros / RENEWALS_PER_LEASE)
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.ended.notify();
        if self.env.is_forked() {
            return;
        }
        // One that is lost may be another follower's by now.
        let held = self.held.get_mut();
        if let Some(path) = self.path.as_ref().filter(|_| held.lost.is_none())
            && Lease::read(&*self.vfs, path)
                .is_ok_and(|found| found.is_some_and(|found| found == held.written))
        {
            let _ = self.vfs.remove_file(path);
        }
    }
}

fn lost(why: &str) -> Error {
    let detail = format!(
        "the follower has lost its lease, so the owner of the database may have removed files that it reads: {why}; call \
         Follower::reopen"
    );
    Error::FellBehind(detail.into())
}

/// Creates the file of a free slot.
fn create(vfs: &dyn Vfs, directory: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let refused = |path: &Path, error: &std::io::Error| {
        let detail = format!(
            "the follower cannot write its lease, {}: {error}; give it the right to write there, or open it without a \
             lease (Options::follower_lease), and files may vanish while it reads them",
            path.display()
        );
        Error::NoLease(detail.into())
    };
    for slot in 0..LEASE_SLOT_COUNT {
        let path = Lease::path(directory, slot);
        match vfs.create_new(&path) {
            Ok(file) => {
                return match file.write_at(bytes, 0) {
                    Ok(()) => Ok(path),
                    Err(error) => {
                        let _ = vfs.remove_file(&path);
                        Err(refused(&path, &error))
                    }
                };
            }
            Err(error) if error.kind() == Io::AlreadyExists => {}
            Err(error) => return Err(refused(&path, &error)),
        }
    }
    let detail = format!(
        "{} has {LEASE_SLOT_COUNT} followers, and can have no more; the leases of those that are gone end by themselves while \
         the database is open for writing",
        directory.display()
    );
    Err(Error::NoLease(detail.into()))
}

/// Renews a lease as long as the follower lives.
struct Renewal {
    lease: Weak<HeldLease>,
    ended: Event,
}

impl Job for Renewal {
    fn step(&mut self) -> Step {
        let seen = self.ended.epoch();
        let Some(lease) = self.lease.upgrade() else { return Step::Done };
        let now_micros = lease.env.monotonic_micros();
        let mut due_micros = lease.due_micros();
        if now_micros >= due_micros {
            match lease.renew() {
                Ok(()) => due_micros = lease.due_micros(),
                Err(Error::FellBehind(why)) => {
                    tracing::warn!("{why}");
                    return Step::Done;
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to renew the lease of a follower");
                    due_micros = now_micros.saturating_add(1_000_000);
                }
            }
        }
        Step::Pending { event: self.ended.clone(), seen, deadline_micros: Some(due_micros) }
    }
}
