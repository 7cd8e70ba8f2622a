//! Two threads end, one of them leaving something behind, while somebody waits for both.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use crate::completion::block_on;
use crate::loom_models::check;
use crate::uring::latch::EndLatch;

/// A latch with two threads that end.
fn ending() -> (Arc<EndLatch>, Vec<thread::JoinHandle<()>>) {
    let latch = Arc::new(EndLatch::new());
    let guards = [latch.enter(), latch.enter()];
    let end = |guard: super::super::latch::EndGuard| {
        thread::spawn(move || {
            guard.leave_behind(1);
            drop(guard);
        })
    };
    let threads = guards.into_iter().map(end).collect();
    (latch, threads)
}

#[test]
fn watchers_learn_of_the_last_end() {
    check(|| {
        let (latch, threads) = ending();

        assert_eq!(block_on(latch.watch()), Some(2), "operations of one thread are missing");
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_blocking_wait_ends_with_the_last_thread() {
    check(|| {
        let (latch, threads) = ending();

        assert!(latch.wait(Duration::MAX));
        assert_eq!(block_on(latch.watch()), Some(2));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
