//! Range deletes cost writers and readers little, even if there are many.

use std::sync::Arc;

use lsm_engine::Options;
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// This test would take minutes if each iterator made a list of all earlier range deletes.
#[test]
fn iterators_see_earlier_range_deletes_and_no_later_ones() {
    const DELETES: u32 = 20_000;
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.open("/db").unwrap();
    for number in 0..=4 * DELETES {
        db.put(key(number), b"value").unwrap();
    }
    let mut old = None;
    for round in 0..DELETES {
        // Every second delete touches the previous one, so that some are joined and some are not.
        let from = 4 * round + round % 2;
        let before = db.range(key(from)..);
        db.delete_range(key(from)..key(from + 3)).unwrap();
        let mut after = db.range(key(from)..);
        let first = |entry: Option<lsm_engine::Result<(lsm_engine::Slice, _)>>| entry.unwrap().unwrap().0;
        assert_eq!(first(after.next()), key(from + 3), "{round}");
        if round > 0 {
            let last_before = if round % 2 == 0 { from - 4 } else { from - 1 };
            assert_eq!(first(db.range(..key(from + 3)).next_back()), key(last_before), "{round}");
        }
        if let Some((mut iterator, from)) = old.replace((before, from)) {
            let iterator: &mut lsm_engine::Iter = &mut iterator;
            assert_eq!(first(iterator.next()), key(from), "an iterator changed in round {round}");
        }
    }
    drop(old);
    // Three of each four keys are deleted, in memory and in tables.
    assert_eq!(db.iter().count() as u32, DELETES + 1);
    db.flush().unwrap();
    assert_eq!(db.iter().count() as u32, DELETES + 1);
    drop(db);
    env.drop_jobs();
}
