//! Cached file: the page table of one file, and the look-up of its pages.
//!
//! The path of a hit: table entry (Acquire), a look at the frame, pin it (one addition), compare
//! state and owner, count the reference, make the guard. No lock, no allocation, no reference
//! count, no loop. All else is a miss and goes through `look_up_slow`.
//!
//! The comparison is needed because a table entry may be stale. It cannot be fooled: under the pin
//! the owner does not change; owners of living files are distinct; and a file whose key was used
//! before starts with an empty table, so it meets no frame of its predecessor.
//!
//! Does not: read anything. The getter that gets `Load` reads.
//! Checked by the loom model `whole_path` (with the comparison left out as planted bug) and the
//! tests of `pager.rs`.

use std::ops::Range;
use std::sync::Arc as StdArc;
use std::sync::atomic::Ordering::Relaxed;

use crate::bypass::Bypass;
use crate::config::FileParts;
use crate::extents::Demand;
use crate::frame::{Frame, FrameNo, Owner};
use crate::frame_state::Word;
use crate::frame_wait::FrameWait;
use crate::guard::{FramePin, PageGuard};
use crate::load::{Load, LoadWait};
use crate::load_table::LoadCell;
use crate::page_table::PageTable;
use crate::planted::planted;
use crate::policy::Use;
use crate::shared::{Credit, Shared};
use crate::sync::{Arc, lock};
use crate::trace::{PageRead, TRACE_UNIT_BYTES, TraceRecorder};

/// The pages of one immutable file in the cache.
///
/// Dropping it frees its frames: those without a pin at once, the others with their last guard.
#[derive(Debug)]
pub struct CachedFile {
    shared: Arc<Shared>,
    table: PageTable,
    key: u32,
    page_count: u32,
    page_bytes: u32,
    frame_units: u8,
    pub(crate) parts: Option<FileParts>,
    /// See [`FileParts::scale`]; zero without parts.
    part_scale: u64,
    trace: Option<FileTrace>,
}

/// The pages of a file: how many, of how many bytes and units, cut into which parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages {
    pub(crate) count: u32,
    pub(crate) bytes: u32,
    pub(crate) units: u8,
    pub(crate) parts: Option<FileParts>,
}

/// The recorder of reads, and the number that this file has there.
#[derive(Debug)]
pub(crate) struct FileTrace {
    recorder: StdArc<TraceRecorder>,
    number: u32,
}

impl FileTrace {
    pub(crate) fn new(recorder: &StdArc<TraceRecorder>) -> Self {
        Self { recorder: StdArc::clone(recorder), number: recorder.number_file() }
    }
}

/// The answer to a look-up.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a caller that ignores a case loses a page or a wake")]
pub enum Lookup {
    /// The page is here.
    Hit(PageGuard),
    /// The page is not here, and this caller must load it.
    Load(Load),
    /// Somebody else is loading the page.
    Wait(LoadWait),
    /// No frame can be had, for as long as others hold what they hold: read the page past the
    /// cache, if [`CachedFile::look`] does not have it.
    Bypass(Bypass),
    /// Too much is pinned or loading, and as much as may be is being read past the cache: wait,
    /// then look up again. Give up guards you do not need.
    Full(FrameWait),
}

/// A try to pin a page that may be resident.
enum Pinned {
    Yes(FramePin),
    /// Resident, but the pin budget is used up.
    Refused,
    No,
}

impl CachedFile {
    pub(crate) fn new(
        shared: Arc<Shared>,
        table: PageTable,
        key: u32,
        pages: Pages,
        trace: Option<FileTrace>,
    ) -> Self {
        let Pages { count: page_count, bytes: page_bytes, units: frame_units, parts } = pages;
        let part_scale = parts.map_or(0, FileParts::scale);
        let table_bytes = PageTable::directory_bytes(page_count) as u64;
        shared.counters.table_bytes.fetch_add(table_bytes, Relaxed);
        Self { shared, table, key, page_count, page_bytes, frame_units, parts, part_scale, trace }
    }

    /// Looks a page up. Never blocks on I/O or on other users of the cache.
    ///
    /// # Panics
    ///
    /// When `page` is not below [`CachedFile::page_count`]. A page number that was read from disk
    /// must be checked by the caller.
    #[inline]
    pub fn get(self: &StdArc<Self>, page: u32) -> Lookup {
        self.look_up(page, Use::Point, 0)
    }

    /// Looks a page up for a scan: like [`CachedFile::get`], but a hit does not count as a use, and
    /// a miss takes a frame that a scan filled before, once a sixteenth of the frames are such. So
    /// a scan neither keeps pages in the cache that point look-ups would let go, nor drives out
    /// what they use.
    pub fn get_for_scan(self: &StdArc<Self>, page: u32) -> Lookup {
        self.look_up(page, Use::Scan, 0)
    }

