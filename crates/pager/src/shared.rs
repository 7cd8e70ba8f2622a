//! What all files, guards and loads of one cache share, and how long it lives.
//!
//! Life: the handles (`Pager`, `CachedFile`) own it through `Arc`. A guard holds a plain pointer,
//! which is valid because of its pin: while the file of the frame is open, the file keeps `Shared`
//! alive; when the file is dropped it turns each of its frames into an *orphan*, and an orphan owns
//! one strong count of `Shared` until the thread that drops its last pin has freed it. So a hit
//! pays no reference count, and a guard stays good after cache and file are gone. A plain `unpin`
//! is the last thing its thread does with `Shared`; a flagged one takes a strong count of its own
//! first.
//!
//! Charges: a frame is charged to the pin budget by the first who pins it and stays charged until
//! it is evicted or until the budget runs dry, when the charges of unpinned frames are collected.
//!
//! Lock order: shard of `loads`, then cell of a load, then frame books (`books`). The queue of
//! `waiters` and the list of `keys` are taken alone. No waker runs and no pin is dropped under any
//! of them: dropping a pin may take them all.
//! Checked by the loom model `whole_path`, the tests of `pager.rs`, and Miri.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use nephrite_io::memory::prefetch_value;

use crate::budget::PinBudget;
use crate::config::{FileParts, Sizes};
use crate::error::PagerError;
use crate::extents::{Demand, Evicted, Extents, Gone};
use crate::file_keys::FileKeys;
use crate::frame::{Frame, FrameNo, Owner, UNIT_BYTES};
use crate::frame_array::FrameArray;
use crate::frame_memory::FrameMemory;
use crate::frame_wait::{FrameWait, FrameWaiters};
use crate::hit_counter::HitCounter;
use crate::load_table::LoadTable;
use crate::planted::planted;
use crate::policy::Use;
use crate::retention::{Ground, Retention};
use crate::slots::Slots;
use crate::stats::Counters;
use crate::sync::{Arc, Mutex, lock};

/// Units that one collection of charges tries to gain, so that the next hits need none.
const COLLECT_UNITS: u64 = if cfg!(loom) { 2 } else { 64 };

/// The shared part of one cache.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) frames: FrameArray,
    pub(crate) memory: FrameMemory,
    pub(crate) loads: LoadTable,
    pub(crate) hits: HitCounter,
    /// Those of them that found a part in a slot.
    pub(crate) slot_hits: HitCounter,
    pub(crate) counters: Counters,
    pub(crate) keys: Mutex<FileKeys>,
    pub(crate) sizes: Sizes,
    pub(crate) slots: Slots,
    books: Mutex<Books>,
    budget: PinBudget,
    /// Room for reads past the cache.
    pub(crate) bypass: PinBudget,
    waiters: Arc<FrameWaiters>,
}

/// The frame books and what keeps parts of pages that go, under one lock.
#[derive(Debug)]
struct Books {
    extents: Extents,
    retention: Option<Retention>,
    /// Of the allocation that is running; empty otherwise.
    named: Vec<Gone>,
    /// The frame at which the next collection of charges begins.
    collect_hand: u32,
}

/// Units taken from the pin budget that no frame carries yet. Goes back, announced, when dropped:
/// with no lock held.
#[derive(Debug)]
pub(crate) struct Credit<'a> {
    shared: &'a Shared,
    units: u8,
}

/// Announces room when dropped, if there is any: declare it before a lock, so it goes after it.
#[derive(Debug)]
pub(crate) struct News<'a> {
    shared: &'a Shared,
    due: bool,
}

impl Shared {
    pub(crate) fn new(sizes: Sizes) -> Result<Self, PagerError> {
        let (memory, frames) = FrameMemory::new(sizes.units)?;
        let slots = Slots::new(sizes.slot_blocks);
        let mut extents = Extents::new(sizes.units, sizes.largest_units, sizes.policy);
        extents.set_loan(sizes.own_units);
        let books = Books {
            extents,
            retention: Retention::new(sizes.units, &slots),
            named: Vec::new(),
            collect_hand: 0,
        };
        Ok(Self {
            frames,
            memory,
            loads: LoadTable::new(),
            hits: HitCounter::new(),
            slot_hits: HitCounter::new(),
            counters: Counters::default(),
            keys: Mutex::new(FileKeys::default()),
            sizes,
            slots,
            books: Mutex::new(books),
            budget: PinBudget::new(sizes.pin_limit_units),
            bypass: PinBudget::new(sizes.bypass_limit_units),
            waiters: Arc::new(FrameWaiters::new()),
        })
    }

