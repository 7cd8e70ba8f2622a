use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use event_listener::Event;
use nephrite_format::FileId;

/// Segment files that nobody reads any more.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    files: Mutex<Vec<FileId>>,
    /// How many have been removed.
    removed: AtomicU64,
    pub(crate) added: Event,
}

impl Garbage {
    pub(crate) fn add(&self, file: FileId) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        self.added.notify(1);
    }

    /// One of them is gone.
    pub(crate) fn note_removed(&self) {
        self.removed.fetch_add(1, Ordering::Relaxed); // a counter
    }

    /// How many are gone so far.
    pub(crate) fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed) // a counter
    }

    pub(crate) fn take(&self) -> Vec<FileId> {
        std::mem::take(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
