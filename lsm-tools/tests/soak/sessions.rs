//! Sessions that expire: a put with an hour is there, a put with a millisecond goes.

use std::collections::BTreeMap;
use std::time::Duration;

use lsm_dev::Random;
use lsm_engine::{Db, Keyspace, KeyspaceOptions};

use super::load::{Load, bytes, keyspace};

const NAME: &str = "sessions";
const SESSIONS: usize = 20_000;
const LONG: Duration = Duration::from_secs(100_000);
const SHORT: Duration = Duration::from_millis(1);

pub(crate) struct Sessions {
    keyspace: Keyspace,
    /// Session to value; `None` for one that expires soon.
    model: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    puts: u64,
}

impl Sessions {
    pub(crate) fn new(db: &Db) -> Self {
        let keyspace = db.keyspace(NAME, KeyspaceOptions::new()).unwrap();
        Self { keyspace, model: BTreeMap::new(), puts: 0 }
    }
}

impl Load for Sessions {
    fn step(&mut self, _: &Db, random: &mut Random) {
        let key = format!("session/{:06}", random.below(SESSIONS)).into_bytes();
        let value = bytes(random, 60);
        if random.one_in(4) {
            let found = self.keyspace.get(&key).unwrap();
            match self.model.get(&key) {
                None => assert_eq!(found, None),
                Some(Some(value)) => assert_eq!(found.as_deref(), Some(&**value)),
                // It may have expired or not.
                Some(None) => {}
            }
        } else if random.one_in(2) {
            self.keyspace.put_expiring(&key, value, SHORT).unwrap();
            self.model.insert(key, None);
            self.puts += 1;
        } else {
            self.keyspace.put_expiring(&key, &value, LONG).unwrap();
            self.model.insert(key, Some(value));
            self.puts += 1;
        }
    }

    fn check(&self, db: &Db) {
        let expected = self.model.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let lasts = |key: &[u8]| self.model.get(key).is_none_or(Option::is_some);
        let found = keyspace(db, NAME).iter().map(Result::unwrap).filter(|(key, _)| lasts(key));
        assert!(super::load::equal(found, expected), "sessions are not as written");
    }

    fn report(&self) -> String {
        format!("sessions: {} expiring puts", self.puts)
    }
}
