//! Calls of user code, such as memtables, filters and policies. A panic becomes an error and does not end the thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, Result};

/// The message of a panic.
pub(crate) fn panic_message(during: &str, panic: &(dyn Any + Send)) -> Arc<str> {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("a panic during {during}: {said}").into()
}

/// Calls `call`, which may run user code. A panic becomes an error that names what was done: `during`.
pub(crate) fn caught<T>(during: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(Error::Callback(panic_message(during, &*panic))))
}
