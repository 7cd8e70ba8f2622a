//! Configuration of the cache, and its validation into numbers that cannot be wrong afterwards.

use std::sync::Arc;

use crate::error::PagerError;
use crate::extents::{EXTENT_UNITS, LOAN_STEP_UNITS, UNITS_MAX};
use crate::frame::{Frame, Owner, UNIT_BYTES};
use crate::policy::CachePolicy;
use crate::slots::{SLOT_BYTES, size_for};
use crate::trace::TraceRecorder;

/// The default of [`PagerConfig::largest_page_bytes`], and the most it can be: 64 KiB.
pub const LARGEST_PAGE_BYTES: u32 = 65_536;

/// The largest cache: frame numbers have 31 bits, and numbers of slots the one above.
const UNITS_LIMIT: usize = 1 << 31;

/// What retention needs for each 4096 bytes, at most: ghosts, directories, hands, counts.
const RETENTION_BYTES: usize = 22;
/// Smaller caches are not shared with slots.
const RETAINING_BYTES_MIN: usize = 4 << 20;

/// Caches of which less is no loan have none: 16 MiB, of which rounding takes an eighth at most.
const OWN_UNITS_MIN: u32 = 8 * LOAN_STEP_UNITS;

/// The most parts of a page: as many bits has a state word for them.
const PARTS_MAX: u32 = 8;

/// How large the page cache is.
#[derive(Debug, Clone)]
pub struct PagerConfig {
    cache_bytes: usize,
    largest_page_bytes: u32,
    pin_limit_bytes: Option<usize>,
    bypass_limit_bytes: usize,
    loan_bytes: usize,
    policy: CachePolicy,
    retain_parts: bool,
    /// As given to `within`.
    total_bytes: Option<usize>,
    trace: Option<Arc<TraceRecorder>>,
}

impl PagerConfig {
    /// A cache of `cache_bytes` bytes of frames, rounded down to a multiple of 4096.
    ///
    /// What describes the frames comes on top: 16 bytes for each 4096 (0.4 %), counted in
    /// `PagerStats::bytes_metadata`; [`PagerConfig::within`] counts it in.
    pub fn new(cache_bytes: usize) -> Self {
        Self {
            cache_bytes,
            largest_page_bytes: LARGEST_PAGE_BYTES,
            pin_limit_bytes: None,
            bypass_limit_bytes: 0,
            loan_bytes: 0,
            policy: CachePolicy::default(),
            retain_parts: false,
            total_bytes: None,
            trace: None,
        }
    }

    /// A cache that takes `total_bytes` bytes with what describes its frames. Page tables are made
    /// as files are read (`PagerStats::bytes_tables`) and come on top.
    pub fn within(total_bytes: usize) -> Self {
        let described_bytes = UNIT_BYTES + size_of::<Frame>();
        let fitting = Self::new(total_bytes / described_bytes * UNIT_BYTES);
        Self { total_bytes: Some(total_bytes), ..fitting }
    }

    /// Keeps parts of pages that were read when their pages go, where that saves reads
    /// ([`crate::Pager::open_file_of_records`]). Off by default; without room for reads past the
    /// cache, or in a cache below 4 MiB, it has no effect.
    #[must_use]
    pub fn retain_parts(mut self) -> Self {
        self.retain_parts = true;
        if let Some(total_bytes) = self.total_bytes.filter(|_| self.is_shared_with_slots()) {
            let described_bytes = UNIT_BYTES + size_of::<Frame>() + RETENTION_BYTES;
            self.cache_bytes = total_bytes / described_bytes * UNIT_BYTES;
        }
        self
    }

    /// The largest page of any file, in bytes: a multiple of 4096 up to [`LARGEST_PAGE_BYTES`],
    /// which is the default. A cache must hold at least one such page.
    #[must_use]
    pub fn largest_page_bytes(mut self, bytes: u32) -> Self {
        self.largest_page_bytes = bytes;
        self
    }

    /// How much of the cache may be pinned or loading at one time, in bytes. The default is three
    /// quarters; at least one largest page and at most the whole cache are kept to.
    #[must_use]
    pub fn pin_limit_bytes(mut self, bytes: usize) -> Self {
        self.pin_limit_bytes = Some(bytes);
        self
    }

