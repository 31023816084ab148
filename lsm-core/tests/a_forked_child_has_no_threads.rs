//! What `ThreadEnv` does in a child by `fork`, where its workers are missing.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "there is no safe way to fork")]

use lsm_core::env::{Env, ThreadEnv};

/// Runs `child` in a child process, and returns whether it said yes in time.
fn fork(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: other threads of the test may hold locks at this moment. The child takes none of theirs, except for memory,
    // whose allocator puts itself in order; it calls `_exit`, so it runs no destructors of the parent.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: plain system calls. One that waits for ever is ended by the signal.
        unsafe {
            libc::alarm(60);
            libc::_exit(i32::from(!child()));
        }
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[test]
fn an_environment_knows_its_process() {
    let env = ThreadEnv::new(2);
    assert!(!env.is_forked());
    assert!(fork(|| env.is_forked()));
    assert!(!env.is_forked(), "still the parent");
    assert!(fork(|| !ThreadEnv::new(1).is_forked()), "made in the child");
}

#[test]
fn a_child_that_drops_an_environment_waits_for_no_thread() {
    let env = ThreadEnv::new(2);
    assert!(fork(|| {
        drop(env);
        true
    }));
}
