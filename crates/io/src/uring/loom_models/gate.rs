//! Two callers' rings become busy and idle again while the disk is closed.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::completion::block_on;
use crate::loom_models::check;
use crate::uring::gate::Gate;
use crate::uring::latch::EndLatch;

#[test]
fn a_shutdown_waits_for_the_rings_that_are_busy_and_no_other_becomes_so() {
    check(|| {
        let latch = Arc::new(EndLatch::new());
        let gate = Arc::new(Gate::new(latch.enter()));
        let (busy, stuck) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ring = || {
            let (gate, busy, stuck) = (Arc::clone(&gate), Arc::clone(&busy), Arc::clone(&stuck));
            thread::spawn(move || {
                if gate.enter() {
                    busy.fetch_add(1, Ordering::Relaxed);
                    stuck.fetch_add(1, Ordering::Relaxed);
                    busy.fetch_sub(1, Ordering::Relaxed);
                    gate.leave(1);
                }
            })
        };
        let rings = [ring(), ring()];

        gate.close();
        let left_behind = block_on(latch.watch()).unwrap();

        assert_eq!(busy.load(Ordering::Relaxed), 0, "a ring is busy after the end");
        let counted = stuck.load(Ordering::Relaxed);
        assert_eq!(left_behind, counted, "operations of a ring are missing");
        for ring in rings {
            ring.join().unwrap();
        }
        assert_eq!(stuck.load(Ordering::Relaxed), counted, "a ring became busy after the end");
    });
}
