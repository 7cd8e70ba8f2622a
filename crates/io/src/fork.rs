//! Whether this process was forked since: asked for every submission, so it must cost no system
//! call.
//!
//! A handler that the C library runs in the child of `fork` counts. Who forks past the C library
//! is not noticed; such a process must `exec` before it touches a disk.

/// Which process this is, counted from the first that asked.
#[cfg(unix)]
pub(crate) fn generation() -> u32 {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static GENERATION: AtomicU32 = AtomicU32::new(0);
    static HANDLED: OnceLock<bool> = OnceLock::new();

    extern "C" fn in_child() {
        // Relaxed: a forked child has one thread, and what it starts sees what came before.
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }

    let handled = *HANDLED.get_or_init(|| {
        // SAFETY: the handler only adds to a static, which is allowed after a fork; it lives as
        // long as the code of this crate.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) == 0 }
    });
    match handled {
        true => GENERATION.load(Ordering::Relaxed),
        // No memory for a handler: the slow way.
        false => std::process::id(),
    }
}

/// Nothing forks here.
#[cfg(not(unix))]
pub(crate) fn generation() -> u32 {
    0
}
