//! Progress of long work, on standard error, and only if that is a terminal.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or a spinner where the end is not known. Gone when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Counts bytes, of `total` if that is known.
    pub(crate) fn bytes(what: &'static str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        Self::new(what, total, template)
    }

    /// Counts things, of `total` if that is known.
    pub(crate) fn count(what: &'static str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {eta}",
            None => "{msg} {spinner} {human_pos} {per_sec}",
        };
        Self::new(what, total, template)
    }

    fn new(what: &'static str, total: Option<u64>, template: &str) -> Self {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar: bar.with_message(what) }
    }

    /// Says how far the work is.
    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A reader that counts what went through it.
pub(crate) struct Counted<R> {
    reader: R,
    count: Rc<Cell<u64>>,
}

impl<R> Counted<R> {
    /// Counts what is read from `reader` into the returned cell.
    pub(crate) fn new(reader: R) -> (Self, Rc<Cell<u64>>) {
        let count = Rc::new(Cell::new(0));
        (Self { reader, count: Rc::clone(&count) }, count)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}
