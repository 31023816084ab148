use std::path::Path;
use std::sync::Arc;

use lsm_engine::CheckpointOptions;
use lsm_engine::env::Env;
use lsm_engine::vfs::Vfs;

use lsm_dev::Wide;

use crate::manifest;
use crate::reads::rows;

use super::model::{State, difference, same};
use super::world::{World, wants_memory};

/// Number of checkpoints that were compared with the model.
pub(super) const CHECKPOINT: &str = "a checkpoint";

impl World {
    /// Makes a checkpoint, while calls may fail and the process may crash.
    pub(super) fn make_checkpoint(&mut self) {
        self.note("checkpoint");
        self.copies += 1;
        let target = format!("/data/copy{}", self.copies);
        let options = CheckpointOptions::new().flush_above([0, 10_000, u64::MAX][self.random.below(3)]);
        match self.risking(|| self.db().checkpoint_with(&target, &options)) {
            // A dead process makes nothing. What is there is whole.
            _ if self.fs.crashed() => self.check_copy(&target, false),
            Ok(_) => self.check_copy(&target, true),
            Err(error) => assert!(self.may_fail() || wants_memory(&error), "checkpoint: {error}"),
        }
    }

    /// Opens a copy on a disk that has lost its power, and compares it with what readers of the database see.
    fn check_copy(&mut self, target: &str, is_there: bool) {
        let image = if is_there { self.power_cut() } else { self.fs.process_crash() };
        if !is_there && image.metadata(Path::new(target)).is_err() {
            return;
        }
        image.set_open_files_max(None);
        manifest::verify_log(&image, Path::new(target), &|| target.to_owned());
        if self.short.is_some() {
            // Its memtables would get no memory either.
            return;
        }
        let env = Arc::new(Wide::new(self.random.next()));
        let memory = self.memory;
        let options = self.options(true).vfs(Arc::new(image)).env(Arc::clone(&env) as Arc<dyn Env>);
        self.memory = memory;
        let db = options.open(target).unwrap_or_else(|error| panic!("{target}: {error}"));
        let mut found = State::new();
        for index in 0..self.spaces.len() {
            let options = self.keyspace_options();
            let keyspace = match self.spaces[index].number {
                0 => db.default_keyspace(),
                _ => db.keyspace(&self.spaces[index].name, options).unwrap(),
            };
            let entries = rows(keyspace.iter()).unwrap();
            found.insert(self.spaces[index].number, entries.into_iter().collect());
        }
        found.retain(|_, model| !model.is_empty());
        let expected = self.promises.now();
        assert!(same(expected, &found), "{target}: differ{}", difference(expected, &found));
        drop(db);
        env.drop_jobs();
        self.count(CHECKPOINT);
    }
}
