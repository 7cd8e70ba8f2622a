//! The one door to atomics, locks and `Arc` for the concurrent code of this crate.
//!
//! A normal build gets the types of `std`, a build with `--cfg loom` those of the model checker
//! under the same names, so that the code that is checked is the code that ships. Everything that
//! takes part in a protocol imports from here. Two things do not, and say so where they stand:
//! statistics (nothing depends on their order) and the lazily made chunks of a page table.
//!
//! Locks: [`lock`] ignores poisoning. No critical section here runs a caller's code (wakers are
//! called after the lock is released), so a panic inside one is a bug of ours that the panic itself
//! already reports.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

/// Locks `mutex`, whether or not a thread panicked while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