    /// Starts the load of a page that is neither here nor on its way, if a frame can be had. Unlike
    /// [`CachedFile::get`] it asks for no notice when there is none.
    pub fn start_load(self: &StdArc<Self>, page: u32) -> Option<Load> {
        self.start(page, Use::Point, 0)
    }

    /// As [`CachedFile::start_load`], for a scan.
    pub fn start_load_for_scan(self: &StdArc<Self>, page: u32) -> Option<Load> {
        self.start(page, Use::Scan, 0)
    }

    pub(crate) fn start(self: &StdArc<Self>, page: u32, purpose: Use, start: u32) -> Option<Load> {
        if self.contains(page) {
            return None;
        }
        match self.attempt(page, purpose, start)? {
            Lookup::Load(load) => Some(load),
            Lookup::Hit(_) | Lookup::Wait(_) | Lookup::Bypass(_) | Lookup::Full(_) => None,
        }
    }

    /// Runs `look` on the bytes of a page that is in the cache, also when no more may be pinned:
    /// the pin lasts for this call and is charged to nobody, so `look` must be short and wait for
    /// nothing.
    pub fn look<R>(&self, page: u32, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.pin_uncharged(page).map(|guard| look(&guard))
    }

    /// As [`CachedFile::look`], at what the loader wrote into the witness cell.
    #[cfg(all(loom, test))]
    pub(crate) fn look_at_stamp(&self, page: u32, look: impl FnOnce(u64)) {
        if let Some(guard) = self.pin_uncharged(page) {
            look(guard.stamp());
        }
    }

    fn pin_uncharged(&self, page: u32) -> Option<PageGuard> {
        let number = self.table.frame_of(page)?;
        let frame = self.shared.frame(number);
        let seen = frame.state.peek();
        if !seen.is_readable() || seen.is_over_ceiling() || !self.is_ours(frame, page) {
            return None;
        }
        let before = frame.state.pin();
        let readable = planted("look_unchecked") || before.is_readable();
        if !readable || !self.is_ours(frame, page) {
            self.unpin(number);
            return None;
        }
        let pin = self.counted(frame, number, before, Use::Point, 0);
        // SAFETY: the pin made above, which saw our page.
        Some(unsafe { pin.guard() })
    }

    /// The page, if this is a plain hit: nothing is loaded, nothing waits. `None` says little: it
    /// may be in the cache all the same, and only [`CachedFile::get`] tells.
    ///
    /// The bytes `near` (the first sixteen cache lines of them) are asked for before the frame is
    /// looked at, and both before the table's entry is there if the frame can be guessed, so that
    /// the three cache misses of a hit run side by side.
    ///
    /// The fastest way to a page, for a caller who uses the guard where it is made: inlined, the
    /// guard stays in registers. One that goes through memory holds the processor up: loads of what
    /// was just stored wait for the addition that pins (figures in `docs/design.md`).
    #[inline(always)]
    pub fn try_hit(&self, page: u32, near: Range<u32>) -> Option<PageGuard> {
        let (entry, start) = (self.table.entry(page)?, near.start);
        let guess = entry.guess();
        if let Some(number) = guess {
            self.shared.prefetch(number, near.clone());
        }
        let number = entry.frame()?;
        if guess != Some(number) {
            self.shared.memory.prefetch(number, near);
        }
        let pin = self.try_pin_at(number, page, Use::Point, start);
        // SAFETY: `try_pin_at` or `try_pin_slow` made the pin for us.
        pin.or_else(|| self.try_uncharged(number, page, start)).map(|pin| unsafe { pin.guard() })
    }

    #[inline]
    pub(crate) fn part_of(&self, start: u32) -> u32 {
        FileParts::scaled(start, self.part_scale)
    }

    /// Asks the processor for what the next steps towards a page need: of many pages first for all
    /// their entries, then for all their frames, then for the bytes. A hint.
    #[inline]
    pub fn prefetch_entry(&self, page: u32) {
        self.table.prefetch(page);
    }

    /// See [`CachedFile::prefetch_entry`], which comes before.
    #[inline]
    pub fn prefetch_frame(&self, page: u32, near: Range<u32>) {
        if let Some(number) = self.table.frame_of(page) {
            self.shared.prefetch(number, near);
        }
    }

    /// Tells the trace, if there is one, that these bytes of the page are being read. Look-ups do
    /// not tell by themselves: only the reader knows what it wants, and that it wants it once.
    #[inline]
    pub fn trace_read(&self, page: u32, part: Range<u32>) {
        if let Some(trace) = &self.trace {
            self.record(trace, page, part);
        }
    }

