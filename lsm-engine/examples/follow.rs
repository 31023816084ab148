//! A follower in another process: this one writes orders, the other one counts them.
//!
//! ```sh
//! cargo run --release -p lsm-engine --example follow
//! ```

use std::error::Error;
use std::path::Path;
use std::process::Command;

use lsm_engine::{Db, ErrorKind, Follower, WriteBatch};

const ORDERS: u64 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = std::env::args_os().nth(1) {
        return follow(path.as_ref());
    }
    let directory = tempfile::tempdir()?;
    let db = Db::open(directory.path())?;
    db.put("orders", "0")?;
    let mut follower = Command::new(std::env::current_exe()?).arg(directory.path()).spawn()?;
    for number in 1..=ORDERS {
        // The follower sees both or none.
        let mut batch = WriteBatch::new();
        batch.put(format!("order/{number:06}"), "one cup of tea");
        batch.put("orders", number.to_string());
        db.write(batch)?;
        if number.is_multiple_of(5_000) {
            db.flush()?;
        }
    }
    println!("owner: wrote {ORDERS} orders");
    assert!(follower.wait()?.success(), "the follower has failed");
    Ok(())
}

/// Reads until all orders are there.
fn follow(path: &Path) -> Result<(), Box<dyn Error>> {
    let follower = Follower::open(path)?;
    let mut last = 0;
    loop {
        if let Err(error) = follower.catch_up() {
            if error.kind() != ErrorKind::FellBehind {
                return Err(error.into());
            }
            // This process was stopped for too long.
            follower.reopen()?;
        }
        let snapshot = follower.snapshot()?;
        let orders = snapshot.get("orders")?.ok_or("there is no count")?;
        let orders: u64 = std::str::from_utf8(&orders)?.parse()?;
        assert_eq!(snapshot.prefix("order/").count() as u64, orders);
        if orders != last {
            println!("follower: {orders} orders");
            last = orders;
        }
        if orders == ORDERS {
            return Ok(());
        }
    }
}