    /// How much memory reads past the cache may take at one time, in bytes, on top of the cache.
    /// The default is none: look-ups that find no frame wait for one. Where there is some, at least
    /// one largest page is, and a cache may be as small as no frame at all.
    #[must_use]
    pub fn bypass_limit_bytes(mut self, bytes: usize) -> Self {
        self.bypass_limit_bytes = bytes;
        self
    }

    /// How much of the cache is a loan: memory of somebody else, which is there from
    /// [`crate::Pager::lend`] on until [`crate::Pager::recall`] takes it back. What is left is
    /// rounded down to huge pages, and so is the loan then; where the one is less than 16 MiB, or
    /// the other nothing, there is no loan, and the cache smaller by it. The default is none. Pins
    /// are limited as if there were no loan. The arena must not be registered with the kernel: it
    /// would load into pages that were given back. Where memory cannot be given back
    /// (`nephrite_io::memory::Arena::can_give_back`) what was lent once stays.
    #[must_use]
    pub fn loan_bytes(mut self, bytes: usize) -> Self {
        self.loan_bytes = bytes;
        self
    }

    /// How the cache decides which page goes. The default is that of [`CachePolicy`].
    #[must_use]
    pub fn policy(mut self, policy: CachePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Records what is read of the pages of this cache. Off by default.
    #[must_use]
    pub fn trace(mut self, recorder: Arc<TraceRecorder>) -> Self {
        self.trace = Some(recorder);
        self
    }

    fn is_shared_with_slots(&self) -> bool {
        self.retain_parts && RETAINING_BYTES_MIN <= self.cache_bytes
    }

    /// The recorder of what is read.
    pub(crate) fn take_trace(&mut self) -> Option<Arc<TraceRecorder>> {
        self.trace.take()
    }

    pub(crate) fn validate(&self) -> Result<Sizes, PagerError> {
        let largest_units = frame_units(self.largest_page_bytes, LARGEST_PAGE_BYTES)?;
        let minimum_bytes = usize::from(largest_units) * UNIT_BYTES;
        let cache_bytes = self.cache_bytes;
        if cache_bytes < minimum_bytes && self.bypass_limit_bytes == 0 {
            return Err(PagerError::TooSmall { cache_bytes, minimum_bytes });
        }
        let units = cache_bytes / UNIT_BYTES;
        let one_page = usize::from(largest_units).min(units);
        let too_large = || {
            let maximum_bytes = (UNITS_LIMIT - 1).saturating_mul(UNIT_BYTES);
            PagerError::TooLarge { cache_bytes, maximum_bytes }
        };
        let units = u32::try_from(units).ok().filter(|&units| (units as usize) < UNITS_LIMIT);
        let units = units.ok_or_else(too_large)?;
        let (units, own_units) = with_loan(units, self.loan_bytes);
        let own = own_units as usize;
        let wanted = match self.pin_limit_bytes {
            Some(bytes) => bytes / UNIT_BYTES,
            None => own / 4 * 3 + own % 4 * 3 / 4,
        };
        let pin_limit = wanted.clamp(one_page, own) as u64;
        let bypass_limit_units = self.bypass_limit_units(largest_units);
        let (pin_limit_units, policy) = (pin_limit, self.policy);
        let retains = self.is_shared_with_slots() && bypass_limit_units != 0;
        let slot_blocks = if retains { (units / EXTENT_UNITS) as usize } else { 0 };
        Ok(Sizes {
            units,
            own_units,
            largest_units,
            pin_limit_units,
            bypass_limit_units,
            policy,
            slot_blocks,
        })
    }

    fn bypass_limit_units(&self, largest_units: u8) -> u64 {
        match self.bypass_limit_bytes {
            0 => 0,
            bytes => (bytes / UNIT_BYTES).max(usize::from(largest_units)) as u64,
        }
    }
}

/// How the pages of a file are cut into parts that can be kept without the rest: each of some
/// whole records. At most eight to a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileParts {
    bytes: u16,
    /// Of all records of a page; the last part may be shorter than the others.
    all_bytes: u32,
    count: u8,
    size: u8,
}

