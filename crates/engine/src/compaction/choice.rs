//! Which segments are worth a compaction.
//!
//! Garbage first: when it comes to more than the configured share of a database, the segment with
//! the most of it is rewritten by itself. That needs the least room and frees the most; only when
//! tombstones are the garbage, or the database is small, it is rewritten as a whole.
//!
//! Then the number of runs: neighbours of similar size are merged, newest first, as long as the
//! next older one is at most [`SIZE_RATIO`] times what was gathered (tiered by size). A lookup
//! visits the segments whose ranges hold its id: at most [`RUNS_MAX`] of them may meet. Large
//! segments that meet no other cost a lookup nothing and are left alone up to [`SEGMENTS_MAX`].

use std::sync::Arc;

use crate::{manifest::DatabaseRecord, segment::Segment, version::Version};

/// Fewest segments worth merging when nothing presses.
const MERGE_MIN: usize = 4;
/// Most segments of a database whose ranges of ids meet.
pub(crate) const RUNS_MAX: usize = 8;
/// Most segments of a database.
const SEGMENTS_MAX: usize = 64;
/// Neighbours that are merged when there are more.
const MERGE_MANY: usize = 16;
/// How much larger the next older segment may be than those gathered so far.
const SIZE_RATIO: u64 = 2;
/// Segments below this many bytes are merged even when their ids meet no other.
const SMALL_BYTES: u64 = 4 << 20;
/// Garbage below this many bytes is not worth a rewrite.
const GARBAGE_BYTES_MIN: u64 = 64 << 10;
/// A database of at most this many bytes is rewritten as a whole.
const WHOLE_BYTES: u64 = 16 << 20;
/// Bytes of the entry of a tombstone, about.
const TOMBSTONE_BYTES: u64 = 16;
/// Most rows of an output; a segment numbers them with 32 bits.
const ROWS_MAX: u64 = 1 << 31;

/// Why a compaction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Worth it, within the bandwidth budget.
    Due,
    /// Space or lookups suffer already: as fast as it goes.
    Urgent,
    /// Somebody waits for it.
    Asked,
    /// The disk is full: as fast as it goes, and without the rows that memtables hide, which can be
    /// flushed only when there is room.
    Full,
}

/// What to compact.
#[derive(Debug)]
pub(super) struct Choice {
    /// Neighbours in age, newest first.
    pub(super) inputs: Vec<Arc<Segment>>,
    pub(super) reason: Reason,
}

/// What a segment holds that nobody can read any more, in bytes.
fn dead_bytes(segment: &Segment) -> u64 {
    let dead = u64::from(segment.row_count()).saturating_sub(u64::from(segment.live_rows()));
    dead * segment.row_bytes()
}

fn tombstone_bytes(segment: &Segment) -> u64 {
    u64::from(segment.tombstones()) * TOMBSTONE_BYTES
}

/// Bytes that compactions of a version would give back, about.
pub(crate) fn garbage_bytes(version: &Version) -> u64 {
    let all = version.segments.iter();
    all.map(|segment| dead_bytes(segment) + tombstone_bytes(segment)).sum()
}

/// The segments to compact; none when nothing is due.
pub(super) fn choose(version: &Version, garbage_percent: u32) -> Option<Choice> {
    of_garbage(version, u64::from(garbage_percent)).or_else(|| of_runs(&version.segments))
}

fn of_garbage(version: &Version, percent: u64) -> Option<Choice> {
    let segments = &version.segments;
    let bytes: u64 = segments.iter().map(|segment| segment.file_bytes()).sum();
    let garbage = garbage_bytes(version);
    if !is_too_much(garbage, bytes, percent) {
        return None;
    }
    // A half more than allowed: whoever writes does so faster than the budget lets us follow.
    let urgent = bytes * percent * 3 / 2 <= garbage * 100;
    let reason = if urgent { Reason::Urgent } else { Reason::Due };
    let tombstones: u64 = segments.iter().map(|segment| tombstone_bytes(segment)).sum();
    if bytes <= WHOLE_BYTES || garbage <= 2 * tombstones {
        return Some(Choice { inputs: within_rows(segments), reason });
    }
    let worst = segments.iter().max_by_key(|segment| dead_bytes(segment))?;
    Some(Choice { inputs: vec![Arc::clone(worst)], reason })
}

/// The newest segments that fit one output.
fn within_rows(segments: &[Arc<Segment>]) -> Vec<Arc<Segment>> {
    let mut rows = 0;
    let fits = |segment: &&Arc<Segment>| {
        rows += u64::from(segment.row_count());
        rows <= ROWS_MAX
    };
    segments.iter().take_while(fits).cloned().collect()
}

