//! Frame state: one 64-bit word that says who may touch a frame.
//!
//! ```text
//! [ flags: 8 | - : 2 | uses: 2 | units: 4 | parts: 8 | version: 8 | pins: 32 ]
//!   flags = [ - | - | wanted | charged | orphan | phase: 3 ]
//!
//!            begin_load          finish_load               claim
//!   free ----------------> loading ----------> resident(pins) ----> evicting
//!     ^                      | fail_load            (pins == 0)         |
//!     |        release       v                                          |
//!     +---------------- evicting <--------------------------------------+
//!                          | begin_load
//!                          +----------> loading again
//! ```
//!
//! - *free*, *evicting*: owned by whoever holds the frame books; *loading*: owned by one `Load`.
//! - *resident*: bytes and owner of the frame do not change while the pin count is above zero,
//!   because `claim` succeeds at zero only. A failed load goes back through *evicting*: it is
//!   never resident, so it is never cached.
//! - A getter pins first and looks afterwards, so any phase may carry *passing* pins of getters
//!   that followed an old page table entry. They look at nothing and undo the pin. Therefore every
//!   transition out of an exclusive phase keeps the pin count it finds.
//! - *charged*: the pages of this frame are taken from the pin budget. It stays set at pin count
//!   zero, and is collected when the budget runs dry: a repeated hit pays nothing for it.
//! - *wanted*: somebody waits for a frame; whoever drops the last pin must look for waiters.
//! - *orphan*: the file is gone; whoever drops the last pin frees the frame.
//! - *uses*: hits since the load, up to three, as the eviction policy counts them; *units*: the
//!   length of the frame; *parts*: which eighths of the page (or parts of that number) were read
//!   since the load, for `retention.rs`. All are here so that a hit looks at one cache line, and
//!   few of those: a frame has sixteen bytes of description.
//! - *version* counts loads. It makes a compare-and-swap against a word read earlier fail when the
//!   frame has been reused in between; memory safety does not depend on it (a pin does that).
//!
//! Ordering: `finish_load` is Release and pairs with the Acquire of `pin` (bytes and owner before
//! the reader). `unpin` is Release and pairs with the Acquire of `claim` (the reader's last look
//! before the next writer). All writers after initialisation are read-modify-writes, so each of
//! them continues the release sequences of those before. `want` and `unpin_flagged` are AcqRel:
//! what the waiter wrote before marking is seen by the one who drops the pin later. Nothing needs
//! SeqCst.
//!
//! Nothing outside this file touches the raw value. Checked by the loom models `frame_state` (two
//! readers and an evictor) and `whole_path`, each with planted bugs, and by the tests below.

use crate::planted::{planted, unless};
use crate::sync::{AtomicU64, Ordering};

const PINS: u64 = 0xffff_ffff;
const VERSION_SHIFT: u32 = 32;
const VERSION: u64 = 0xff << VERSION_SHIFT;
const PARTS_SHIFT: u32 = 40;
const PARTS: u64 = 0xff << PARTS_SHIFT;
const UNITS_SHIFT: u32 = 48;
const UNITS: u64 = 0xf << UNITS_SHIFT;
const USES_SHIFT: u32 = 52;
const USES: u64 = 0b11 << USES_SHIFT;
const ONE_USE: u64 = 1 << USES_SHIFT;
const PHASE: u64 = 0b111 << 56;
const FREE: u64 = 0;
const LOADING: u64 = 1 << 56;
const RESIDENT: u64 = 2 << 56;
const EVICTING: u64 = 3 << 56;
const ORPHAN: u64 = 1 << 59;
const CHARGED: u64 = 1 << 60;
const WANTED: u64 = 1 << 61;

/// Beyond this many pins on one frame something leaks guards without end: refuse to go on.
/// The 2^31 above it are room for the threads that find out at the same time.
const PIN_CEILING: u64 = 1 << 31;

/// The state word of one frame.
#[derive(Debug)]
pub(crate) struct FrameState(AtomicU64);

/// A state word as somebody saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

/// The frame is flagged: its pin must be dropped the long way (`Shared::unpin`).
#[derive(Debug)]
pub(crate) struct Flagged;

impl FrameState {
    /// A free frame without pins.
    pub(crate) fn free() -> Self {
        Self(AtomicU64::new(FREE))
    }

