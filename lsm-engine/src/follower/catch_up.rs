//! Catching up: reads what the owner has added to manifest and log, and shows it all at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_core::env::Event;
use lsm_core::vfs::Vfs;
use lsm_wal::{Position, Tail, TailError};
use parking_lot::RwLock;

use super::files::FollowerFiles;
use super::lease::HeldLease;
use super::replica::{Replica, Taken};
use crate::change_position::ChangePosition;
use crate::database::Database;
use crate::db::Db;
use crate::error::{Error, ErrorKind, Result};
use crate::keyspaces::Visibility;
use crate::memory::Memory;
use crate::options::Options;
use crate::recovery::{Recovery, existing_current};
use crate::resources::Resources;
use crate::version::manifest::ManifestState;
use crate::version::{Clock, ManifestReader};

/// How often a follower looks again when something seems damaged or missing. The owner may have been in the middle of
/// writing or removing it. The last pauses are longer than any such moment.
const ATTEMPTS: u32 = 10;
/// The first pause between two attempts. Each is twice as long as the one before.
const PAUSE_MICROS: u64 = 250;

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The place in the owner's history up to which the follower shows it, by
    /// [`sequence`](ChangePosition::sequence) and [`log_position`](ChangePosition::log_position).
    pub position: ChangePosition,
    /// Bytes of the log that the follower could not take in, because its memory is full. It can when the owner has
    /// flushed them, or with a larger [`Options::memory`](crate::Options::memory). 0 if it shows all that was written before the call.
    pub lag: u64,
}

/// The state of a follower.
pub(super) struct Following {
    directory: PathBuf,
    options: Options,
    resources: Arc<Resources>,
    lease: Arc<HeldLease>,
    clock: Arc<Clock>,
    manifest: Option<ManifestReader>,
    /// The lease does not say yet how far the manifest was read, or that the log is not needed any more.
    has_new_edits: bool,
    /// Keyspaces that edits have changed since the replica adopted a state.
    changed: BTreeSet<u32>,
    replica: Option<Replica>,
    /// The memtables of the replica hold all of the log up to `applied` that is not in tables.
    is_sound: bool,
    tail: Option<Tail>,
    /// The end of the last record that was inserted.
    applied: Position,
    shown: Option<Shown>,
}

/// What readers see.
struct Shown {
    db: Db,
    /// The replica has the same trees.
    is_current: bool,
    progress: Progress,
}

/// What became of an attempt.
enum Attempt {
    /// All writes up to this one can be shown; so many bytes of the log could not be taken in.
    Reached(SequenceNumber, u64),
    /// Nothing more can be shown, since memory is full.
    Stays(Progress),
    /// Something has changed in between. Look again; if it stays so, this is the error.
    Again(Error),
}

impl Following {
    /// Claims a lease. Nothing is read yet.
    pub(super) fn open(directory: &Path, options: &Options) -> Result<Self> {
        options.check()?;
        let lease_micros = options.follower_lease_micros()?;
        existing_current(&*options.vfs, directory)?;
        let env = options.make_env();
        if env.is_forked() {
            return Err(Error::invalid(
                "Options::env belongs to the parent of this forked process and has no threads here",
            ));
        }
        let lease = HeldLease::claim(&options.vfs, &env, directory, lease_micros)?;
        let files = FollowerFiles::new(Arc::clone(&options.vfs), Arc::clone(&lease));
        let vfs: Arc<dyn Vfs> = Arc::new(files);
        let options = options.clone().read_only(true).vfs(Arc::clone(&vfs)).env(Arc::clone(&env));
        let memory = Arc::new(Memory::new(&options));
        let clock = Arc::new(Clock::from_marks(Arc::clone(&env), &ManifestState::default()));
        let resources = Resources::new(directory.to_owned(), vfs, env, memory, 0, options.statistics);
        Ok(Self {
            directory: directory.to_owned(),
            options,
            resources,
            lease,
            clock,
            manifest: None,
            has_new_edits: false,
            changed: BTreeSet::new(),
            replica: None,
            is_sound: false,
            tail: None,
            applied: Position::ZERO,
            shown: None,
        })
    }

    /// What readers see now, and how far that is.
    pub(super) fn shown(&self) -> Result<(Db, Progress)> {
        let shown = self.shown.as_ref().ok_or(Error::Closed)?;
        Ok((shown.db.clone(), shown.progress))
    }

    pub(super) fn lease(&self) -> &HeldLease {
        &self.lease
    }

    /// Reads what there is and shows it. After a failure readers see what they saw before.
    pub(super) fn catch_up(&mut self) -> Result<Progress> {
        self.lease.check()?;
        let mut pinned = self.shown.is_none();
        let result = self.try_to_catch_up(&mut pinned);
        if pinned && !self.is_sound {
            let _ = self.lease.need_log(false);
        }
        result
    }

