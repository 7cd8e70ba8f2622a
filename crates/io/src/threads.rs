//! The threads of this crate: named, marked, and ended by a panic together with the process.

use std::cell::Cell;
use std::io;
use std::thread::{Builder, JoinHandle};

use crate::completion::abort_on_panic;
use crate::sync::thread_flag;

thread_flag!(IS_IO_THREAD);
thread_flag!(WORKS_AT_ONCE);

/// Runs `work`; operations on names and lengths that it starts on a real disk meanwhile are carried
/// out by the calling thread before their future is given back, instead of by another thread that
/// has to be woken and to wake. For threads that may block and would only wait: not for an
/// executor's.
pub fn at_once<T>(work: impl FnOnce() -> T) -> T {
    let _mark = AtOnceMark { before: WORKS_AT_ONCE.with(|mark| mark.replace(true)) };
    work()
}

/// Whether the calling thread is inside [`at_once`].
pub(crate) fn works_at_once() -> bool {
    WORKS_AT_ONCE.with(Cell::get)
}

struct AtOnceMark {
    before: bool,
}

impl Drop for AtOnceMark {
    fn drop(&mut self) {
        WORKS_AT_ONCE.with(|mark| mark.set(self.before));
    }
}

/// Whether the caller runs on a thread of this crate: such a thread must not wait for room in a
/// queue that it, or a peer waiting the same way, is the one to empty.
pub(crate) fn is_io_thread() -> bool {
    IS_IO_THREAD.with(Cell::get)
}

/// Makes the calling thread one of this crate.
pub(crate) fn mark_io_thread() {
    IS_IO_THREAD.with(|mark| mark.set(true));
}

/// Marks the calling thread while it does the work of one of this crate, on Linux in a ring of its
/// own.
#[cfg(target_os = "linux")]
pub(crate) struct IoThreadMark {
    before: bool,
}

#[cfg(target_os = "linux")]
impl IoThreadMark {
    pub(crate) fn set() -> Self {
        Self { before: IS_IO_THREAD.with(|mark| mark.replace(true)) }
    }
}

#[cfg(target_os = "linux")]
impl Drop for IoThreadMark {
    fn drop(&mut self) {
        IS_IO_THREAD.with(|mark| mark.set(self.before));
    }
}

/// Starts a thread.
///
/// # Errors
///
/// When the system has no thread left (a limit of the user or of the container).
pub(crate) fn spawn(
    name: String,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name).spawn(move || {
        mark_io_thread();
        abort_on_panic("an I/O thread", run);
    })
}

/// Waits for a thread that has announced its end; does nothing when called on that thread.
pub(crate) fn join(handle: JoinHandle<()>) {
    if handle.thread().id() != std::thread::current().id() {
        // A panic has already ended the process (see `spawn`), so there is no error to look at.
        let _ = handle.join();
    }
}