    #[inline]
    pub(crate) fn frame(&self, frame: FrameNo) -> &Frame {
        &self.frames[frame.index()]
    }

    /// Asks the processor for what describes a frame, and for bytes of it. Any number will do.
    #[inline]
    pub(crate) fn prefetch(&self, number: FrameNo, near: Range<u32>) {
        if let Some(frame) = self.frames.get(number.index()) {
            prefetch_value(frame);
            self.memory.prefetch(number, near);
        }
    }

    /// What describes a frame or a slot.
    #[inline]
    pub(crate) fn entry(&self, number: FrameNo) -> &Frame {
        if number.is_slot() { self.slots.entry(number) } else { self.frame(number) }
    }

    /// Takes units from the pin budget, collecting charges of unpinned frames if need be. No locks
    /// held: it may announce.
    pub(crate) fn take_credit(&self, units: u8) -> Option<Credit<'_>> {
        let mut news = self.news();
        while self.has_room(units, &mut news) {
            if self.budget.take(units) {
                return Some(Credit { shared: self, units });
            }
        }
        None
    }

    /// Whether the budget has `units` left, after collecting if need be.
    ///
    /// `false` is the truth: charges pass from idle frames to the budget under the lock of the
    /// frame books alone, so a look under that lock misses none that is on its way.
    fn has_room(&self, units: u8, news: &mut News<'_>) -> bool {
        let wanted = u64::from(units);
        if self.budget.limit() < wanted {
            return false;
        }
        while self.budget.available() < wanted {
            let gained = if planted("collect_unlocked") {
                self.collect(&mut 0, wanted)
            } else {
                self.collect(&mut lock(&self.books).collect_hand, wanted)
            };
            if gained == 0 && self.budget.available() < wanted {
                return false;
            }
            news.due |= gained != 0;
        }
        true
    }

    /// Something to announce later, when no lock is held.
    pub(crate) fn news(&self) -> News<'_> {
        News { shared: self, due: false }
    }

    /// Asks for notice when room appears, and marks every frame so that its last pin tells.
    ///
    /// Afterwards the caller looks once more before it waits. Frames in use *now* are marked
    /// before their last pin goes; those taken into use later carry the mark along; charges and
    /// free frames are announced through the waiters.
    pub(crate) fn arm(&self) -> FrameWait {
        let wait = FrameWaiters::arm(&self.waiters);
        if planted("wait_unmarked") {
            return wait;
        }
        let mut gained = 0;
        let books = lock(&self.books); // see `has_room`
        for frame in self.frames.iter() {
            // A mark seen is as good as one made: whoever takes it off notifies afterwards, and
            // the epoch of `wait` is older than any notice still to come.
            if !frame.state.peek().is_wanted() {
                frame.state.want();
            }
            gained += self.uncharge(frame);
        }
        self.budget.give(gained);
        drop(books);
        if gained != 0 {
            self.announce();
        }
        wait
    }

    /// Finds a frame for a page and takes its units from the pin budget, both or
    /// neither. The caller owns the frame. Takes the lock of the frame books; announces nothing
    /// itself.
    pub(crate) fn allocate(&self, demand: Demand, news: &mut News<'_>) -> Option<FrameNo> {
        let units = demand.units;
        // Asked before a page is evicted for nothing. Nothing is taken here: an attempt that fails
        // must not take from others and give back, or two of them would wake each other for ever.
        if !self.has_room(units, news) {
            return None;
        }
        let mut books = lock(&self.books);
        let mut evicted = Evicted::default();
        let found = self.find_frame(&mut books, demand, &mut evicted);
        self.budget.give(evicted.charged_units);
        let mut gained = 0;
        let mut charge = || loop {
            if self.budget.take(units) {
                return true;
            }
            // Others were faster; what is left to be had is theirs and ours alike.
            let more = self.collect(&mut books.collect_hand, u64::from(units));
            gained += more;
            if more == 0 {
                return false;
            }
        };
        let taken = found.filter(|_| charge());
        if let (Some(frame), None) = (found, taken) {
            books.extents.put_back(&self.frames, frame);
        }
        drop(books);
        let spent = taken.map_or(0, |_| u64::from(units));
        news.due |= spent < evicted.charged_units + gained;
        self.counters.evictions.fetch_add(evicted.pages, Relaxed);
        taken
    }

    /// Finds a frame; keeps parts of the pages that went for it.
    fn find_frame(
        &self,
        books: &mut Books,
        demand: Demand,
        evicted: &mut Evicted,
    ) -> Option<FrameNo> {
        let Books { extents, retention, named, .. } = books;
        let Some(retention) = retention else {
            return extents.allocate(&self.frames, demand, evicted);
        };
        if demand.purpose == Use::Point {
            retention.missed(demand.page, demand.part);
        }
        evicted.named = Some(std::mem::take(named));
        let mut found = extents.allocate(&self.frames, demand, evicted);
        while found.is_none() && retention.yield_one(&self.slots, extents) {
            found = extents.allocate(&self.frames, demand, evicted);
        }
        let memory = Some(&self.memory);
        let ground = Ground { frames: &self.frames, slots: &self.slots, memory };
        retention.settle(ground, extents, demand.units, evicted);
        *named = evicted.named.take().unwrap_or_default();
        found
    }

    /// Lets parts of a file be kept when their pages go.
    pub(crate) fn register(&self, key: u32, parts: FileParts) {
        if let Some(retention) = &mut lock(&self.books).retention {
            retention.register(key, parts);
        }
    }

    /// Makes a block of slots for parts of so many bytes, of frames of so many units.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn lend_slots(&self, bytes: usize, units: u8) {
        let size = crate::slots::size_for(bytes).expect("a part");
        let Books { extents, retention, .. } = &mut *lock(&self.books);
        let ground =
            Ground { frames: &self.frames, slots: &self.slots, memory: Some(&self.memory) };
        let retention = retention.as_mut().expect("a cache that retains");
        let mut evicted = Evicted { named: Some(Vec::new()), ..Evicted::default() };
        retention.grow(ground, extents, (size, units), &mut evicted);
    }

    /// Drops what slots hold of a file that is being dropped and has no frames any more.
    pub(crate) fn drop_slots(this: &Arc<Self>, key: u32) {
        // From here on nothing of the file comes to slots: it does so under this lock.
        let kept = lock(&this.books).retention.as_mut().is_some_and(|it| it.forget(key));
        if !kept {
            return;
        }
        for (slot, entry) in this.slots.all() {
            if entry.owner().key() != key {
                continue;
            }
            let before = entry.state.pin();
            if before.is_readable() && entry.owner().key() == key {
                // SAFETY: our pin, which saw a part of a page of this file.
                unsafe { Self::orphan(this, slot) };
            } else {
                // SAFETY: our pin; the caller owns a handle.
                unsafe { Self::unpin(Self::pointer(this), slot) };
            }
        }
    }

    /// Takes back a frame of a failed load (state evicting, charge passed on) and tells waiters.
    pub(crate) fn free(&self, frame: FrameNo) {
        let units = lock(&self.books).extents.free(&self.frames, frame);
        self.give(u64::from(units));
    }

    /// Runs `look` on the frame books.
    pub(crate) fn with_books<R>(&self, look: impl FnOnce(&Extents, Option<&Retention>) -> R) -> R {
        let books = lock(&self.books);
        look(&books.extents, books.retention.as_ref())
    }

    /// Drops a pin. After this call the thread may use `shared` only if it owns it in another way.
    ///
    /// # Safety
    ///
    /// The caller owns one pin of the frame, and gives it up. `shared` comes from `Arc::as_ptr` and
    /// is alive because of that pin (see the module header) or because the caller owns a handle.
    #[inline]
    pub(crate) unsafe fn unpin(shared: NonNull<Self>, frame: FrameNo) {
        // SAFETY: alive until the pin is gone. This borrow ends with the call of `unpin`, whose
        // argument is one atomic: the memory may be freed as soon as the pin is dropped in there.
        let state = unsafe { &(*shared.as_ptr()).entry(frame).state };
        if state.unpin().is_err() {
            // SAFETY: nothing was dropped: the caller's promise holds on.
            unsafe { Self::unpin_flagged(shared, frame) };
        }
    }

    /// # Safety
    ///
    /// As for [`Shared::unpin`].
    #[cold]
    unsafe fn unpin_flagged(shared: NonNull<Self>, frame: FrameNo) {
        // SAFETY: the pin keeps it alive, so the count is above zero; the pointer is an `Arc`'s.
        unsafe { Arc::increment_strong_count(shared.as_ptr()) };
        // SAFETY: this takes over the count added just now.
        let this = unsafe { Arc::from_raw(shared.as_ptr().cast_const()) };
        let before = this.entry(frame).state.unpin_flagged();
        if before.pins() != 1 {
            return;
        }
        if before.is_orphan() {
            Self::free_orphan(&this, frame);
        }
        if before.is_wanted() {
            this.settle(this.entry(frame));
            this.waiters.notify();
        }
    }

    /// Makes an orphan of a frame of a file that is being dropped, and drops the caller's pin.
    ///
    /// # Safety
    ///
    /// The caller owns a pin that saw the frame resident with a page of its file, and gives it up.
    pub(crate) unsafe fn orphan(this: &Arc<Self>, frame: FrameNo) {
        if !cfg!(planted_bug = "orphan_uncounted") {
            // SAFETY: the pointer is this `Arc`'s, which is alive. The count belongs to the orphan.
            unsafe { Arc::increment_strong_count(Arc::as_ptr(this)) };
        }
        this.entry(frame).state.orphan();
        // SAFETY: the caller's pin.
        unsafe { Self::unpin(Self::pointer(this), frame) };
    }

    /// The pointer that guards hold.
    #[inline]
    pub(crate) fn pointer(this: &Arc<Self>) -> NonNull<Self> {
        NonNull::new(Arc::as_ptr(this).cast_mut()).expect("an Arc is never null")
    }

    /// Frees an unpinned orphan, if no other thread was faster or pins it in passing.
    fn free_orphan(this: &Arc<Self>, frame: FrameNo) {
        let Some(before) = this.entry(frame).state.claim_orphan() else { return };
        if frame.is_slot() {
            this.entry(frame).state.release();
        } else {
            let units = lock(&this.books).extents.free(&this.frames, frame);
            this.give(if before.is_charged() { u64::from(units) } else { 0 });
        }
        if planted("orphan_leaks") {
            return;
        }
        // SAFETY: the count that the orphan owned; only the thread that claimed it gets here, and
        // `this` is another one.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(this)) };
    }

    /// Takes mark and charge off a frame whose last pin has gone, unless it is in use again.
    fn settle(&self, frame: &Frame) {
        let mut seen = frame.state.peek();
        while seen.is_evictable() {
            if frame.state.settle(seen) {
                self.give(if seen.is_charged() { u64::from(seen.units()) } else { 0 });
                return;
            }
            seen = frame.state.peek();
        }
    }

    /// Takes the charge off a frame if it is unpinned; returns the units for the caller to give
    /// back.
    fn uncharge(&self, frame: &Frame) -> u64 {
        let seen = frame.state.peek();
        if frame.state.uncharge(seen) { u64::from(seen.units()) } else { 0 }
    }

    /// Collects the charges of unpinned frames into the budget, from where the last collection
    /// ended; returns how many units. The caller announces them.
    #[cold]
    fn collect(&self, hand: &mut u32, wanted: u64) -> u64 {
        let (count, mut gained) = (self.sizes.units, 0);
        let first = *hand;
        for index in (first..count).chain(0..first) {
            if wanted.max(COLLECT_UNITS) <= gained {
                *hand = index;
                break;
            }
            gained += self.uncharge(&self.frames[index as usize]);
        }
        self.budget.give(gained);
        gained
    }

    /// Gives units back to the budget and tells waiters of this or other room. No locks held.
    fn give(&self, units: u64) {
        self.budget.give(units);
        self.announce();
    }

    /// Tells waiters of room that was just made. No locks held.
    pub(crate) fn announce(&self) {
        self.waiters.announce();
    }

    /// The pin limit in bytes.
    pub(crate) fn pin_limit_bytes(&self) -> u64 {
        self.budget.limit() * UNIT_BYTES as u64
    }

    /// Units of the budget that are not taken.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn credit_available(&self) -> u64 {
        self.budget.available()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever still waits for a frame of this cache is told to look again, rather than never.
        self.waiters.notify();
    }
}

impl Credit<'_> {
    /// The units are on a frame now, which has been marked as charged.
    pub(crate) fn spend(self) {
        std::mem::forget(self);
    }
}

impl Drop for Credit<'_> {
    fn drop(&mut self) {
        self.shared.give(u64::from(self.units));
    }
}

impl Drop for News<'_> {
    fn drop(&mut self) {
        if self.due {
            self.shared.waiters.announce();
        }
    }
}

mod loan;

/// The number of the lock that guards the load of a page.
pub(crate) fn shard_of(owner: Owner, shards: usize) -> usize {
    usize::try_from(owner.hash() % shards as u64).expect("below the number of shards")
}