    fn try_to_catch_up(&mut self, pinned: &mut bool) -> Result<Progress> {
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 1 {
                self.pause(PAUSE_MICROS << attempt);
            }
            match self.attempt(pinned) {
                Ok(Attempt::Reached(sequence, lag)) => return self.show(sequence, lag),
                Ok(Attempt::Stays(progress)) => return Ok(progress),
                Ok(Attempt::Again(error)) => failure = Some(error),
                Err(error) => {
                    self.is_sound = false;
                    (self.manifest, self.tail) = (None, None);
                    if !may_be_torn(&error) {
                        return Err(error);
                    }
                    failure = Some(error);
                }
            }
        }
        // If the owner has ended the lease, it is no wonder that files are missing.
        self.lease.renew()?;
        Err(failure.unwrap_or_else(|| Error::invalid("nothing was tried")))
    }

    fn pause(&self, micros: u64) {
        let env = &self.resources.env;
        env.wait(&Event::new(), 0, Some(env.monotonic_micros().saturating_add(micros)));
    }

    fn attempt(&mut self, pinned: &mut bool) -> Result<Attempt> {
        self.read_manifest()?;
        let Some(manifest) = &self.manifest else { return Err(Error::Closed) };
        let state = manifest.state();
        let reads_again = !self.is_sound
            || self.replica.as_ref().is_some_and(|replica| replica.must_read_again(state, &self.changed));
        if reads_again && !*pinned {
            // The log must stay from where this manifest, or a later one, has its start.
            self.lease.need_log(true)?;
            (*pinned, self.has_new_edits) = (true, true);
            return Ok(Attempt::Again(Error::invalid("the manifest is read once more")));
        }
        let mut replica = match self.replica.take() {
            Some(replica) => replica,
            None => Replica::open(&self.resources, &self.options, state)?,
        };
        let must_rebuild = !std::mem::replace(&mut self.is_sound, false);
        let reached = self.adopt(&mut replica, must_rebuild).and_then(|drops| match drops {
            Ok(drops) => self.read_log(&mut replica, drops),
            Err(again) => Ok(again),
        });
        self.replica = Some(replica);
        reached
    }

    /// Reads the manifest to its end.
    fn read_manifest(&mut self) -> Result<()> {
        let vfs = &*self.resources.vfs;
        let current = existing_current(vfs, &self.directory)?;
        if let Some(manifest) = self.manifest.as_mut().filter(|known| known.number() == current.manifest) {
            self.has_new_edits |= manifest.read_on(&mut self.changed)?;
            return Ok(());
        }
        let next = ManifestReader::open(vfs, &self.directory, &current)?;
        if let Some(Shown { progress, .. }) = &self.shown {
            check_continues(next.state(), &progress.position)?;
        }
        match &self.manifest {
            Some(before) => self.changed.extend(next.state().differences(before.state())),
            // It is not known what the replica has.
            None => self.is_sound = false,
        }
        self.manifest = Some(next);
        self.has_new_edits = true;
        Ok(())
    }

    /// Brings the tables of the replica to the state of the manifest, and gives up the memtables that it has in tables.
    /// Returns whether a keyspace was dropped.
    fn adopt(&mut self, replica: &mut Replica, must_rebuild: bool) -> Result<Result<bool, Attempt>> {
        let Some(manifest) = &self.manifest else { return Err(Error::Closed) };
        let state = manifest.state();
        let start = Position(state.log.position);
        if must_rebuild {
            self.applied = start;
            self.tail = None;
        }
        if !must_rebuild && self.changed.is_empty() {
            return Ok(Ok(false));
        }
        if let Some(shown) = &mut self.shown {
            shown.is_current = false;
        }
        let drops = replica.trees().all().any(|tree| !state.keyspaces.contains_key(&tree.id));
        let incomplete = replica.adopt(state, &self.changed, must_rebuild)?;
        self.changed.clear();
        if must_rebuild {
            replica.restart_log();
        } else if !incomplete.is_empty()
            && let Some(again) = self.read_again(replica, start, &incomplete)?
        {
            return Ok(Err(again));
        }
        Ok(Ok(drops))
    }

    /// Inserts what the log has beyond `applied`. `drops`: a keyspace was dropped since it was read last.
    fn read_log(&mut self, replica: &mut Replica, drops: bool) -> Result<Attempt> {
        let Some(manifest) = &self.manifest else { return Err(Error::Closed) };
        let state = manifest.state();
        let start = Position(state.log.position);
        let (vfs, directory) = (&self.resources.vfs, &self.directory);
        let open = |from| Tail::open(Arc::clone(vfs), directory, from).map_err(log_error);
        let mut tail = match self.tail.take() {
            Some(tail) => tail,
            None => open(self.applied)?,
        };
        let mut has_room = true;
        while has_room {
            let record = match tail.next() {
                Ok(record) => record,
                // The manifest has it in tables.
                Err(TailError::Gone { .. }) if self.applied < start => {
                    self.applied = start;
                    tail = open(start)?;
                    continue;
                }
                Err(error) => return Err(log_error(error)),
            };
            let Some(record) = record else { break };
            let end = record.end;
            match replica.insert(&record, None)? {
                Taken::Inserted => self.applied = end,
                Taken::NoRoom => has_room = false,
                Taken::UnknownKeyspace => {
                    let detail = format!(
                        "the log record at position {} names a keyspace that was never created",
                        record.start
                    );
                    self.is_sound = true;
                    return Ok(Attempt::Again(Error::corruption(record.path, record.offset, detail)));
                }
            }
        }
        replica.check()?;
        let sequence = replica.last_sequence();
        if has_room {
            self.tail = Some(tail);
            self.is_sound = true;
            let synced = Position(state.log.synced);
            if self.applied < synced && start < synced {
                let detail = format!(
                    "the log ends at position {}, and everything up to position {synced} was synced",
                    self.applied
                );
                return Ok(Attempt::Again(Error::corruption(directory, 0, detail)));
            }
            return Ok(Attempt::Reached(sequence.max(state.last_sequence), 0));
        }
        let mut log_end = self.applied;
        while let Some(record) = tail.next().map_err(log_error)? {
            log_end = record.end;
        }
        // What is in tables must be seen together with all that was written before it.
        if !drops && sequence >= state.last_sequence {
            self.is_sound = true;
            return Ok(Attempt::Reached(sequence, log_end.0.saturating_sub(self.applied.0)));
        }
        if let Some(Shown { progress, .. }) = &self.shown {
            let lag = log_end.0.saturating_sub(progress.position.log_position());
            return Ok(Attempt::Stays(Progress { lag, ..*progress }));
        }
        Err(Error::invalid(format!(
            "the log of {} holds more than fits the {} bytes that Options::memory leaves for memtables: give the follower \
             more memory",
            directory.display(),
            self.resources.memory.memtables_bytes_max()
        )))
    }

    /// Inserts what the log has up to `applied` for some keyspaces once more.
    fn read_again(
        &self,
        replica: &mut Replica,
        start: Position,
        incomplete: &BTreeSet<u32>,
    ) -> Result<Option<Attempt>> {
        let mut tail =
            Tail::open(Arc::clone(&self.resources.vfs), &self.directory, start).map_err(log_error)?;
        replica.restart_log();
        while tail.position() < self.applied {
            let Some(record) = tail.next().map_err(log_error)? else {
                let detail = format!("the log ends before position {}, which was read before", self.applied);
                return Ok(Some(Attempt::Again(Error::corruption(&self.directory, 0, detail))));
            };
            if !matches!(replica.insert(&record, Some(incomplete))?, Taken::Inserted) {
                return Err(Error::invalid(
                    "Options::memory does not suffice for what the follower has shown before",
                ));
            }
        }
        Ok(None)
    }

    /// Shows readers all writes up to `sequence`.
    fn show(&mut self, sequence: SequenceNumber, lag: u64) -> Result<Progress> {
        let (Some(replica), Some(manifest)) = (&mut self.replica, &self.manifest) else {
            return Err(Error::Closed);
        };
        let state = manifest.state();
        let events = state.history.event_count;
        let position = state.history.position(state.database_id, self.applied.0, sequence, events);
        let progress = Progress { position, lag };
        self.clock.note_mark(state.clock_micros);
        match &mut self.shown {
            Some(shown) if shown.is_current => {
                shown.db.database.visibility.publish(sequence);
                shown.progress = progress;
            }
            _ => {
                let visibility = Arc::new(Visibility::new(sequence, Arc::clone(&self.clock)));
                let trees = Arc::new(RwLock::new(replica.trees().clone()));
                let history = Arc::new(manifest.state().shared_history());
                let resources = Arc::clone(&self.resources);
                let database = Database::of_follower(resources, trees, visibility, history);
                let db = Db::of(Arc::new(database), Recovery::default())?;
                // All that it reads was there when the lease was looked at last.
                self.lease.renew()?;
                self.shown = Some(Shown { db, is_current: true, progress });
            }
        }
        if std::mem::take(&mut self.has_new_edits) {
            self.lease.advance(manifest.position(), replica.take_replaced())?;
        }
        Ok(progress)
    }
}

/// Fails if the owner, when it was opened again, lost writes that were shown at `position`.
fn check_continues(state: &ManifestState, position: &ChangePosition) -> Result<()> {
    let why = if state.database_id != position.database {
        "another database is in the directory now"
    } else if state.history.loses(position) {
        "the owner was opened again and had lost writes that this follower has shown, since its disk failed"
    } else {
        return Ok(());
    };
    Err(Error::FellBehind(format!("{why}; call Follower::reopen").into()))
}

/// Whether an error may come from files that the owner is writing or removing.
fn may_be_torn(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::FellBehind)
        && !matches!(error, Error::FellBehind(_))
}

fn log_error(error: TailError) -> Error {
    match error {
        TailError::Failed(error) => error.into(),
        TailError::TakenBack { .. } => {
            let detail = format!(
                "the owner of the database has lost writes that this follower has shown, since its disk failed: {error}; \
                 call Follower::reopen"
            );
            Error::FellBehind(detail.into())
        }
        // The owner may have flushed and truncated the log since the manifest was read.
        error => Error::corruption(Path::new("log"), 0, error.to_string()),
    }
}
