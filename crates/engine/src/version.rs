//! A version: everything a database consists of at one moment, immutable once published.
//!
//! Readers load the current version and look for an id in `active`, then in `frozen` and in
//! `segments`, newest first, where the directory says which segments can have it. Versions change
//! under the database's write lock, a few times per flush; readers take no lock.

use std::sync::Arc;

use nephrite_format::IdRef;

use crate::{directory::Directory, known_rows::KnownRows, memtable::Memtable, segment::Segment};

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
    /// Of `segments`.
    directory: Directory,
    /// Of `segments`.
    known: Option<KnownRows>,
}

impl Version {
    /// Of a database that was just opened: `segments` newest first.
    pub(crate) fn new(
        active: Arc<Memtable>,
        segments: Vec<Arc<Segment>>,
        live_records: u64,
    ) -> Self {
        let directory = Directory::new(&segments);
        let known = KnownRows::of(&segments, directory.prefix());
        Self { active, frozen: Vec::new(), segments, live_records, flushes: 0, directory, known }
    }

    /// The segments that can hold an id with their positions, newest first.
    #[inline]
    pub(crate) fn candidates(&self, id: IdRef<'_>) -> impl Iterator<Item = (usize, &Arc<Segment>)> {
        self.directory.candidates(id).map(|position| (position, &self.segments[position]))
    }

    /// The only segment that can hold an id, where that is told at a glance.
    #[inline]
    pub(crate) fn sole_candidate(&self, id: IdRef<'_>) -> Option<usize> {
        self.directory.sole_candidate(id)
    }

    /// Rows of the segments that were found lately; `None` when finding is a subtraction.
    #[inline]
    pub(crate) fn known(&self) -> Option<&KnownRows> {
        self.known.as_ref()
    }

    /// Whether an id can be in more than one segment.
    #[inline]
    pub(crate) fn has_overlaps(&self) -> bool {
        self.directory.has_overlaps()
    }

    /// All memtables, newest first.
    pub(crate) fn memtables(&self) -> impl DoubleEndedIterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    /// Whether some write is not in a segment yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.memtables().any(|memtable| !memtable.is_empty())
    }

    /// [`Self::flushes`] once all that is frozen now has been flushed.
    pub(crate) fn flushes_of_frozen(&self) -> u64 {
        self.flushes + self.frozen.len() as u64
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
            directory: Directory::new(&self.segments),
            known: self.known.clone(),
        }
    }

    /// Of a database that was dropped.
    pub(crate) fn emptied(&self, active: Arc<Memtable>) -> Self {
        Self { flushes: self.flushes + 1, ..Self::new(active, Vec::new(), 0) }
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
        let directory = Directory::new(&segments);
        Self {
            active: Arc::clone(&self.active),
            frozen,
            known: KnownRows::of(&segments, directory.prefix()),
            directory,
            segments,
            live_records,
            flushes: self.flushes + 1,
        }
    }

    /// `inputs` became `output`, which takes their place (or left nothing behind).
    pub(crate) fn compacted(
        &self,
        inputs: &[Arc<Segment>],
        output: Option<Arc<Segment>>,
        live_records: u64,
    ) -> Self {
        let is_input =
            |segment: &Arc<Segment>| inputs.iter().any(|input| Arc::ptr_eq(input, segment));
        let place = self.segments.iter().position(is_input).unwrap_or(0);
        let mut segments: Vec<_> =
            self.segments.iter().filter(|segment| !is_input(segment)).cloned().collect();
        if let Some(output) = output {
            segments.insert(place.min(segments.len()), output);
        }
        let directory = Directory::new(&segments);
        Self {
            active: Arc::clone(&self.active),
            frozen: self.frozen.clone(),
            known: KnownRows::of(&segments, directory.prefix()),
            directory,
            segments,
            live_records,
            flushes: self.flushes,
        }
    }
}
