//! Two readers pin and look, an evictor takes the frame and writes another page into it.

use std::cell::Cell;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::check;
use crate::frame::{Frame, Owner};

struct Model {
    frame: Frame,
    bytes: UnsafeCell<u64>,
}

// SAFETY: what the model is there to check: loom fails it when two accesses to `bytes` conflict.
unsafe impl Sync for Model {}
// SAFETY: plain data.
unsafe impl Send for Model {}

impl Model {
    fn resident(page: u32) -> Self {
        let model = Self { frame: Frame::new(), bytes: UnsafeCell::new(0) };
        model.load(page);
        model
    }

    /// Loads a page into a frame that the caller owns.
    fn load(&self, page: u32) {
        self.frame.state.begin_load(1);
        self.frame.assign(Owner::new(1, page));
        // SAFETY: the frame is loading and ours.
        self.bytes.with_mut(|bytes| unsafe { *bytes = u64::from(page) });
        self.frame.state.finish_load(0);
        self.frame.state.unpin().expect("nobody waits");
    }

    /// What a reader of page 7 sees, if it is there.
    fn read(&self) -> Option<u64> {
        let before = self.frame.state.pin();
        let hit = before.is_readable() && self.frame.owner() == Owner::new(1, 7);
        // SAFETY: pinned, resident, our page.
        let seen = hit.then(|| self.bytes.with(|bytes| unsafe { *bytes }));
        self.frame.state.unpin().expect("nobody waits");
        seen
    }
}

#[test]
fn readers_never_meet_the_writer() {
    check(|| {
        let model = Arc::new(Model::resident(7));

        let readers: Vec<_> = (0..2)
            .map(|_| {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    if let Some(seen) = model.read() {
                        assert_eq!(seen, 7, "stale or foreign page");
                    }
                })
            })
            .collect();
        if model.frame.state.claim().is_some() {
            // The same page again: a reader may find it once it is published.
            model.load(7);
        }
        for reader in readers {
            reader.join().unwrap();
        }

        assert_eq!(model.frame.state.peek().pins(), 0);
    });
}

#[test]
fn only_one_of_two_evictors_gets_the_frame() {
    check(|| {
        let model = Arc::new(Model::resident(7));
        let other = Arc::clone(&model);

        let evictor = thread::spawn(move || other.frame.state.claim().is_some());
        let mine = model.frame.state.claim().is_some();
        let theirs = evictor.join().unwrap();

        assert!(mine != theirs, "one and only one");
    });
}

#[test]
fn a_mark_is_seen_by_the_last_pin_or_finds_it_gone() {
    check(|| {
        let model = Arc::new(Model::resident(7));
        model.frame.state.pin();
        let other = Arc::clone(&model);

        let reader = thread::spawn(move || {
            let state = &other.frame.state;
            let told = Cell::new(false);
            if state.unpin().is_err() {
                let before = state.unpin_flagged();
                told.set(before.pins() == 1 && before.is_wanted());
            }
            told.get()
        });
        let pinned = model.frame.state.want().pins() != 0;
        let told = reader.join().unwrap();

        assert_eq!(pinned, told, "a waiter that saw the pin must be told of its end");
    });
}
