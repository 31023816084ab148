//! Calls of parts that users bring: one that panics is an error, and not the end of a thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, Result};

/// What a panic said.
pub(crate) fn panic_message(during: &str, panic: &(dyn Any + Send)) -> Arc<str> {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("a panic during {during}: {said}").into()
}

/// Calls what may call parts from outside: one that panics is an error that says during what.
pub(crate) fn caught<T>(during: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(Error::Callback(panic_message(during, &*panic))))
}
