//! Sessions of a web server, which end when they were not used for half an hour. The database forgets them by itself.
//!
//! Run it with `cargo run -p lsm-engine --example sessions`. It uses a simulated clock, so that half an hour passes at once.

use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::{Keyspace, KeyspaceOptions, Options, Result, Slice};

const MINUTE: Duration = Duration::from_secs(60);

/// The user of a session. Its half hour begins anew.
fn user(sessions: &Keyspace, session: &str) -> Result<Option<Slice>> {
    let user = sessions.update(session, |user| user.map(<[u8]>::to_vec))?;
    Ok(user.map(Slice::from))
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = SimEnv::new(1);
    let pass = |time: Duration| clock.advance(time.as_micros() as u64);
    let db = Options::new().env(Arc::new(clock.clone()) as Arc<dyn Env>).open(dir.path())?;
    let sessions = db.keyspace("sessions", KeyspaceOptions::new().ttl(30 * MINUTE))?;

    sessions.put("ada's", "Ada")?;
    sessions.put("grace's", "Grace")?;
    // This one is shorter.
    sessions.put_expiring("a guest's", "guest", 5 * MINUTE)?;
    assert_eq!(sessions.count::<&str>(..)?, 3);

    pass(20 * MINUTE);
    assert_eq!(sessions.get("a guest's")?, None);
    assert_eq!(user(&sessions, "ada's")?.unwrap_or_default(), b"Ada");
    let snapshot = db.snapshot()?;

    pass(20 * MINUTE);
    assert_eq!(user(&sessions, "ada's")?.unwrap_or_default(), b"Ada");
    assert_eq!(user(&sessions, "grace's")?, None, "she came back too late");
    assert_eq!(sessions.iter().keys().collect::<Result<Vec<_>>>()?, ["ada's"]);
    // A snapshot has a time of its own, and nothing changes in it.
    assert_eq!(snapshot.get_in(&sessions, "grace's")?.unwrap_or_default(), b"Grace");
    drop(snapshot);

    // Compactions remove what has expired.
    sessions.compact_range::<&[u8]>(..)?;
    assert_eq!(sessions.len_estimate()?, 1);
    println!("one session is left: {:?}", sessions.first()?);
    drop(sessions);
    db.close()
}

#[test]
fn it_runs() {
    main().unwrap();
}