    #[cold]
    fn record(&self, trace: &FileTrace, page: u32, part: Range<u32>) {
        let units =
            |bytes: u32| u16::try_from(bytes.div_ceil(TRACE_UNIT_BYTES)).unwrap_or(u16::MAX);
        trace.recorder.record(PageRead {
            file: trace.number,
            page,
            start: u16::try_from(part.start / TRACE_UNIT_BYTES).unwrap_or(u16::MAX),
            length: units(part.end.saturating_sub(part.start)),
            page_units: self.frame_units,
        });
    }

    /// Whether the page is in the cache: a hint, it may be gone or here a moment later.
    pub fn contains(&self, page: u32) -> bool {
        let Some(number) = self.table.frame_of(page) else { return false };
        let frame = self.shared.frame(number);
        frame.state.peek().is_readable() && frame.owner() == self.owner(page)
    }

    /// The number of pages.
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The length of a page in bytes.
    pub fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    #[inline]
    pub(crate) fn owner(&self, page: u32) -> Owner {
        Owner::new(self.key, page)
    }

    /// Points the page at its frame. Under the lock of the page's shard.
    pub(crate) fn map(&self, page: u32, frame: FrameNo) {
        if self.table.set(page, frame) {
            let chunk_bytes = PageTable::chunk_bytes() as u64;
            self.shared.counters.table_bytes.fetch_add(chunk_bytes, Relaxed);
        }
    }

    #[inline(always)]
    pub(crate) fn look_up(self: &StdArc<Self>, page: u32, purpose: Use, start: u32) -> Lookup {
        assert!(page < self.page_count, "page {page} of a file of {} pages", self.page_count);
        let number = self.table.frame_of(page);
        match number.and_then(|number| self.try_pin_at(number, page, purpose, start)) {
            // SAFETY: `try_pin_at` made the pin for us.
            Some(pin) => Lookup::Hit(unsafe { pin.guard() }),
            None => self.look_up_slow(page, purpose, start),
        }
    }

    /// Tries, arms the waiters, tries again: room that appears in between is seen by one of them.
    #[cold]
    fn look_up_slow(self: &StdArc<Self>, page: u32, purpose: Use, start: u32) -> Lookup {
        if let Some(answer) = self.attempt_or_bypass(page, purpose, start) {
            return answer;
        }
        let wait = self.shared.arm();
        self.attempt_or_bypass(page, purpose, start).unwrap_or_else(|| {
            self.shared.counters.refusals.fetch_add(1, Relaxed);
            Lookup::Full(wait)
        })
    }

    fn attempt_or_bypass(
        self: &StdArc<Self>,
        page: u32,
        purpose: Use,
        start: u32,
    ) -> Option<Lookup> {
        self.attempt(page, purpose, start)
            .or_else(|| Bypass::take(&self.shared, self.frame_units).map(Lookup::Bypass))
    }

    /// Pins, joins, or starts a load. `None`: the budget or the frames are used up.
    fn attempt(self: &StdArc<Self>, page: u32, purpose: Use, start: u32) -> Option<Lookup> {
        loop {
            match self.try_pin(page, purpose, start) {
                // SAFETY: `try_pin` made the pin for us.
                Pinned::Yes(pin) => return Some(Lookup::Hit(unsafe { pin.guard() })),
                Pinned::Refused => return None,
                Pinned::No => {}
            }
            // Declared before the shard's lock, so dropped (and announced) after it.
            let mut news = self.shared.news();
            let mut shard = self.shared.loads.shard(self.owner(page));
            if let Some(cell) = shard.get(&self.owner(page)) {
                self.shared.counters.joins.fetch_add(1, Relaxed);
                return Some(Lookup::Wait(LoadWait::new(cell)));
            }
            // Loaded since the try above: pages become resident under this lock only.
            if !planted("flight_unchecked") && self.contains(page) {
                continue;
            }
            let units = self.frame_units;
            let part = self.part_of(start);
            let demand = Demand { units, page: self.owner(page), part, purpose };
            let frame = self.shared.allocate(demand, &mut news)?;
            let cell = Arc::new(LoadCell::new());
            shard.insert(self.owner(page), Arc::clone(&cell));
            self.begin(page, frame);
            drop(shard);
            self.shared.counters.misses.fetch_add(1, Relaxed);
            return Some(Lookup::Load(Load::new(StdArc::clone(self), cell, page, frame)));
        }
    }

    fn begin(&self, page: u32, frame: FrameNo) {
        let frame = self.shared.frame(frame);
        frame.state.begin_load(self.frame_units);
        frame.assign(self.owner(page));
    }

