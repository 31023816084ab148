//! Runs the `lsm` binary and looks at what comes out.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run of `lsm` left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The standard output of a run that must have gone well, and silently.
    #[track_caller]
    pub(crate) fn stdout(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.stderr, "");
        self.stdout
    }

    /// The standard error of a run that must have failed with this code.
    #[track_caller]
    pub(crate) fn failure(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("lsm: "), "{self:?}");
        self.stderr
    }
}

/// A command that runs `lsm`.
pub(crate) fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsm"));
    command.args(arguments);
    command
}

/// Runs `lsm` with nothing on standard input.
pub(crate) fn lsm<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    lsm_with_input(arguments, b"")
}

/// Runs `lsm` with `input` on standard input.
pub(crate) fn lsm_with_input<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> Outcome {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input)); // fails if the command does not read it all: fine
        child.wait_with_output().expect("the binary ends")
    });
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on standard output"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on standard error"),
    }
}

/// Makes a database whose process was killed after a hundred writes, with all of its data in the log.
pub(crate) fn killed(directory: &Directory) -> String {
    let db = directory.arg("db");
    lsm(["put", &db, "first", "value"]).stdout();
    let mut writer = command(["demo-writer", &db]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut acknowledgements = [0; 8 * 100];
    writer.stdout.as_mut().expect("piped").read_exact(&mut acknowledgements).expect("a hundred writes");
    writer.kill().expect("killed");
    writer.wait().expect("it ends");
    db
}

/// A directory for one test, and paths in it.
pub(crate) struct Directory(tempfile::TempDir);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// [`path`](Self::path) for a command line.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).expect("written");
        self.arg(name)
    }
}

/// Names and contents of the files in a directory, sorted.
#[expect(clippy::disallowed_methods, reason = "looks at what the binary did")]
pub(crate) fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("UTF-8"), std::fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}
