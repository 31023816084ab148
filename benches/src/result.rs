use std::error::Error;

/// Any failure ends the program with a message.
pub(crate) type Result<T = (), E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;
