//! The child process that the demo kills: it writes, and says so, until it dies.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use clap::Args;

use crate::database::open_for_writing;
use crate::exit::{Failure, Result};

/// Name of the hidden command that is the child.
pub(crate) const WRITER_COMMAND: &str = "demo-writer";

/// All keys that the child writes begin with this.
pub(super) const PREFIX: &str = "written-by-the-child/";

/// More writes than any parent waits for: a child whose parent is gone must end.
const WRITES_MAX: u64 = 10_000_000;

const ACKNOWLEDGEMENT_BYTES: usize = 8;

/// Key of the child's write of this number.
pub(super) fn key(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// Value of the child's write of this number.
pub(super) fn value(number: u64) -> String {
    format!("write {number}, value {:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Writes and acknowledges until killed: what `lsm demo` starts in order to kill it
#[derive(Args, Debug)]
pub(crate) struct DemoWriter {
    /// Directory of the database
    db: PathBuf,
}

impl DemoWriter {
    pub(crate) fn run(self) -> Result<()> {
        let db = open_for_writing(&self.db)?;
        let mut out = io::stdout().lock();
        for number in 0..WRITES_MAX {
            db.put(key(number), value(number))?;
            // Standard output flushes at line ends only.
            out.write_all(&number.to_le_bytes())
                .and_then(|()| out.flush())
                .map_err(|e| Failure::stdout(&e))?;
        }
        Ok(())
    }
}

/// The child, as its parent sees it. Killed when dropped.
pub(super) struct Writer {
    child: Child,
    acknowledgements: ChildStdout,
    /// Bytes of the last acknowledgement, if it was not whole.
    partial: Vec<u8>,
    acknowledged: u64,
}

impl Writer {
    /// Starts a child that writes to the database in `directory`, which no one else may have open.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let failed = |error: &io::Error| Failure::io("start a child process", error);
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .arg(WRITER_COMMAND)
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let Some(acknowledgements) = child.stdout.take() else {
            return Err(Failure::Io("the child process has no standard output".to_owned()));
        };
        Ok(Self { child, acknowledgements, partial: Vec::new(), acknowledged: 0 })
    }

    /// Number of the child's process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Number of writes that the child has said are done.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Waits until the child has acknowledged `count` writes or more.
    pub(super) fn wait_for(&mut self, count: u64) -> Result<()> {
        while self.acknowledged < count {
            if self.read()? == 0 {
                return Err(Failure::Io(format!(
                    "the child ended by itself after {} writes",
                    self.acknowledged
                )));
            }
        }
        Ok(())
    }

    /// Kills the child where it stands, and reads the acknowledgements that are still in the pipe.
    pub(super) fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().map_err(|error| Failure::io("kill the child process", &error))?;
        while self.read()? > 0 {}
        self.child.wait().map_err(|error| Failure::io("wait for the child process", &error))
    }

    fn read(&mut self) -> Result<usize> {
        let mut buffer = [0; 8192];
        let count = self
            .acknowledgements
            .read(&mut buffer)
            .map_err(|error| Failure::io("read the child's acknowledgements", &error))?;
        self.partial.extend_from_slice(&buffer[..count]);
        let (whole, rest) = self.partial.as_chunks::<ACKNOWLEDGEMENT_BYTES>();
        for bytes in whole {
            let number = u64::from_le_bytes(*bytes);
            if number != self.acknowledged {
                return Err(Failure::Io(format!(
                    "the child acknowledged write {number} where {} was due",
                    self.acknowledged
                )));
            }
            self.acknowledged += 1;
        }
        self.partial = rest.to_vec();
        Ok(count)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails if it is gone already
        let _ = self.child.wait();
    }
}
