//! How long something took.

use std::time::Instant;

/// Runs from its creation.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    #[expect(clippy::disallowed_methods, reason = "tells the user what took how long; nothing depends on it")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds so far.
    pub(crate) fn micros(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}