impl FileParts {
    /// For pages that begin with `records` records of `record_bytes` each. `None` when a page has
    /// one record, or records are larger than slots, or the file has too many pages.
    pub(crate) fn new(record_bytes: u32, records: u32, page_count: u32) -> Option<Self> {
        let records_per_part = records.div_ceil(PARTS_MAX);
        let bytes = record_bytes.checked_mul(records_per_part)?;
        let count = records.div_ceil(records_per_part.max(1));
        let size = size_for(bytes as usize)?;
        page_count.checked_mul(count)?;
        record_bytes.checked_mul(records)?;
        let (bytes, count) = (u16::try_from(bytes).ok()?, u8::try_from(count).ok()?);
        let cut = 1 < count && bytes != 0;
        let all_bytes = record_bytes * records;
        cut.then_some(Self { bytes, all_bytes, count, size: u8::try_from(size).ok()? })
    }

    /// Where in its page a part begins.
    pub(crate) fn start_of(self, part: u32) -> u32 {
        part * u32::from(self.bytes)
    }

    /// The bytes of a part.
    pub(crate) fn length_of(self, part: u32) -> u32 {
        u32::from(self.bytes).min(self.all_bytes - self.start_of(part))
    }

    pub(crate) fn count(self) -> u32 {
        self.count.into()
    }

    /// The number of the slot size.
    pub(crate) fn size(self) -> usize {
        self.size.into()
    }

    pub(crate) fn slot_bytes(self) -> usize {
        SLOT_BYTES[self.size()]
    }

    /// The part of a page in which this byte of a record lies.
    pub(crate) fn part_of(self, start: u32) -> u32 {
        Self::scaled(start, self.scale()).min(self.count() - 1)
    }

    /// What takes the place of a division in [`Self::scaled`]: exact below 65,536.
    pub(crate) fn scale(self) -> u64 {
        (1 << 32) / u64::from(self.bytes) + 1
    }

    /// A part by its byte and the scale of the file; below eight for any byte.
    #[inline]
    pub(crate) fn scaled(start: u32, scale: u64) -> u32 {
        let part = (u64::from(start) * scale) >> 32;
        u32::try_from(part & u64::from(PARTS_MAX - 1)).expect("below eight")
    }

    /// What a part of a page is called among slots.
    pub(crate) fn record(self, page: Owner, part: u32) -> Owner {
        Owner::new(page.key(), page.page() * self.count() + part)
    }
}

/// A validated configuration, in units of 4096 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) units: u32,
    /// Those before the loan.
    pub(crate) own_units: u32,
    pub(crate) largest_units: u8,
    pub(crate) pin_limit_units: u64,
    pub(crate) bypass_limit_units: u64,
    pub(crate) policy: CachePolicy,
    /// How many blocks of slots there may be.
    pub(crate) slot_blocks: usize,
}

