//! A future that looks at a plain flag, on a thread that parks between polls.

use std::sync::Arc;
use std::task::Wake as _;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::loom_models::check;
use crate::uring::intake::Intake;
use crate::uring::notify::Notify;
use crate::uring::wake::Wake;

/// The first wake is in vain; the second one comes while the first is being answered.
#[test]
fn a_wake_during_a_poll_leads_to_another_poll() {
    check(|| {
        let intake = Arc::new(Intake::new(Wake::new().unwrap()));
        let notify = Arc::new(Notify::new(Arc::clone(&intake)));
        let ready = Arc::new(AtomicBool::new(false));

        let (waker, flag) = (Arc::clone(&notify), Arc::clone(&ready));
        let other = thread::spawn(move || {
            waker.wake_by_ref();
            flag.store(true, Ordering::Release);
            waker.wake_by_ref();
        });
        // The order of steps is that of `CallerCore::run`.
        loop {
            notify.begin_poll();
            if ready.load(Ordering::Acquire) {
                break;
            }
            while !notify.is_set() {
                intake.wake().park_unless(|| notify.is_set());
            }
        }
        other.join().unwrap();
    });
}
