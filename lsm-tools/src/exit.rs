//! How a command ends, as the shell sees it.
//!
//! ```text
//! 0  done; also when the reader of the output closes the pipe
//! 1  the key, or the keyspace, does not exist
//! 2  usage: the command line, or the input of `load`, is not as it must be
//! 3  corruption: a file is not what was written, or is of a newer format version
//! 4  I/O: the operating system refused, another process has the database open, or this build lacks what a file takes
//! ```

use std::io;
use std::process::ExitCode;

/// Result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not do what it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// What was asked for does not exist.
    NotFound(String),
    /// What was asked cannot be.
    Usage(String),
    /// A file is damaged, or too new.
    Corruption(String),
    /// The operating system, or a lock, said no.
    Io(String),
    /// The reader of standard output went away: no failure at all.
    ClosedPipe,
}

impl Failure {
    /// A failure to read or write `what`.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::Io(format!("cannot {what}: {error}"))
    }

    /// A failure to write to standard output.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::io("write to standard output", error),
        }
    }

    /// Puts `context` in front of the message.
    pub(crate) fn within(self, context: &str) -> Self {
        match self {
            Self::NotFound(message) => Self::NotFound(format!("{context}: {message}")),
            Self::Usage(message) => Self::Usage(format!("{context}: {message}")),
            Self::Corruption(message) => Self::Corruption(format!("{context}: {message}")),
            Self::Io(message) => Self::Io(format!("{context}: {message}")),
            Self::ClosedPipe => Self::ClosedPipe,
        }
    }

    /// Tells the user, on standard error, and the shell.
    pub(crate) fn report(&self) -> ExitCode {
        let (message, code) = match self {
            Self::ClosedPipe => return ExitCode::SUCCESS,
            Self::NotFound(message) => (message, 1),
            Self::Usage(message) => (message, 2),
            Self::Corruption(message) => (message, 3),
            Self::Io(message) => (message, 4),
        };
        // Not `eprintln!`, which panics when standard error is closed.
        let _ = io::Write::write_all(&mut io::stderr(), format!("lsm: {message}\n").as_bytes());
        ExitCode::from(code)
    }
}

/// Tells what is wrong with the command line, or shows the help that was asked for.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    match text.strip_prefix("error: ") {
        Some(message) => Failure::Usage(message.trim_end().to_owned()).report(),
        // Help, which knows where it goes and what has colours.
        None => match error.print() {
            Err(error) => Failure::stdout(&error).report(),
            Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
        },
    }
}

impl From<lsm_core::Error> for Failure {
    fn from(error: lsm_core::Error) -> Self {
        use lsm_core::Error;
        let message = error.to_string();
        match error {
            Error::Corruption { .. } | Error::UnsupportedVersion { .. } => Self::Corruption(message),
            Error::InvalidArgument { .. } => Self::Usage(message),
            _ => Self::Io(message),
        }
    }
}
