//! The clocks of a database: one for the ages of tables, one for expiry times.
//!
//! The wall clock may be set while the database is open, or be wrong when it is opened: a device without a battery
//! starts in 1970.
//!
//! *Ages.* With the wall clock, one-minute-old data would become years old when the clock is set, and a time to live
//! would drop it. So the clock of ages starts at the wall clock when the database is created, and then counts the time
//! that passes while the database is open. For the time while it is closed there is only the wall clock; that time counts
//! up to one hour per open.
//!
//! *Expiry.* A user names a time, so here the wall clock counts, asleep or closed. But the clock never runs back: it is the
//! highest wall clock seen, plus the time that passed since. A wall clock that is set back has no effect, and one that is
//! set ahead by mistake expires what it passes, for good.
//!
//! The manifest keeps a mark of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::env::Env;

use crate::version::edit::VersionEdit;
use crate::version::manifest::ManifestState;

/// The maximum that counts of the time during which the database was closed.
const CLOSED_MICROS_MAX: u64 = 60 * 60 * 1_000_000;

/// Neither of its times ever runs back.
pub(crate) struct Clock {
    env: Arc<dyn Env>,
    opened_monotonic_micros: u64,
    /// The clock of ages when the database was opened.
    opened_age_micros: u64,
    /// The expiry clock when the database was opened, as the highest wall clock seen since then has it.
    opened_unix_micros: AtomicU64,
}

impl Clock {
    /// Continues from the marks in a manifest.
    pub(crate) fn from_marks(env: Arc<dyn Env>, state: &ManifestState) -> Self {
        let wall_micros = env.unix_micros();
        // Older manifests have only the mark of the wall clock.
        let mark = if state.age_clock_micros == 0 { state.clock_micros } else { state.age_clock_micros };
        let opened_age_micros = if mark == 0 {
            wall_micros
        } else {
            // If the wall clock is behind its mark, the time while the database was closed is unknown and counts as 0.
            let closed_micros = wall_micros.saturating_sub(state.clock_micros);
            mark.saturating_add(closed_micros.min(CLOSED_MICROS_MAX))
        };
        Self {
            opened_monotonic_micros: env.monotonic_micros(),
            opened_age_micros,
            opened_unix_micros: AtomicU64::new(wall_micros.max(state.clock_micros)),
            env,
        }
    }

    fn open_micros(&self) -> u64 {
        self.env.monotonic_micros().saturating_sub(self.opened_monotonic_micros)
    }

    /// The time for the ages of tables. It never runs faster than the time that passes.
    pub(crate) fn age_micros(&self) -> u64 {
        self.opened_age_micros.saturating_add(self.open_micros())
    }

    /// The time for expiry, in microseconds since 1970.
    pub(crate) fn unix_micros(&self) -> u64 {
        // Ask the wall clock first: a pause between the two calls must not set this clock ahead.
        let wall_micros = self.env.unix_micros();
        let open_micros = self.open_micros();
        let opened = wall_micros.saturating_sub(open_micros);
        let before = self.opened_unix_micros.fetch_max(opened, Ordering::AcqRel);
        before.max(opened).saturating_add(open_micros)
    }

    /// Notes a mark of the time for expiry that another process has put into the manifest.
    pub(crate) fn note_mark(&self, unix_micros: u64) {
        self.opened_unix_micros.fetch_max(unix_micros.saturating_sub(self.open_micros()), Ordering::AcqRel);
    }

    /// Puts the marks into an edit.
    pub(crate) fn mark(&self, edit: &mut VersionEdit) {
        edit.clock_micros = Some(self.unix_micros());
        edit.age_clock_micros = Some(self.age_micros());
    }
}
