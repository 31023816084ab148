//! The clock for the ages of tables.
//!
//! The wall clock may be set while the database is open, or be wrong when it is opened: a device without a battery
//! starts in
//! 1970. With the wall clock, one-minute-old data would become years old when the clock is set, and a time to live would
//! drop it. So this clock starts at the wall clock when the database is created, and then counts the time that passes
//! while the database is open. For the time while it is closed there is only the wall clock; that time counts up to one
//! hour per open. The manifest keeps two marks: this clock, and the highest wall clock seen.

use std::sync::Arc;

use lsm_core::env::Env;

use crate::version::edit::VersionEdit;
use crate::version::manifest::ManifestState;

/// The maximum that counts of the time during which the database was closed.
const CLOSED_MICROS_MAX: u64 = 60 * 60 * 1_000_000;

/// Never runs back, and never faster than the time that passes.
pub(crate) struct Clock {
    env: Arc<dyn Env>,
    opened_micros: u64,
    opened_monotonic_micros: u64,
}

impl Clock {
    /// Continues from the marks in a manifest.
    pub(crate) fn from_marks(env: Arc<dyn Env>, state: &ManifestState) -> Self {
        let wall_micros = env.unix_micros();
        // Older manifests have only the mark of the wall clock.
        let mark = if state.age_clock_micros == 0 { state.clock_micros } else { state.age_clock_micros };
        let opened_micros = if mark == 0 {
            wall_micros
        } else {
            // If the wall clock is behind its mark, the time while the database was closed is unknown and counts as 0.
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