/// All units of a cache, and those of them that are no loan.
fn with_loan(units: u32, loan_bytes: usize) -> (u32, u32) {
    let loan = u32::try_from(loan_bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(units);
    let whole_steps = |units: u32| units / LOAN_STEP_UNITS * LOAN_STEP_UNITS;
    let own = whole_steps(units - loan);
    // Else what describes the frames would begin in a page of the system that is given back.
    let lent = whole_steps(units - own);
    let has_loan = loan != 0 && lent != 0 && OWN_UNITS_MIN <= own;
    if has_loan { (own + lent, own) } else { (units - loan, units - loan) }
}

/// The units of a page, if it is a page size at all.
pub(crate) fn frame_units(page_bytes: u32, largest_bytes: u32) -> Result<u8, PagerError> {
    let wrong = PagerError::PageBytes { page_bytes, largest_bytes };
    let unit_bytes = u32::try_from(UNIT_BYTES).expect("4096 fits");
    let units = page_bytes / unit_bytes;
    if page_bytes == 0 || !page_bytes.is_multiple_of(unit_bytes) || largest_bytes < page_bytes {
        return Err(wrong);
    }
    u8::try_from(units).ok().filter(|&units| units <= UNITS_MAX).ok_or(wrong)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::retention::Retention;
    use crate::slots::Slots;

    #[test]
    fn the_minimum_is_one_largest_page() {
        let error = PagerConfig::new(65_535).validate().unwrap_err();
        assert!(matches!(error, PagerError::TooSmall { minimum_bytes: 65_536, .. }));

        let one = PagerConfig::new(4096).largest_page_bytes(4096).validate().unwrap();

        let policy = CachePolicy::Clock;
        assert_eq!(
            one,
            Sizes {
                units: 1,
                own_units: 1,
                largest_units: 1,
                pin_limit_units: 1,
                bypass_limit_units: 0,
                policy,
                slot_blocks: 0
            }
        );
    }

    #[test]
    fn with_reads_past_it_a_cache_may_hold_nothing() {
        let sizes = |bytes| {
            let sizes = PagerConfig::new(bytes).bypass_limit_bytes(1).validate().unwrap();
            (sizes.units, sizes.pin_limit_units, sizes.bypass_limit_units)
        };

        assert_eq!((sizes(0), sizes(8192)), ((0, 0, 16), (2, 2, 16)));
    }

    #[test]
    fn frames_and_what_describes_them_fit_a_total() {
        for total in [65_792, 1 << 20, (1 << 30) + 12_345] {
            let units = PagerConfig::within(total).validate().unwrap().units as usize;

            let taken = units * (UNIT_BYTES + size_of::<Frame>());
            assert!(taken <= total && total - taken < 2 * UNIT_BYTES, "{taken} of {total}");
        }
    }

    #[test]
    fn what_retention_needs_fits_a_total_too() {
        let large = if cfg!(miri) { 9 << 20 } else { (1 << 30) + 12_345 };
        for total in [8 << 20, large] {
            let config = PagerConfig::within(total).retain_parts().bypass_limit_bytes(1);
            let sizes = config.validate().unwrap();
            let slots = Slots::new(sizes.slot_blocks);
            let retention = Retention::new(sizes.units, &slots).unwrap();

            let units = sizes.units as usize;
            let taken = units * (UNIT_BYTES + size_of::<Frame>());
            let taken = taken + retention.bytes() + slots.bytes();
            assert!(taken <= total && total - taken < total / 512, "{taken} of {total}");
        }
    }

    #[test]
    fn small_caches_and_those_without_a_way_past_them_retain_nothing() {
        let blocks = |bytes, bypass| {
            let config = PagerConfig::within(bytes).retain_parts().bypass_limit_bytes(bypass);
            config.validate().unwrap().slot_blocks
        };

        assert_eq!((blocks(2 << 20, 1), blocks(8 << 20, 0)), (0, 0));
        assert_ne!(blocks(8 << 20, 1), 0);
    }

    #[test]
    fn three_quarters_may_be_pinned() {
        let sizes = PagerConfig::new(1 << 30).validate().unwrap();

        assert_eq!((sizes.units, sizes.pin_limit_units), (1 << 18, 3 << 16));
    }

    #[test]
    fn a_pin_limit_is_kept_between_one_page_and_the_cache() {
        let limit = |bytes| {
            PagerConfig::new(1 << 20).pin_limit_bytes(bytes).validate().unwrap().pin_limit_units
        };

        assert_eq!((limit(0), limit(usize::MAX), limit(131_072)), (16, 256, 32));
    }

    #[test]
    fn what_is_no_loan_is_whole_huge_pages_or_all_there_is() {
        let units = |mib: usize, loan_mib: usize| {
            let config = PagerConfig::new(mib << 20).loan_bytes(loan_mib << 20);
            let sizes = config.validate().unwrap();
            (sizes.units, sizes.own_units)
        };

        assert_eq!(units(36, 13), (9216, 22 << 8));
        assert_eq!(units(37, 14), (9216, 22 << 8), "an odd MiB at the end");
        assert_eq!((units(26, 11), units(36, 0)), ((15 << 8, 15 << 8), (9216, 9216)));
        assert_eq!(units(37, 1), (9216, 9216), "less than a step");
    }

    #[test]
    fn odd_page_sizes_are_refused() {
        for page_bytes in [0, 1, 4095, 4097, 65_536 + 4096, u32::MAX] {
            assert!(frame_units(page_bytes, LARGEST_PAGE_BYTES).is_err(), "{page_bytes}");
        }
        assert_eq!(frame_units(65_536, LARGEST_PAGE_BYTES).unwrap(), 16);
        assert_eq!(frame_units(12_288, LARGEST_PAGE_BYTES).unwrap(), 3);
    }

    #[test]
    fn a_cache_beyond_the_frame_numbers_is_refused() {
        let error = PagerConfig::new(usize::MAX).validate().unwrap_err();

        assert!(matches!(error, PagerError::TooLarge { .. }), "{error}");
    }
}
