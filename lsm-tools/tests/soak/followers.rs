//! A follower beside the owner: what it shows never goes back, and is a state that the owner had.

use lsm_dev::Random;
use lsm_engine::{Db, Follower, Options};

use super::bank;
use super::load::Load;

const MEMORY: usize = 32 << 20;

pub(crate) struct Followers {
    follower: Option<Follower>,
    sequence: u64,
    caught_up: u64,
}

impl Followers {
    pub(crate) fn new() -> Self {
        Self { follower: None, sequence: 0, caught_up: 0 }
    }
}

impl Load for Followers {
    fn step(&mut self, db: &Db, random: &mut Random) {
        if random.one_in(50) {
            self.follower = None;
        }
        let follower = self
            .follower
            .get_or_insert_with(|| Follower::open_with(db.path(), Options::new().memory(MEMORY)).unwrap());
        let before = db.snapshot().unwrap().sequence();
        let progress = follower.catch_up().unwrap();
        let sequence = progress.position.sequence();
        assert!(sequence >= self.sequence, "{sequence} after {}", self.sequence);
        assert!(progress.lag > 0 || sequence >= before, "{sequence}, but {before} was written");
        self.sequence = sequence;
        self.caught_up += 1;
        bank::check_database(&follower.db());
    }

    fn stopped(&mut self) {
        self.follower = None;
    }

    fn check(&self, _: &Db) {}

    fn report(&self) -> String {
        format!("follower: caught up {} times", self.caught_up)
    }
}
