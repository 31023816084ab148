//! Nightly backups: a week of them, each as small as what changed, and one that is restored after an accident.
//!
//! `cargo run -p lsm-engine --example backup`

use std::error::Error;

use lsm_engine::{Backup, Db, DirectoryStore};

const NIGHTS: u32 = 10;
const KEPT: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let db = Db::open(directory.path().join("shop"))?;
    for number in 0..20_000 {
        db.put(format!("product/{number:06}"), format!("a product of {number} words").repeat(4))?;
    }
    let backup = Backup::open(DirectoryStore::create(directory.path().join("backups"))?)?;
    for night in 1..=NIGHTS {
        for order in 0..300 {
            db.put(format!("order/{night:02}/{order:03}"), "one of each")?;
        }
        let made = backup.create(&db)?;
        println!("night {night:>2}: {:>9} bytes, {:>9} of them new", made.bytes, made.new_bytes);
        backup.prune(KEPT)?;
    }

    // Somebody means well.
    db.delete_range("order/".."order0")?;
    assert_eq!(db.prefix("order/").count(), 0);

    let listed = backup.list()?;
    assert_eq!(listed.generations.len(), KEPT);
    let report = backup.verify()?;
    println!("{} backups share {} files of {} bytes", report.generations, report.files, report.bytes);
    assert!(report.damage.is_empty());

    let last = listed.generations.last().ok_or("no backup")?;
    backup.restore(last.number, directory.path().join("restored"))?;
    let restored = Db::open(directory.path().join("restored"))?;
    println!("restored backup {} with {} orders", last.number, restored.prefix("order/").count());
    assert_eq!(restored.prefix("order/").count(), 300 * NIGHTS as usize);
    restored.close()?;
    db.close()?;
    Ok(())
}
