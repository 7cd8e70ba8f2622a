//! Models: the concurrency of this crate under every interleaving that loom finds.
//!
//! They run the shipped code with the types of the model checker (`sync.rs`); those of rings are
//! in `uring/loom_models`. The sleep in the kernel is a flag behind a lock (`uring/event.rs`), the
//! ring itself completes at once what it was given, and `crossbeam-queue` is replaced by a queue
//! that promises less (`sync/queue.rs`).
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test --release -p nephrite-io --lib loom_models
//! ```
//!
//! A model that passes shows little unless it can fail. So there are bugs that can be planted in
//! the code (see `planted`), and `crates/io/loom.sh`, which runs the models as they are and once
//! for each bug, demands that the model fails with the right complaint. The list is there.
//!
//! A lost wake-up shows as a deadlock: somebody sleeps, and nobody is left to wake.
//! loom treats sequentially consistent accesses as acquire and release; fences it knows. So the
//! code needs no more than that: publish-then-look uses fences, the rest Acquire and Release.

mod completion;
mod ticket;

use std::sync::Arc;

use crate::file::{FileHandle, OpenOptions};
use crate::request::{Completed, Operation, Request};

/// Runs a model with room for the longest paths. `LOOM_MAX_PREEMPTIONS` bounds it.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(model);
}

/// Some file that is open; no model transfers anything. Models that run beside each other have one
/// each, since syncs of one file wait for each other.
pub(crate) fn file() -> FileHandle {
    thread_local! {
        static FILE: FileHandle =
            FileHandle::open("/dev/null".as_ref(), OpenOptions::read_write().direct(false))
                .expect("every system has this file");
    }
    FILE.with(FileHandle::clone)
}

/// A sync of that file.
pub(crate) fn request(on_complete: impl FnOnce(Completed) + Send + 'static) -> Request {
    Request { file: file(), operation: Operation::Sync, on_complete: Box::new(on_complete) }
}

/// Counts what has ended. Not part of any protocol, so no type of the model checker.
#[derive(Clone, Default)]
pub(crate) struct Ended(Arc<std::sync::atomic::AtomicUsize>);

impl Ended {
    pub(crate) fn request(&self) -> Request {
        let ended = self.clone();
        request(move |_| ended.note())
    }

    pub(crate) fn note(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}
