//! Kills a real process that writes a log, again and again, with SIGKILL, and looks for every record that it had
//! acknowledged over a pipe.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lsm_core::env::ThreadEnv;
use lsm_core::vfs::PosixFs;
use lsm_wal::{Log, LogExpectation, RecoveryMode, Wal, WalOptions, WalReader};

const DIRECTORY: &str = "LSM_WAL_TEST_DIRECTORY";
const WINDOW_BYTES: &str = "LSM_WAL_TEST_WINDOW_BYTES";

fn payload(tag: u64) -> Vec<u8> {
    let len = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    (0..len).map(|byte| (byte * 3 + tag) as u8).collect()
}

/// What the child does; as a test of its own it does nothing.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let window_bytes = std::env::var(WINDOW_BYTES).unwrap().parse().unwrap();
    let options = WalOptions { segment_bytes: 256 << 10, window_bytes, ..WalOptions::default() };
    let env = Arc::new(ThreadEnv::new(1));
    let (mut log, report) = Wal::open(Arc::new(PosixFs), env, Path::new(&directory), options).unwrap();
    let mut acknowledge = std::io::stderr();
    for tag in report.last_tag.map_or(0, |tag| tag + 1).. {
        let position = log.append(tag, &payload(tag)).unwrap();
        if tag % 1000 == 999 {
            log.ticket(position).wait().unwrap();
        }
        acknowledge.write_all(&tag.to_le_bytes()).unwrap();
    }
}

#[test]
fn every_acknowledged_record_is_found_after_sigkill() {
    for window_bytes in ["0", "4096", "65536", "524288"] {
        let directory = tempfile::tempdir().unwrap();
        let mut expected = 0;
        for round in 0..6_u64 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
                .env(DIRECTORY, directory.path())
                .env(WINDOW_BYTES, window_bytes)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut pipe = child.stderr.take().unwrap();
            // The kill lands anywhere: in a copy, in a drain, in a sync, in a rotation.
            let patience = 1 + round * 977 % 4000;
            let mut tag = [0; 8];
            let mut last = None;
            for _ in 0..patience {
                pipe.read_exact(&mut tag).unwrap();
                last = Some(u64::from_le_bytes(tag));
            }
            child.kill().unwrap();
            while pipe.read_exact(&mut tag).is_ok() {
                last = Some(u64::from_le_bytes(tag));
            }
            child.wait().unwrap();

            let mode = RecoveryMode::TolerateTornTail;
            let mut reader =
                WalReader::open(Arc::new(PosixFs), directory.path(), &LogExpectation::default(), mode)
                    .unwrap();
            let mut count = 0;
            while let Some(record) = reader.next().unwrap() {
                assert_eq!(record.tag, count, "records come in order");
                assert_eq!(record.payload, payload(count));
                count += 1;
            }
            let acknowledged = last.unwrap() + 1;
            assert!(acknowledged > expected, "the child went on where the log ended");
            // The last one may have been written without the acknowledgement getting out.
            assert!(count == acknowledged || count == acknowledged + 1, "{count} of {acknowledged} are left");
            expected = count;
        }
    }
}
