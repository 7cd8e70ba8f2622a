//! The one door to atomics, locks, queues and parking for the concurrent code of this crate.
//!
//! A normal build gets the types of `std` and `crossbeam-queue`, a build with `--cfg loom` those of
//! the model checker under the same names, so that the code that is checked is the code that ships.
//! Everything that takes part in a protocol imports from here. `Arc` does not: its count orders
//! only the last drop, and its methods on `self` have no counterpart in the model checker.
//!
//! Locks: [`lock`] ignores poisoning. No critical section of this crate runs a caller's code
//! (wakers, values and completions go after the lock is released), so a panic inside one is a bug
//! of ours that the panic itself already reports.
//! Does not: cover the positional pool, which has one mutex and no ordering of its own.

#[cfg(loom)]
mod queue;

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
};

/// What only rings need.
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) use {
    crossbeam_queue::ArrayQueue,
    std::sync::Condvar,
    std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, fence},
};

#[cfg(all(target_os = "linux", loom))]
pub(crate) use {
    loom::sync::Condvar,
    loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, fence},
    queue::ArrayQueue,
};

/// A value that each thread has of its own.
macro_rules! thread_value {
    ($name:ident: $type:ty = $value:expr) => {
        #[cfg(not(loom))]
        std::thread_local! {
            static $name: $type = $value;
        }
        #[cfg(loom)]
        loom::thread_local! {
            static $name: $type = $value;
        }
    };
}
pub(crate) use thread_value;

/// A flag that each thread has of its own, at first false.
macro_rules! thread_flag {
    ($name:ident) => {
        #[cfg(not(loom))]
        std::thread_local! {
            static $name: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
        }
        #[cfg(loom)]
        loom::thread_local! {
            static $name: std::cell::Cell<bool> = std::cell::Cell::new(false);
        }
    };
}
pub(crate) use thread_flag;

/// Locks `mutex`, whether or not a thread panicked while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits for a notification.
#[cfg(target_os = "linux")]
pub(crate) fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits while `condition` holds; false when the time was up first.
#[cfg(all(target_os = "linux", not(loom)))]
pub(crate) fn wait_while<T>(
    changed: &Condvar,
    guard: MutexGuard<'_, T>,
    timeout: std::time::Duration,
    condition: impl Fn(&T) -> bool,
) -> bool {
    let waited = changed.wait_timeout_while(guard, timeout, |value| condition(value));
    let (_guard, result) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
    !result.timed_out()
}

/// The model checker knows no time: it waits for ever, and calls that a deadlock.
#[cfg(all(target_os = "linux", loom))]
pub(crate) fn wait_while<T>(
    changed: &Condvar,
    mut guard: MutexGuard<'_, T>,
    _timeout: std::time::Duration,
    condition: impl Fn(&T) -> bool,
) -> bool {
    while condition(&guard) {
        guard = wait(changed, guard);
    }
    true
}