fn of_runs(segments: &[Arc<Segment>]) -> Option<Choice> {
    let depth = depth(segments);
    let reason = if RUNS_MAX < depth { Reason::Urgent } else { Reason::Due };
    let tiered = tiered(segments);
    if MERGE_MIN <= tiered {
        let inputs = within_rows(&segments[..tiered]);
        return (2 <= inputs.len()).then_some(Choice { inputs, reason });
    }
    let many = if RUNS_MAX < depth {
        depth - RUNS_MAX / 2
    } else if SEGMENTS_MAX < segments.len() {
        MERGE_MANY
    } else {
        return None;
    };
    let inputs = within_rows(smallest_neighbours(segments, many)?);
    (2 <= inputs.len()).then_some(Choice { inputs, reason })
}

/// How many of the newest segments are of similar size.
fn tiered(segments: &[Arc<Segment>]) -> usize {
    let mut gathered = 0;
    let mut count = 0;
    for segment in segments {
        let fits = count == 0 || segment.file_bytes() <= gathered * SIZE_RATIO;
        if !fits || !is_eligible(segment, segments) {
            break;
        }
        gathered += segment.file_bytes();
        count += 1;
    }
    count
}

fn is_eligible(segment: &Arc<Segment>, all: &[Arc<Segment>]) -> bool {
    let (min, max) = segment.id_range();
    segment.file_bytes() < SMALL_BYTES
        || all.iter().any(|other| !Arc::ptr_eq(other, segment) && other.overlaps(min, max))
}

/// Most segments that can have the same id.
pub(super) fn depth(segments: &[Arc<Segment>]) -> usize {
    // Where most ranges meet, some range begins.
    let meeting = |id| segments.iter().filter(|segment| segment.may_contain(id)).count();
    segments.iter().map(|segment| meeting(segment.id_range().0)).max().unwrap_or(0)
}

/// The neighbours with the fewest bytes.
fn smallest_neighbours(segments: &[Arc<Segment>], count: usize) -> Option<&[Arc<Segment>]> {
    let bytes =
        |window: &&[Arc<Segment>]| window.iter().map(|segment| segment.file_bytes()).sum::<u64>();
    segments.windows(count.min(segments.len()).max(1)).min_by_key(bytes)
}

/// Everything, if that changes anything.
pub(super) fn whole(version: &Version) -> Option<Choice> {
    let segments = &version.segments;
    let clean = segments.len() <= 1 && garbage_bytes(version) == 0;
    let inputs = within_rows(segments);
    (!clean && !inputs.is_empty()).then_some(Choice { inputs, reason: Reason::Asked })
}

/// The one segment with garbage whose rewrite needs the least room.
pub(super) fn smallest(version: &Version) -> Option<Choice> {
    let with_garbage = version.segments.iter().filter(|segment| 0 < dead_bytes(segment));
    let smallest = with_garbage.min_by_key(|segment| rewritten_bytes(segment))?;
    Some(Choice { inputs: vec![Arc::clone(smallest)], reason: Reason::Urgent })
}

/// Single segments whose own garbage is worth a rewrite, those that need the least room first.
pub(super) fn pieces_worth(version: &Version, garbage_percent: u32) -> Vec<Choice> {
    let is_worth = |segment: &&Arc<Segment>| {
        is_too_much(dead_bytes(segment), segment.file_bytes(), u64::from(garbage_percent))
    };
    let mut worth: Vec<_> = version.segments.iter().filter(is_worth).collect();
    worth.sort_by_key(|segment| rewritten_bytes(segment));
    let one = |segment| Choice { inputs: vec![Arc::clone(segment)], reason: Reason::Due };
    worth.into_iter().map(one).collect()
}

fn rewritten_bytes(segment: &Segment) -> u64 {
    segment.file_bytes().saturating_sub(dead_bytes(segment))
}

/// One segment, to give back room on a full disk.
pub(super) fn alone(segment: &Arc<Segment>) -> Choice {
    Choice { inputs: vec![Arc::clone(segment)], reason: Reason::Full }
}

/// Whether the garbage of a database that is not open is due, by what the manifest says.
pub(super) fn is_due(record: &DatabaseRecord, percent: u64) -> bool {
    let layout = &record.meta.layout;
    let row_bytes = u64::from(layout.page_bytes() / layout.rows_per_page());
    let (mut bytes, mut garbage) = (0, 0);
    for segment in &record.segments {
        let dead = u64::from(segment.row_count.saturating_sub(segment.live_rows));
        bytes += segment.file_bytes;
        garbage += dead * row_bytes + u64::from(segment.tombstone_count) * TOMBSTONE_BYTES;
    }
    is_too_much(garbage, bytes, percent)
}

fn is_too_much(garbage: u64, bytes: u64, percent: u64) -> bool {
    GARBAGE_BYTES_MIN <= garbage && bytes * percent <= garbage * 100
}
