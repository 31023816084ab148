//! After a new segment was begun, all earlier records can be removed: none of their bytes is in any file, the window
//! included, and none comes back after a power cut.

mod simulation;

use std::path::Path;

use lsm_core::env::SimEnv;
use lsm_core::vfs::{AllKept, AllLost, SimFs, Vfs};
use lsm_wal::{Log, Position};
use simulation::{DIRECTORY, open, options};

const SECRET: &[u8] = b"a value that must go";

/// The files that hold the secret.
fn holders(fs: &SimFs) -> Vec<String> {
    let directory = Path::new(DIRECTORY);
    let holds = |name: &String| {
        let bytes = fs.read_all(&directory.join(name)).unwrap();
        bytes.windows(SECRET.len()).any(|part| part == SECRET)
    };
    fs.read_dir(directory).unwrap().into_iter().filter(holds).collect()
}

#[test]
fn nothing_of_what_was_truncated_is_in_a_file() {
    for window_bytes in [0, 1024, 8192] {
        let (fs, env) = (SimFs::new(), SimEnv::new(1));
        let (mut log, _) = open(&fs, &env, &options(window_bytes)).unwrap();
        for tag in 0..20 {
            log.append(tag, SECRET).unwrap();
            env.run_until_idle();
        }
        assert!(!holders(&fs).is_empty());
        let begin = log.sync_handle().begin_segment().unwrap();
        assert_eq!(begin, log.end());
        // A segment without records need not be left.
        assert_eq!(log.sync_handle().begin_segment().unwrap(), begin);
        let end = log.append(100, b"stays").unwrap();
        log.sync_handle().truncate_front(begin).unwrap();
        assert_eq!(holders(&fs), [""; 0], "window of {window_bytes} bytes");
        assert_eq!(holders(&fs.power_cut(&mut AllLost)), [""; 0], "window of {window_bytes} bytes");
        assert_eq!(holders(&fs.power_cut(&mut AllKept)), [""; 0], "window of {window_bytes} bytes");
        let mut left = log.read_from(Position::ZERO).unwrap();
        let record = left.next().unwrap().unwrap();
        assert_eq!((record.tag, record.end), (100, end));
        assert!(left.next().unwrap().is_none());
        drop(log);
        env.drop_jobs();
    }
}
