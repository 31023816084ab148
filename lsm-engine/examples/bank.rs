//! A bank. Clerks transfer money at the same time, auditors add up all accounts meanwhile, and no cent appears or is lost.
//!
//! Run it with `cargo run -p lsm-engine --example bank`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lsm_engine::{Db, KeyspaceOptions, Result, Slice, Transaction};

const ACCOUNTS: u64 = 20;
const CLERKS: u64 = 4;
/// Transfers of each clerk.
const TRANSFERS: u64 = 500;
const CENTS: u64 = 1000;

fn account(number: u64) -> String {
    format!("account/{number:04}")
}

fn cents(value: Option<Slice>) -> u64 {
    value.and_then(|value| value.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Moves money. Returns `false`, and changes nothing, if there is not enough.
fn transfer(transaction: &Transaction, from: u64, to: u64, amount: u64) -> Result<bool> {
    let rest = match cents(transaction.get(account(from))?).checked_sub(amount) {
        Some(rest) if from != to => rest,
        _ => return Ok(false),
    };
    let sum = cents(transaction.get(account(to))?) + amount;
    transaction.put(account(from), rest.to_be_bytes())?;
    transaction.put(account(to), sum.to_be_bytes())?;
    Ok(true)
}

/// The money of all accounts, as they are at one moment.
fn total(db: &Db) -> Result<u64> {
    db.prefix("account/").values().map(|value| value.map(|value| cents(Some(value)))).sum()
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path())?;
    let journal = db.keyspace("journal", KeyspaceOptions::new())?;
    for number in 0..ACCOUNTS {
        db.put(account(number), CENTS.to_be_bytes())?;
    }

    let closed = AtomicBool::new(false);
    let (moved, audits) = thread::scope(|scope| {
        let (db, journal, closed) = (&db, &journal, &closed);
        let auditor = scope.spawn(move || -> Result<u64> {
            let mut audits = 0;
            while !closed.load(Ordering::Relaxed) || audits == 0 {
                assert_eq!(total(db)?, ACCOUNTS * CENTS);
                audits += 1;
            }
            Ok(audits)
        });
        let clerk = |clerk: u64| {
            let mut moved = 0;
            for number in 0..TRANSFERS {
                let place = clerk * TRANSFERS + number;
                let (from, to) = (place * 7 % ACCOUNTS, place * 13 % ACCOUNTS);
                // Tried again if another clerk was faster. Both accounts and the journal change together.
                moved += u64::from(db.transact(|transaction| {
                    let done = transfer(transaction, from, to, place % 300)?;
                    if done {
                        transaction.put_in(journal, place.to_be_bytes(), format!("{from} to {to}"))?;
                    }
                    Ok(done)
                })?);
            }
            Ok(moved)
        };
        let clerks: Vec<_> = (0..CLERKS).map(|number| scope.spawn(move || clerk(number))).collect();
        let moved = clerks.into_iter().map(|clerk| clerk.join().expect("a clerk")).sum::<Result<u64>>();
        closed.store(true, Ordering::Relaxed);
        Ok::<_, lsm_engine::Error>((moved?, auditor.join().expect("an auditor")?))
    })?;
    assert_eq!(journal.count::<&[u8]>(..)?, moved);

    // A customer waits until this one survives a power cut.
    let transaction = db.transaction()?;
    let rich = (0..ACCOUNTS)
        .find(|&number| matches!(db.get(account(number)), Ok(value) if cents(value.clone()) > 0));
    assert!(transfer(&transaction, rich.expect("somebody has money"), ACCOUNTS, 1)?);
    transaction.commit()?.wait()?;

    drop(journal);
    db.close()?;
    let db = Db::open(dir.path())?;
    assert_eq!(total(&db)?, ACCOUNTS * CENTS);
    println!("{moved} transfers, {audits} audits, and {} cents as before", total(&db)?);
    db.close()
}

#[test]
fn it_runs() {
    main().unwrap();
}
