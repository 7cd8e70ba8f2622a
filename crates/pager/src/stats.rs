//! What the cache tells about itself.

use std::sync::atomic::AtomicU64 as Statistic;

/// Counters and sizes of one cache at one moment.
///
/// Counters count from the opening of the cache. Taking them looks at every frame: do it each
/// second, not for each request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PagerStats {
    /// Look-ups answered with a resident page.
    pub hits: u64,
    /// Those of the hits that found a part whose page had gone.
    pub slot_hits: u64,
    /// Look-ups that started a load.
    pub misses: u64,
    /// Look-ups that joined a load already running.
    pub joins: u64,
    /// Look-ups answered with `Lookup::Full`.
    pub refusals: u64,
    /// Pages that lost their frame to another page or another frame size.
    pub evictions: u64,
    /// Loads that ended with an error or were abandoned.
    pub loads_failed: u64,
    /// Pages that were read past the cache, as no frame could be had for them.
    pub bypasses: u64,
    /// Guards alive now (a moment's sum; getters in passing may be in it).
    pub pins: u64,
    /// Frames with at least one pin now.
    pub frames_pinned: u64,
    /// Frames whose load is running now.
    pub frames_loading: u64,
    /// Frames with a page now, pinned or not.
    pub frames_resident: u64,
    /// Frames set aside for ever, because their load was dropped while its buffer was still out.
    pub frames_lost: u64,
    /// Each frame size in use, smallest first.
    pub classes: Vec<ClassStats>,
    /// Parts of the arena that no frame size has taken yet.
    pub extents_unassigned: usize,
    /// The length of such a part, in bytes.
    pub bytes_extent: usize,
    /// How much may be pinned or loading at one time, in bytes.
    pub bytes_pin_limit: u64,
    /// Memory of the frames, reserved once; of a loan only what is the cache's and was used.
    pub bytes_arena: usize,
    /// That part of it in which records lie without their pages.
    pub bytes_slots: usize,
    /// Memory of the page tables of the open files.
    pub bytes_tables: usize,
    /// Memory of what describes the frames and of the hit counters.
    pub bytes_metadata: usize,
    /// Files open now.
    pub files: usize,
    /// Whether the arena lies on huge pages, as far as the system says.
    pub huge_pages: bool,
}

/// The frames of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// The length of a frame, in bytes.
    pub page_bytes: u32,
    /// Frames of that length in the cache now.
    pub frames: usize,
    /// Those of them without a page.
    pub frames_free: usize,
    /// Parts of the arena cut into such frames.
    pub extents: usize,
}

/// Counters off the path of hits. Relaxed: statistics.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) misses: Statistic,
    pub(crate) joins: Statistic,
    pub(crate) refusals: Statistic,
    pub(crate) evictions: Statistic,
    pub(crate) loads_failed: Statistic,
    pub(crate) frames_lost: Statistic,
    pub(crate) bypasses: Statistic,
    pub(crate) table_bytes: Statistic,
    pub(crate) loan_bytes: Statistic,
}
