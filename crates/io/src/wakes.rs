//! Wakes that are held back until a batch of completions has been told.
//!
//! A ring's thread tells many completions in a row. A task that is woken by the first of them finds
//! little, goes back to sleep, and is woken again by the next: a wake-up and a sleep per transfer,
//! on two processors at once. Held back, they are one of each per batch.
//!
//! Guarantee: a wake is held only while its thread tells a batch, which it does without a pause;
//! when the batch ends, however it ends, every held waker is woken. Wakes on other threads, and
//! outside of batches, are not held at all.
//! Does not: merge wakers of different tasks. Of equal ones in a row only one is kept.
//! Checked below, and by the loom model `driver` with the forgotten wake as planted bug.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use crate::completion::abort_on_panic;
use crate::sync::thread_value;

#[derive(Default)]
struct Held {
    open: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

thread_value!(HELD: Held = Held::default());

/// Wakes a task, from inside an `on_complete`: together with the others of its batch, once the
/// thread has told all completions that it found together. Elsewhere it wakes at once.
pub fn wake_later(waker: Waker) {
    let mut waker = Some(waker);
    // A thread that is ending holds nothing.
    let taken = HELD.try_with(|held| held.take(&mut waker)).unwrap_or(false);
    // What is left of a duplicate is dropped here: a waker may run foreign code when it goes.
    if let Some(waker) = waker.filter(|_| !taken) {
        waker.wake();
    }
}

/// Wakes all that is held, and goes on holding. For a thread that is about to wait.
pub(crate) fn release_held() {
    // A thread that is ending holds nothing.
    let _ = HELD.try_with(Held::wake_all);
}

/// While it lives, wakes of this thread are held back. Only rings complete in batches.
#[cfg(any(target_os = "linux", test))]
pub(crate) struct WakeBatch {
    /// Whether a batch around this one ends it.
    inner: bool,
}

#[cfg(any(target_os = "linux", test))]
impl WakeBatch {
    pub(crate) fn begin() -> Self {
        Self { inner: HELD.try_with(|held| held.open.replace(true)).unwrap_or(true) }
    }
}

#[cfg(any(target_os = "linux", test))]
impl Drop for WakeBatch {
    fn drop(&mut self) {
        if self.inner || crate::planted::planted("held_wakes_forgotten") {
            return;
        }
        // A thread that is ending holds nothing.
        let _ = HELD.try_with(|held| {
            held.open.set(false);
            held.wake_all();
        });
    }
}

impl Held {
    /// Whether the waker's wake is taken care of.
    fn take(&self, waker: &mut Option<Waker>) -> bool {
        if !self.open.get() {
            return false;
        }
        let mut wakers = self.wakers.borrow_mut();
        let last = wakers.last().zip(waker.as_ref());
        if !last.is_some_and(|(last, waker)| last.will_wake(waker)) {
            wakers.extend(waker.take());
        }
        true
    }

    fn wake_all(&self) {
        let mut wakers = self.wakers.take();
        if wakers.is_empty() {
            return;
        }
        for waker in wakers.drain(..) {
            abort_on_panic("a waker", || waker.wake());
        }
        // For the next batch, unless a waker has held another one meanwhile.
        let mut place = self.wakers.borrow_mut();
        if place.is_empty() {
            *place = wakers;
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn value(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn outside_of_a_batch_a_wake_is_not_held() {
        let count = Arc::new(Count::default());

        wake_later(Arc::clone(&count).into());

        assert_eq!(count.value(), 1);
    }

    #[test]
    fn the_end_of_the_outermost_batch_wakes_each_task_once() {
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let batch = WakeBatch::begin();
        wake_later(Arc::clone(&first).into());
        drop(WakeBatch::begin());
        wake_later(Arc::clone(&first).into());
        wake_later(Arc::clone(&second).into());
        assert_eq!((first.value(), second.value()), (0, 0));

        drop(batch);

        assert_eq!((first.value(), second.value()), (1, 1));
    }

    #[test]
    fn a_thread_that_waits_inside_a_batch_lets_go_first() {
        let count = Arc::new(Count::default());
        let _batch = WakeBatch::begin();
        wake_later(Arc::clone(&count).into());

        release_held();

        assert_eq!(count.value(), 1);
    }

    #[test]
    fn other_threads_are_not_held_up() {
        let count = Arc::new(Count::default());
        let _batch = WakeBatch::begin();

        std::thread::scope(|scope| {
            scope.spawn(|| wake_later(Arc::clone(&count).into()));
        });

        assert_eq!(count.value(), 1);
    }
}