    /// Pins a frame that is charged and holds this page: the whole of a hit.
    #[inline(always)]
    fn try_pin_at(&self, number: FrameNo, page: u32, purpose: Use, start: u32) -> Option<FramePin> {
        let frame = self.shared.frame(number);
        // A look before the pin: a stale entry or a used up budget then costs nobody a wake-up for
        // a pin that comes and goes. Only what the pin itself returns counts.
        if !frame.state.peek().is_plain_hit() || frame.owner() != self.owner(page) {
            return None;
        }
        let before = frame.state.pin();
        if before.is_plain_hit() && self.is_ours(frame, page) {
            return Some(self.counted(frame, number, before, purpose, start));
        }
        self.unpin(number);
        None
    }

    fn try_pin(&self, page: u32, purpose: Use, start: u32) -> Pinned {
        let Some(number) = self.table.frame_of(page) else { return Pinned::No };
        match self.try_pin_at(number, page, purpose, start) {
            Some(pin) => Pinned::Yes(pin),
            None => self.try_pin_slow(number, page, purpose, start),
        }
    }

    #[cold]
    #[inline(never)]
    fn try_uncharged(&self, number: FrameNo, page: u32, start: u32) -> Option<FramePin> {
        match self.try_pin_slow(number, page, Use::Point, start) {
            Pinned::Yes(pin) => Some(pin),
            Pinned::Refused | Pinned::No => None,
        }
    }

    /// Not a plain hit: it is another page, or the frame is not charged, or it was just taken.
    fn try_pin_slow(&self, number: FrameNo, page: u32, purpose: Use, start: u32) -> Pinned {
        let frame = self.shared.frame(number);
        let seen = frame.state.peek();
        if !seen.is_readable() || frame.owner() != self.owner(page) {
            return Pinned::No;
        }
        let credit =
            if seen.is_charged() { None } else { self.shared.take_credit(self.frame_units) };
        if seen.is_over_ceiling() || (!seen.is_charged() && credit.is_none()) {
            return Pinned::Refused;
        }
        let before = frame.state.pin();
        if !before.is_readable() || !self.is_ours(frame, page) {
            self.unpin(number);
            return Pinned::No;
        }
        if !self.charge(frame, credit) {
            self.unpin(number);
            return Pinned::Refused;
        }
        Pinned::Yes(self.counted(frame, number, before, purpose, start))
    }

    /// Charges a frame that the caller has pinned, with its credit if it has one; false when the
    /// budget is used up. A credit that is not needed goes back.
    fn charge(&self, frame: &Frame, credit: Option<Credit<'_>>) -> bool {
        if frame.state.peek().is_charged() {
            return true;
        }
        let Some(credit) = credit.or_else(|| self.shared.take_credit(self.frame_units)) else {
            return frame.state.peek().is_charged();
        };
        if frame.state.charge() {
            credit.spend();
        }
        true
    }

    /// Whether a frame that the caller has pinned holds this page.
    #[inline]
    fn is_ours(&self, frame: &Frame, page: u32) -> bool {
        planted("hit_unchecked") || frame.owner() == self.owner(page)
    }

    /// Drops a pin that this call has made.
    #[cold]
    pub(crate) fn unpin(&self, number: FrameNo) {
        // SAFETY: the caller's pin; the file owns `Shared`.
        unsafe { Shared::unpin(Shared::pointer(&self.shared), number) };
    }

    /// Counts a hit, and hands over the pin that it made. `before` is what the pin found.
    #[inline]
    fn counted(
        &self,
        frame: &Frame,
        number: FrameNo,
        before: Word,
        purpose: Use,
        start: u32,
    ) -> FramePin {
        if purpose == Use::Point {
            frame.state.count_use(before, self.part_of(start));
        }
        self.shared.hits.count();
        // SAFETY: the caller's pin saw the frame resident with our page, which is so long.
        unsafe { FramePin::new(Shared::pointer(&self.shared), number, self.page_bytes) }
    }
}

impl Drop for CachedFile {
    /// No getter is left (they borrow the file) and no load (it owns the file).
    fn drop(&mut self) {
        for (page, number) in self.table.entries() {
            let frame = self.shared.frame(number);
            let before = frame.state.pin();
            if before.is_readable() && frame.owner() == self.owner(page) {
                // SAFETY: our pin, which saw our page.
                unsafe { Shared::orphan(&self.shared, number) };
            } else {
                self.unpin(number);
            }
        }
        if self.parts.is_some() {
            Shared::drop_slots(&self.shared, self.key);
        }
        let bytes = PageTable::directory_bytes(self.page_count) + self.table.chunks_bytes();
        self.shared.counters.table_bytes.fetch_sub(bytes as u64, Relaxed);
        lock(&self.shared.keys).give(self.key);
    }
}
