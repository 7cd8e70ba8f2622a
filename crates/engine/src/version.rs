//! A version: everything a database consists of at one moment, immutable once published.
//!
//! Readers load the current version and look for an id in `active`, then in `frozen` and in
//! `segments`, newest first. Versions change under the database's write lock, a few times per
//! flush; readers take no lock.

use std::sync::Arc;

use crate::{memtable::Memtable, segment::Segment};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Version {
    /// Takes the writes.
    pub(crate) active: Arc<Memtable>,
    /// Full memtables on their way to disk, newest first.
    pub(crate) frozen: Vec<Arc<Memtable>>,
    /// Newest first.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Ids in the segments that are not deleted there.
    pub(crate) live_records: u64,
    /// Changes with every flush, also with one that leaves no segment behind; not with
    /// compactions.
    pub(crate) flushes: u64,
}

impl Version {
    /// All memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    /// Whether some write is not in a segment yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.memtables().any(|memtable| !memtable.is_empty())
    }

    /// `active` becomes the newest frozen memtable.
    pub(crate) fn frozen_with(&self, active: Arc<Memtable>) -> Self {
        let mut frozen = vec![Arc::clone(&self.active)];
        frozen.extend(self.frozen.iter().cloned());
        Self {
            active,
            frozen,
            segments: self.segments.clone(),
            live_records: self.live_records,
            flushes: self.flushes,
        }
    }

    /// The oldest frozen memtable became `segment` (or left nothing behind).
    pub(crate) fn flushed(
        &self,
        memtable: &Arc<Memtable>,
        segment: Option<Arc<Segment>>,
        live_records: u64,
    ) -> Self {
        let mut frozen = self.frozen.clone();
        frozen.retain(|other| !Arc::ptr_eq(other, memtable));
        let mut segments: Vec<_> = segment.into_iter().collect();
        segments.extend(self.segments.iter().cloned());
        Self {
            active: Arc::clone(&self.active),
            frozen,
            segments,
            live_records,
            flushes: self.flushes + 1,
        }
    }

    /// `inputs` became `output`, which takes their place (or left nothing behind).
    pub(crate) fn compacted(&self, inputs: &[Arc<Segment>], output: Option<Arc<Segment>>) -> Self {
        let is_input =
            |segment: &Arc<Segment>| inputs.iter().any(|input| Arc::ptr_eq(input, segment));
        let place = self.segments.iter().position(is_input).unwrap_or(0);
        let mut segments: Vec<_> =
            self.segments.iter().filter(|segment| !is_input(segment)).cloned().collect();
        if let Some(output) = output {
            segments.insert(place.min(segments.len()), output);
        }
        Self {
            active: Arc::clone(&self.active),
            frozen: self.frozen.clone(),
            segments,
            live_records: self.live_records,
            flushes: self.flushes,
        }
    }
}
