//! Two threads allocate from the frame books while a third gives a frame back.

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::check;
use crate::extents::{Demand, Evicted, Extents};
use crate::frame::{Frame, FrameNo, Owner};
use crate::policy::{CachePolicy, Use};
use crate::sync::lock;

const ANY_PAGE: Demand = Demand { units: 1, page: Owner::new(0, 0), part: 0, purpose: Use::Point };

struct Books {
    frames: Vec<Frame>,
    extents: Mutex<Extents>,
}

impl Books {
    fn allocate(&self) -> Option<FrameNo> {
        let mut evicted = Evicted::default();
        let frame = lock(&self.extents).allocate(&self.frames, ANY_PAGE, &mut evicted)?;
        self.frames[frame.index()].state.begin_load(1);
        Some(frame)
    }

    fn free(&self, frame: FrameNo) {
        self.frames[frame.index()].state.fail_load();
        lock(&self.extents).free(&self.frames, frame);
    }
}

#[test]
fn no_frame_is_given_twice_or_lost() {
    check(|| {
        let books = Arc::new(Books {
            frames: (0..2).map(|_| Frame::new()).collect(),
            extents: Mutex::new(Extents::new(2, 1, CachePolicy::Clock)),
        });
        let first = books.allocate().expect("two frames are free");

        let (one, two) = (Arc::clone(&books), Arc::clone(&books));
        let allocator = thread::spawn(move || one.allocate());
        let freer = thread::spawn(move || two.free(first));
        let mine = books.allocate();
        let theirs = allocator.join().unwrap();
        freer.join().unwrap();

        assert!(mine.is_some() || theirs.is_some(), "one frame was free all the time");
        assert!(mine != theirs, "{mine:?} twice");
        let used = usize::from(mine.is_some()) + usize::from(theirs.is_some());
        assert_eq!(lock(&books.extents).counts(1).free, 2 - used);
    });
}
