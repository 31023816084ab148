//! Random things done to a log, with or without a crash on the way, against a model.

mod simulation;

use lsm_core::env::SimEnv;
use lsm_core::vfs::SimFs;
use lsm_wal::RecoveryMode;
use proptest::prelude::*;
use simulation::{Step, options, read_only, run};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0_usize..1500).prop_map(Step::Append),
        1 => (3000_usize..12_000).prop_map(Step::Append),
        3 => Just(Step::Sync),
        2 => Just(Step::Jobs),
        1 => Just(Step::Reopen),
        1 => Just(Step::Close),
        1 => (0_usize..8).prop_map(Step::KeepLast),
        1 => Just(Step::Begin),
        1 => (0_usize..5).prop_map(Step::Forget),
    ];
    proptest::collection::vec(step, 1..60).prop_map(|mut steps| {
        // Keep and forget no more than there is.
        let (mut count, mut front) = (0, 0);
        for step in &mut steps {
            match step {
                Step::Append(_) => count += 1,
                Step::KeepLast(keep) => {
                    *keep = (*keep).min(count - front);
                    front = count - *keep;
                }
                Step::Forget(forget) => {
                    *forget = (*forget).min(count - front);
                    count -= *forget;
                }
                _ => {}
            }
        }
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_the_model_holds(
        steps in steps(),
        window_bytes in prop_oneof![Just(0), Just(256), Just(1000), Just(1 << 14)],
        crash_percent in 0_u64..130,
        seed in any::<u64>(),
    ) {
        let options = options(window_bytes);
        let fs = SimFs::new();
        let (model, error) = run(&fs, &SimEnv::new(seed), &options, &steps);
        prop_assert!(error.is_none(), "{error:?}");
        let found = read_only(&fs.process_crash(), RecoveryMode::Strict).unwrap();
        model.check(&found, false, &|| "without a crash".to_owned());

        let dead = SimFs::new();
        dead.crash_at(fs.operations() * crash_percent / 100);
        let (model, _) = run(&dead, &SimEnv::new(seed), &options, &steps);
        let found = read_only(&dead.process_crash(), RecoveryMode::TolerateTornTail).unwrap();
        model.check(&found, false, &|| format!("killed at {:?}", dead.last_operation()));
        for image in dead.crash_images().at_most(40).with_seed(seed) {
            let found = read_only(&image.fs, RecoveryMode::TolerateTornTail).unwrap();
            let what = || format!("power cut at {:?}, {}", dead.last_operation(), image.description);
            model.check(&found, true, &what);
        }
    }
}
