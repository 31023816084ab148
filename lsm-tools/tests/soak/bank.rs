//! Transfers between accounts by transactions. Whatever is read at one moment, the money of all accounts is the same.

use std::time::Duration;

use lsm_dev::Random;
use lsm_engine::{Db, Keyspace, KeyspaceOptions, Slice, TransactionOptions};

use super::load::{Load, keyspace};

const NAME: &str = "accounts";
const ACCOUNTS: usize = 50;
const CENTS: u64 = 1000;

pub(crate) struct Bank {
    keyspace: Keyspace,
    /// Every second clerk locks what it reads.
    options: TransactionOptions,
    transfers: u64,
}

fn account(number: usize) -> String {
    format!("account/{number:03}")
}

fn cents(value: Option<Slice>) -> u64 {
    u64::from_le_bytes(value.expect("an account").as_ref().try_into().unwrap())
}

/// Creates the accounts, in one batch.
pub(crate) fn open_accounts(db: &Db) {
    let keyspace = db.keyspace(NAME, KeyspaceOptions::new()).unwrap();
    let mut batch = lsm_engine::WriteBatch::new();
    for number in 0..ACCOUNTS {
        batch.put_in(&keyspace, account(number), CENTS.to_le_bytes());
    }
    db.write(batch).unwrap();
}

/// Panics if money appeared or got lost.
pub(crate) fn check_total(accounts: impl Iterator<Item = lsm_engine::Result<(Slice, Slice)>>) {
    let total: u64 = accounts.map(|entry| cents(Some(entry.unwrap().1))).sum();
    assert_eq!(total, ACCOUNTS as u64 * CENTS);
}

/// The same for the newest state of a database.
pub(crate) fn check_database(db: &Db) {
    check_total(keyspace(db, NAME).iter());
}

impl Bank {
    pub(crate) fn new(db: &Db, number: u64) -> Self {
        let keyspace = keyspace(db, NAME);
        let locks = (number % 2 == 1).then_some(Duration::from_secs(5));
        Self {
            keyspace,
            options: TransactionOptions { locks, ..TransactionOptions::default() },
            transfers: 0,
        }
    }
}

impl Load for Bank {
    fn step(&mut self, db: &Db, random: &mut Random) {
        let (from, to, amount) =
            (random.below(ACCOUNTS), random.below(ACCOUNTS), random.below(CENTS as usize) as u64);
        let keyspace = &self.keyspace;
        db.transact_with(self.options, |transaction| {
            let Some(rest) = cents(transaction.get_in(keyspace, account(from))?).checked_sub(amount) else {
                return Ok(());
            };
            transaction.put_in(keyspace, account(from), rest.to_le_bytes())?;
            let sum = cents(transaction.get_in(keyspace, account(to))?) + amount;
            transaction.put_in(keyspace, account(to), sum.to_le_bytes())
        })
        .unwrap();
        self.transfers += 1;
        if random.one_in(50) {
            check_total(self.keyspace.iter());
        }
    }

    fn check(&self, db: &Db) {
        check_database(db);
    }

    fn report(&self) -> String {
        format!("bank: {} transfers", self.transfers)
    }
}
