use lsm_engine::{Keyspace, Result};

use super::world::{DIRECTORY, Space, World, wants_memory};

impl World {
    pub(super) fn change_keyspaces(&mut self) {
        match self.random.below(4) {
            0 | 1 => self.create_keyspace(),
            2 => self.drop_keyspace(),
            _ => self.clear(),
        }
    }

    pub(super) fn create_keyspace(&mut self) {
        let name = format!("space {}", self.random.below(4));
        if self.spaces.iter().any(|space| space.name == name) {
            return;
        }
        self.note("create a keyspace");
        let options = self.keyspace_options();
        match self.risking(|| self.db().keyspace(&name, options)) {
            Ok(handle) if !self.fs.crashed() => self.add_space(name, Some(handle)),
            Err(error) if wants_memory(&error) => {}
            result => self.in_doubt(name, None, &result.map(drop)),
        }
    }

    fn drop_keyspace(&mut self) {
        let index = self.random.below(self.spaces.len());
        if self.spaces[index].number == 0 {
            return;
        }
        self.note("drop a keyspace");
        let Space { name, number, .. } = self.spaces.swap_remove(index);
        match self.risking(|| self.db().drop_keyspace(&name)) {
            Ok(()) if !self.fs.crashed() => self.promises.forget(number),
            result => self.in_doubt(name, Some(number), &result),
        }
    }

    fn add_space(&mut self, name: String, handle: Option<Keyspace>) {
        self.keyspaces_made += 1;
        self.spaces.push(Space { name, number: self.keyspaces_made, handle });
    }

    /// Creating a keyspace failed, or dropping the one with a number. It exists or not, and that must not change later.
    fn in_doubt(&mut self, name: String, number: Option<usize>, result: &Result<()>) {
        assert!(self.may_fail(), "a keyspace came or went: {result:?}");
        self.note("keyspace in doubt");
        let image = self.fs.process_crash();
        self.kill();
        self.fs = image;
        self.clear_faults();
        let db = self.options(true).open(DIRECTORY).unwrap();
        let there = db.keyspaces().contains(&name);
        db.close().unwrap();
        self.restart();
        match (number, there) {
            (None, true) => self.add_space(name, None),
            (None, false) => {}
            (Some(number), true) => self.spaces.push(Space { name, number, handle: None }),
            (Some(number), false) => self.promises.forget(number),
        }
        assert!(self.open());
        let found = self.state();
        self.promises.recover(found, false, None);
    }
}
