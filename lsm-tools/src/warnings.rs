//! What the engine reports beside its results, on standard error: a command that waits says what for.

use std::fmt::{self, Write};
use std::io;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Shows warnings and errors of the engine from here on.
pub(crate) fn show() {
    // Fails only if somebody shows them already.
    let _ = tracing::subscriber::set_global_default(Warnings);
}

/// Shows a warning.
pub(crate) fn warn(what: fmt::Arguments<'_>) {
    // Not `eprintln!`, which panics when nobody reads standard error, be it in the engine's background work.
    let _ = io::Write::write_all(&mut io::stderr(), format!("lsm: warning: {what}\n").as_bytes());
}

struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Higher levels are of less weight.
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        warn(format_args!("{}{}", text.message, text.details));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    details: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.details, ": {value:?}")
        };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
}
