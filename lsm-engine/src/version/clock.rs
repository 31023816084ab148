//! The clock that ages of tables are told by.
//!
//! The wall clock may be set while the database is open, or wrong when it is opened: a device without a battery starts
//! in 1970. Were ages told by it, data of a minute would be years old the moment it is set, and a time to live would
//! drop it. So this clock begins at the wall clock when the database is created, and then goes on with the time that
//! passes while the database is open. Time during which it is closed is known by the wall clock alone, and counts up to
//! an hour each time. The manifest has two marks: of this clock, and the highest of the wall clock.

use std::sync::Arc;

use lsm_core::env::Env;

use crate::version::edit::VersionEdit;
use crate::version::manifest::ManifestState;

/// How much of the time for which the database was closed, as the wall clock has it, counts.
const CLOSED_MICROS_MAX: u64 = 60 * 60 * 1_000_000;

/// Never goes back, and never forward by more than the time that passed.
pub(crate) struct Clock {
    env: Arc<dyn Env>,
    opened_micros: u64,
    opened_monotonic_micros: u64,
}

impl Clock {
    /// Goes on from the marks in a manifest.
    pub(crate) fn from_marks(env: Arc<dyn Env>, state: &ManifestState) -> Self {
        let wall_micros = env.unix_micros();
        // Manifests used to have the one mark only.
        let mark = if state.age_clock_micros == 0 { state.clock_micros } else { state.age_clock_micros };
        let opened_micros = if mark == 0 {
            wall_micros
        } else {
            // A wall clock that is behind its mark says nothing.
            let closed_micros = wall_micros.saturating_sub(state.clock_micros);
            mark.saturating_add(closed_micros.min(CLOSED_MICROS_MAX))
        };
        Self { opened_micros, opened_monotonic_micros: env.monotonic_micros(), env }
    }

    pub(crate) fn now_micros(&self) -> u64 {
        let open_micros = self.env.monotonic_micros().saturating_sub(self.opened_monotonic_micros);
        self.opened_micros.saturating_add(open_micros)
    }

    /// Puts the marks into an edit.
    pub(crate) fn mark(&self, edit: &mut VersionEdit) {
        edit.clock_micros = Some(self.env.unix_micros());
        edit.age_clock_micros = Some(self.now_micros());
    }
}
