//! A soak: every feature in use at once, each in a thread of its own, on real files. Each load knows what must be there.
//! At the end the files are verified, and the database holds exactly what was written: as it is, and opened again.
//!
//! Here it runs for a few seconds. For a long run with figures:
//! `SOAK_SECONDS=1200 cargo test --release -p lsm-tools --test everything_at_once_ends_equal -- --nocapture`.
//! `SOAK_DIR` names the directory (a temporary one if not), `SOAK_SEED` the seed, `SOAK_MEMORY` the bytes of memory.

#![expect(clippy::disallowed_methods, reason = "runs for a time, and looks at the real files from outside")]

mod soak;

use std::path::PathBuf;
use std::process::Command;

use soak::Settings;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn everything_at_once_ends_equal_and_verified() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = std::env::var_os("SOAK_DIR").map_or(temporary.path().to_owned(), PathBuf::from);
    let settings = Settings {
        seconds: number("SOAK_SECONDS", 8),
        seed: number("SOAK_SEED", 1),
        memory: number("SOAK_MEMORY", 24 << 20) as usize,
        directory,
    };
    let databases = soak::run(&settings);
    for database in databases {
        let verified = Command::new(env!("CARGO_BIN_EXE_lsm")).arg("verify").arg(&database).output().unwrap();
        assert!(verified.status.success(), "{}: {verified:?}", database.display());
    }
}
