//! A scan in which a read fails returns the error. It never goes on without the key.

use std::io::ErrorKind;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{BuiltInMerge, Db, Options, Result, Slice};

fn open(fs: &SimFs) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(4 << 20).cache_bytes(0).vfs(Arc::new(fs.clone()));
    let options = options.merge_operator(Arc::new(BuiltInMerge::append(b",")));
    (Arc::clone(&env), options.env(env as Arc<dyn Env>).open("/db").unwrap())
}

/// The error of a seek to an operand used to be forgotten by the next seek.
#[test]
fn a_merged_key_is_found_in_both_directions_or_the_error_is_returned() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    let mut random = 1_u64;
    // Values that cannot be compressed, so that the keys take many blocks.
    let mut byte = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    };
    for _ in 0..2 {
        for key in 0..40 {
            db.merge(format!("key{key:02}"), (0..3000).map(&mut byte).collect::<Vec<u8>>()).unwrap();
        }
        db.flush().unwrap();
    }
    let expected: Vec<(Slice, Slice)> = db.iter().collect::<Result<_>>().unwrap();
    drop(db);
    env.drop_jobs();
    let mut failed_count = 0;
    for number in 0..60 {
        for backward in [false, true] {
            // Opened again, so that no block is in the cache.
            let fs = fs.process_crash();
            let (env, db) = open(&fs);
            let fault =
                fs.inject(Fault::on(OperationKind::Read, ErrorKind::Other).named(".sst").skip(number));
            let found: Result<Vec<_>> =
                if backward { db.iter().rev().collect() } else { db.iter().collect() };
            match found {
                Ok(mut found) => {
                    if backward {
                        found.reverse();
                    }
                    assert!(found == expected, "read {number}, backward: {backward}: {} keys", found.len());
                }
                Err(_) => failed_count += fault.fired(),
            }
            drop(db);
            env.drop_jobs();
        }
    }
    assert!(failed_count > 10, "only {failed_count} reads failed");
}
