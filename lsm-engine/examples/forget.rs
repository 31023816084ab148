//! A service that must forget: what a user deletes is in no file of the database an hour later, whether anything is
//! written or not, and the service can prove it.
//!
//! Run it with `cargo run -p lsm-engine --example forget`. It uses a simulated clock, so that an hour passes at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{PosixFs, Vfs};
use lsm_engine::{KeyspaceOptions, Options, Result};

const SECRET: &str = "lives in Paris";

/// The files of the database in which the secret still stands.
fn holders(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut holders = Vec::new();
    for name in PosixFs.read_dir(directory)? {
        let file = PosixFs.open_read(&directory.join(&name))?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        if bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
            holders.push(name);
        }
    }
    Ok(holders)
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let env = SimEnv::new(1);
    let db = Options::new().env(Arc::new(env.clone()) as Arc<dyn Env>).open(dir.path())?;
    let users = db.keyspace("users", KeyspaceOptions::new().purge_within(Duration::from_secs(3600)))?;
    users.put("ada", SECRET)?;
    users.put("grace", "wrote a compiler")?;

    users.delete("ada")?;
    // What to ask for later: the number of the write that deleted it.
    let deleted = db.metrics().visible_sequence;
    println!("deleted, and still in {:?}", holders(dir.path()).expect("readable files"));

    for _minute in 0..60 {
        env.advance(60_000_000);
        env.run_until_idle();
    }
    assert!(db.purged_through() >= deleted, "{:?}", db.pins());
    assert_eq!(holders(dir.path()).expect("readable files"), [""; 0]);
    assert_eq!(users.get("grace")?.unwrap_or_default(), b"wrote a compiler");
    println!("an hour later it is in no file");
    drop(users);
    db.close()
}

#[test]
fn it_runs() {
    main().unwrap();
}