    /// The word now. Good for hints, and for what the caller knows to be stable.
    #[inline]
    pub(crate) fn peek(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    /// Adds a pin and tells what was there before. Only if that was resident does the pin protect
    /// anything; otherwise the caller undoes it.
    #[inline]
    pub(crate) fn pin(&self) -> Word {
        Word(self.0.fetch_add(1, unless("pin_relaxed", Ordering::Acquire)))
    }

    /// Adds a pin for a caller that already holds one. Relaxed: the pin held has synchronised.
    #[inline]
    pub(crate) fn pin_again(&self) {
        let before = Word(self.0.fetch_add(1, Ordering::Relaxed));
        assert!(!before.is_over_ceiling(), "more than {PIN_CEILING} pins on one frame");
    }

    /// Drops a pin of an unflagged frame. When this succeeds there is nothing else to do, and the
    /// caller must not touch the cache again: another thread may be freeing it.
    #[inline]
    pub(crate) fn unpin(&self) -> Result<(), Flagged> {
        let order = unless("unpin_relaxed", Ordering::Release);
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert!(seen & PINS != 0, "unpin of an unpinned frame: {seen:#018x}");
            if seen & (ORPHAN | WANTED) != 0 {
                return Err(Flagged);
            }
            match self.0.compare_exchange_weak(seen, seen - 1, order, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Drops a pin whatever the flags say, and tells what was there before.
    pub(crate) fn unpin_flagged(&self) -> Word {
        let before = Word(self.0.fetch_sub(1, Ordering::AcqRel));
        assert!(before.pins() != 0, "unpin of an unpinned frame: {before:?}");
        before
    }

    /// Marks the frame as charged to the pin budget; false when it already was. The caller holds a
    /// pin. Relaxed: the mark guards a number of the budget, not memory.
    pub(crate) fn charge(&self) -> bool {
        self.0.fetch_or(CHARGED, Ordering::Relaxed) & CHARGED == 0
    }

    /// Takes the charge off an unpinned resident frame that still is as `seen`.
    pub(crate) fn uncharge(&self, seen: Word) -> bool {
        seen.is_idle_charged() && self.swap(seen, seen.0 & !CHARGED, Ordering::Relaxed)
    }

    /// Marks the frame as waited for and tells what was there before.
    pub(crate) fn want(&self) -> Word {
        Word(self.0.fetch_or(WANTED, Ordering::AcqRel))
    }

    /// Takes the mark of the waiters and the charge off an unpinned resident frame that still is as
    /// `seen`.
    pub(crate) fn settle(&self, seen: Word) -> bool {
        self.swap(seen, seen.0 & !(CHARGED | WANTED), Ordering::Relaxed)
    }

    /// Takes an unpinned resident frame for eviction; tells what was there before. The charge, if
    /// there was one, passes to the caller.
    pub(crate) fn claim(&self) -> Option<Word> {
        let seen = Word(self.0.load(Ordering::Relaxed));
        if !seen.is_evictable() {
            return None;
        }
        let target = (seen.0 & !(PHASE | CHARGED)) | EVICTING;
        self.swap(seen, target, unless("claim_relaxed", Ordering::Acquire)).then_some(seen)
    }

    /// Takes an unpinned orphan, for the one thread that will free it; tells what was there before.
    pub(crate) fn claim_orphan(&self) -> Option<Word> {
        let mut seen = self.peek();
        while seen.is_idle_orphan() {
            let target = (seen.0 & !(PHASE | CHARGED | ORPHAN)) | EVICTING;
            if self.swap(seen, target, Ordering::AcqRel) {
                return Some(seen);
            }
            seen = self.peek();
        }
        None
    }

    /// Counts one use, up to three, and notes that part number `part` (below eight) was read.
    /// `before` is what `pin` returned. Only a hint for policy and retention: when others come in
    /// between, the use is not counted. Relaxed: it orders nothing.
    #[inline]
    pub(crate) fn count_use(&self, before: Word, part: u32) {
        let counted = before.0 & USES == USES;
        let target = before.0 | (1 << PARTS_SHIFT) << part;
        if !counted || target != before.0 {
            let target = if counted { target } else { target + ONE_USE };
            self.swap(Word(before.0 + 1), target + 1, Ordering::Relaxed);
        }
    }

    /// Notes that a part was read. The caller holds a pin. Relaxed: a hint.
    pub(crate) fn note_part(&self, part: u32) {
        let bit = (1 << PARTS_SHIFT) << part;
        if self.0.load(Ordering::Relaxed) & bit == 0 {
            self.0.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Counts a use without a pin, of a word seen readable. Relaxed: a hint.
    pub(crate) fn use_again(&self, seen: Word) {
        if seen.0 & USES != USES {
            self.swap(seen, seen.0 + ONE_USE, Ordering::Relaxed);
        }
    }

    /// Takes one use off, if there is one; returns how many there were.
    pub(crate) fn age(&self) -> u8 {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let uses = Word(seen).uses();
            if uses == 0 || self.swap(Word(seen), seen - ONE_USE, Ordering::Relaxed) {
                return uses;
            }
            seen = self.0.load(Ordering::Relaxed);
        }
    }

    /// Takes all uses off an unpinned resident frame; returns how many there were. Relaxed: a hint.
    pub(crate) fn take_uses(&self) -> u8 {
        let seen = self.peek();
        let taken = seen.is_evictable() && self.swap(seen, seen.0 & !USES, Ordering::Relaxed);
        if taken { seen.uses() } else { 0 }
    }

    /// Free or evicting to loading a page of `units` (1 to 16), with the pin of the loader,
    /// charged, without uses, version counted on.
    /// Relaxed: the frame came to the caller by `claim` or under the lock of the frame books.
    pub(crate) fn begin_load(&self, units: u8) {
        assert!((1..=16).contains(&units), "a frame of {units} units");
        self.update(Ordering::Relaxed, |word| {
            let exclusive = word & PHASE == FREE || word & PHASE == EVICTING;
            assert!(exclusive, "load into a frame in use: {word:#018x}");
            let version = (word + (1 << VERSION_SHIFT)) & VERSION;
            let units = u64::from(units - 1) << UNITS_SHIFT;
            (word & (WANTED | PINS)) + LOADING + CHARGED + units + version + 1
        });
    }

    /// Loading to resident, with one more pin for each of `waiters`. The loader keeps its own pin.
    pub(crate) fn finish_load(&self, waiters: u32) {
        let step = RESIDENT - LOADING + u64::from(waiters);
        let before = self.0.fetch_add(step, unless("publish_relaxed", Ordering::Release));
        assert!(before & PHASE == LOADING, "finished a load that was not running: {before:#018x}");
    }

    /// A failed load: loading to evicting, without the loader's pin and without the charge, which
    /// passes to the caller. The next step is `release`.
    pub(crate) fn fail_load(&self) {
        self.update(Ordering::Release, |word| {
            assert!(word & PHASE == LOADING, "failed a load that was not running: {word:#018x}");
            (word & !(PHASE | CHARGED)) + EVICTING - 1
        });
    }

    /// Evicting to free. Called under the lock of the frame books, which orders it.
    pub(crate) fn release(&self) {
        let before = self.0.fetch_sub(EVICTING - FREE, Ordering::Release);
        assert!(before & PHASE == EVICTING, "freed a frame in use: {before:#018x}");
    }

    /// Marks a resident frame whose file is gone. The caller holds a pin.
    pub(crate) fn orphan(&self) {
        let before = Word(self.0.fetch_or(ORPHAN, Ordering::AcqRel));
        assert!(before.is_resident() && !before.is_orphan(), "orphaned twice: {before:?}");
    }

    fn swap(&self, seen: Word, target: u64, success: Ordering) -> bool {
        self.0.compare_exchange(seen.0, target, success, Ordering::Relaxed).is_ok()
    }

    fn update(&self, success: Ordering, change: impl Fn(u64) -> u64) {
        let mut seen = self.0.load(Ordering::Relaxed);
        while let Err(now) =
            self.0.compare_exchange_weak(seen, change(seen), success, Ordering::Relaxed)
        {
            seen = now;
        }
    }
}

impl Word {
    /// Resident, charged, with a file, pins in bounds: the one comparison of a plain hit.
    #[inline]
    pub(crate) fn is_plain_hit(self) -> bool {
        self.0 & (PHASE | ORPHAN | CHARGED | PIN_CEILING) == RESIDENT | CHARGED
    }

    /// The bytes are those of a page of a living file.
    #[inline]
    pub(crate) fn is_readable(self) -> bool {
        self.0 & (PHASE | ORPHAN) == RESIDENT
    }

    /// Readable and not pinned by anybody.
    pub(crate) fn is_evictable(self) -> bool {
        let pins = if planted("claim_ignores_pins") { 0 } else { PINS };
        self.0 & (PHASE | ORPHAN | pins) == RESIDENT
    }

    pub(crate) fn is_free(self) -> bool {
        self.0 & PHASE == FREE
    }

    pub(crate) fn is_resident(self) -> bool {
        self.0 & PHASE == RESIDENT
    }

    pub(crate) fn is_loading(self) -> bool {
        self.0 & PHASE == LOADING
    }

    pub(crate) fn is_orphan(self) -> bool {
        self.0 & ORPHAN != 0
    }

    pub(crate) fn is_charged(self) -> bool {
        self.0 & CHARGED != 0
    }

    pub(crate) fn is_wanted(self) -> bool {
        self.0 & WANTED != 0
    }

    /// Charged, but evictable: the charge can be collected.
    pub(crate) fn is_idle_charged(self) -> bool {
        self.is_evictable() && self.is_charged()
    }

    fn is_idle_orphan(self) -> bool {
        self.0 & (PHASE | ORPHAN | PINS) == RESIDENT | ORPHAN
    }

    pub(crate) fn is_over_ceiling(self) -> bool {
        PIN_CEILING <= self.pins()
    }

    pub(crate) fn pins(self) -> u64 {
        self.0 & PINS
    }

    /// The number of the load, counted in eight bits.
    pub(crate) fn version(self) -> u8 {
        u8::try_from((self.0 & VERSION) >> VERSION_SHIFT).expect("eight bits")
    }

    /// A bit for each part that was read since the load.
    pub(crate) fn parts(self) -> u8 {
        u8::try_from((self.0 & PARTS) >> PARTS_SHIFT).expect("eight bits")
    }

    /// The number that the next load will have.
    pub(crate) fn next_version(self) -> u8 {
        self.version().wrapping_add(1)
    }

    /// Hits since the load, up to three.
    pub(crate) fn uses(self) -> u8 {
        u8::try_from((self.0 & USES) >> USES_SHIFT).expect("two bits")
    }

    /// The length of the frame since its load began, in units.
    pub(crate) fn units(self) -> u8 {
        u8::try_from((self.0 & UNITS) >> UNITS_SHIFT).expect("four bits") + 1
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
