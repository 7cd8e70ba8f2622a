//! Records of a cached file: the look-ups of those who want one record, not the page.
//!
//! A reader of records asks [`CachedFile::try_hit`], then [`CachedFile::part`], then
//! [`CachedFile::get_record`], and tells with [`CachedFile::note_read`] what it read of a page that
//! it got that way. Records that were read may stay in memory when their page goes; why and where
//! is told in `retention.rs` and `slots.rs`.
//!
//! Guarantee: a part is the bytes of its page. Files do not change, so it needs no invalidation but
//! with its file. A guard of a part is as good as one of a page, and as cheap: no lock, no
//! allocation. It is not charged to the pin budget: what slots hold is bounded, and nobody waits
//! for it.
//! Tested in `retention/tests.rs`.

use std::sync::Arc;

use crate::file::{CachedFile, Lookup};
use crate::guard::{FramePin, PageGuard};
use crate::load::Load;
use crate::policy::Use;
use crate::shared::Shared;

impl CachedFile {
    /// As [`CachedFile::get`], for the sake of the record that begins at byte `start`. That tells
    /// the cache what more memory for pages, or for records, would have saved. When the record is
    /// found, [`CachedFile::note_read`] tells so.
    #[inline]
    pub fn get_record(self: &Arc<Self>, page: u32, start: u32) -> Lookup {
        self.look_up(page, Use::Point, start)
    }

    /// As [`CachedFile::start_load`], for the sake of a record ([`CachedFile::get_record`]).
    pub fn start_load_of_record(self: &Arc<Self>, page: u32, start: u32) -> Option<Load> {
        self.start(page, Use::Point, start)
    }

    /// A record that stayed in memory when its page went: a guard of the bytes of the page from
    /// `part_start` on, which is returned beside it, to the end of the part in which `start` lies.
    /// To be asked when [`CachedFile::try_hit`] has nothing, before the page is read.
    pub fn part(&self, page: u32, start: u32) -> Option<(PageGuard, u32)> {
        let parts = self.parts?;
        let part = parts.part_of(start);
        let record = parts.record(self.owner(page), part);
        let slots = &self.shared().slots;
        let slot = match slots.pin(parts.size(), record)? {
            Ok(slot) => slot,
            Err(other) => {
                self.unpin(other);
                return None;
            }
        };
        self.shared().hits.count();
        self.shared().slot_hits.count();
        let (offset, length) = (slots.offset_bytes(parts.size(), slot), parts.length_of(part));
        // SAFETY: the pin made by `pin`, which saw this record in the slot.
        let pin =
            unsafe { FramePin::in_slot(Shared::pointer(self.shared()), slot, offset, length) };
        // SAFETY: as above; it is handed over once.
        let guard = unsafe { pin.guard() };
        Some((guard, parts.start_of(part)))
    }

    /// Whether [`CachedFile::part`] would have it: a hint.
    pub fn has_part(&self, page: u32, start: u32) -> bool {
        self.parts.is_some_and(|parts| {
            let record = parts.record(self.owner(page), parts.part_of(start));
            self.shared().slots.find(parts.size(), record).is_some()
        })
    }

    /// Tells that the record at byte `start` of a page of this file was read, if that did not go
    /// through [`CachedFile::try_hit`].
    pub fn note_read(&self, guard: &PageGuard, start: u32) {
        if self.parts.is_some() {
            guard.note_part(self.part_of(start));
        }
    }
}
