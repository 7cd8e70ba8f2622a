use std::sync::{Mutex, PoisonError};

use event_listener::Event;
use nephrite_format::FileId;

/// Segment files that nobody reads any more.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    files: Mutex<Vec<FileId>>,
    pub(crate) added: Event,
}

impl Garbage {
    pub(crate) fn add(&self, file: FileId) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        self.added.notify(1);
    }

    pub(crate) fn take(&self) -> Vec<FileId> {
        std::mem::take(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
