//! Readers and the clock's hand on one slot, in every order that the memory model allows:
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p lsm-core --release --test loom`
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use lsm_core::frame::{Frame, FrameSlot, Visit};

fn read(slot: &FrameSlot) {
    if let Some(pin) = slot.pin() {
        assert!(*pin == *b"one" || *pin == *b"two");
        let kept = pin.to_frame();
        drop(pin);
        assert!(*kept == *b"one" || *kept == *b"two");
    }
}

#[test]
fn frames_are_not_freed_while_they_are_read() {
    loom::model(|| {
        let slot = Arc::new(FrameSlot::default());
        assert!(slot.fill(Frame::copy_from(b"one")).is_ok());
        let reader = thread::spawn({
            let slot = Arc::clone(&slot);
            move || read(&slot)
        });
        for _ in 0..2 {
            if let Visit::Taken(frame) = slot.visit() {
                assert!(*frame == *b"one" || *frame == *b"two");
                drop(frame);
                assert!(slot.fill(Frame::copy_from(b"two")).is_ok());
            }
        }
        reader.join().unwrap();
    });
}

#[test]
fn two_readers_do_not_hide_each_other_from_an_evictor() {
    loom::model(|| {
        let slot = Arc::new(FrameSlot::default());
        assert!(slot.fill(Frame::copy_from(b"one")).is_ok());
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || {
                    if let Some(pin) = slot.pin() {
                        assert!(*pin == *b"one");
                    }
                })
            })
            .collect();
        drop(slot.take());
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
