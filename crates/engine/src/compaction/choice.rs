//! Which segments are worth a compaction.
//!
//! Garbage first: when it comes to more than the configured share of a database, the segment of
//! which the most is garbage is rewritten, by itself or with neighbours of which as much is, up to
//! [`LARGE_SHARE`] of the database. That copies the least for what it gives back: under updates
//! that fall anywhere the old segments decay until little is left to copy. Only when tombstones are
//! the garbage, or the database is small, it is rewritten as a whole.
//!
//! Then the number of runs: the newest segments are merged when [`MERGE_MIN`] of them are of
//! similar size (tiered by size), but what is large already stays out: merging it again saves
//! lookups little and copies much. A lookup visits the segments whose ranges hold its id: at most
//! [`RUNS_MAX`] of them may meet; beyond that the neighbours with the fewest live bytes are merged.
//! Large segments that meet no other cost a lookup nothing and are left alone up to
//! [`SEGMENTS_MAX`].
//!
//! What that copies is tested with a model (`tests`): updates that fall anywhere.

use std::{ops::Range, sync::Arc};

use nephrite_format::{FileId, IdRef};

use crate::{manifest::DatabaseRecord, segment::Segment, version::Version};

/// Fewest segments worth merging when nothing presses.
const MERGE_MIN: usize = 4;
/// Most segments of a database whose ranges of ids meet.
const RUNS_MAX: usize = 8;
/// Runs of a database from which its flushes wait for compactions.
const RUNS_STALL: usize = 3 * RUNS_MAX;
/// Most segments of a database.
const SEGMENTS_MAX: usize = 64;
/// Neighbours that are merged when there are more.
const MERGE_MANY: usize = 16;
/// A segment is large when it has one in so many bytes of its database.
const LARGE_SHARE: u64 = 8;
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
/// Garbage is urgent from so many percent above the allowed share on: flushes wait for it then.
const URGENT_POINTS: u64 = 3;
/// Segments of at most so many bytes are merged on a full disk.
const TINY_BYTES: u64 = 96 << 10;
/// On a full disk a segment of which one byte in so many is garbage is worth a part of the reserve.
const ROOM_SHARE: u64 = 8;
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

/// What to compact. It names files, so that it keeps no segment alive: the room of an input comes
/// back with the swap, however long somebody remembers why it was chosen.
#[derive(Debug)]
pub(super) struct Choice {
    /// Neighbours in age, newest first.
    pub(super) inputs: Vec<FileId>,
    pub(super) reason: Reason,
}

impl Choice {
    fn of<'a>(segments: impl IntoIterator<Item = &'a Arc<Segment>>, reason: Reason) -> Self {
        Self { inputs: segments.into_iter().map(|segment| segment.file()).collect(), reason }
    }
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

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
struct Run<'a> {
    bytes: u64,
    dead: u64,
    tombstones: u64,
    rows: u64,
    range: (IdRef<'a>, IdRef<'a>),
}

impl<'a> Run<'a> {
    fn of(segment: &'a Arc<Segment>) -> Self {
        Self {
            bytes: segment.file_bytes(),
            dead: dead_bytes(segment),
            tombstones: tombstone_bytes(segment),
            rows: u64::from(segment.row_count()),
            range: segment.id_range(),
        }
    }

    fn all_of(segments: &'a [Arc<Segment>]) -> Vec<Self> {
        segments.iter().map(Self::of).collect()
    }

    /// Bytes that a rewrite copies.
    fn live(&self) -> u64 {
        self.bytes.saturating_sub(self.dead)
    }

    fn holds(&self, id: IdRef<'_>) -> bool {
        self.range.0 <= id && id <= self.range.1
    }

    fn meets(&self, other: &Self) -> bool {
        self.range.0 <= other.range.1 && other.range.0 <= self.range.1
    }

    /// Whether at least as large a part of it is garbage as of the other.
    fn is_as_dead_as(&self, other: &Self) -> bool {
        u128::from(other.dead) * u128::from(self.bytes)
            <= u128::from(self.dead) * u128::from(other.bytes)
    }
}

/// Bytes of runs, and those of them that are garbage.
fn sums(runs: &[Run<'_>]) -> (u64, u64) {
    let bytes = runs.iter().map(|run| run.bytes).sum();
    (bytes, runs.iter().map(|run| run.dead + run.tombstones).sum())
}

/// The segments to compact; none when nothing is due.
pub(super) fn choose(version: &Version, garbage_percent: u32) -> Option<Choice> {
    let (which, reason) = choose_runs(&Run::all_of(&version.segments), u64::from(garbage_percent))?;
    Some(Choice::of(&version.segments[which], reason))
}

fn choose_runs(runs: &[Run<'_>], percent: u64) -> Option<(Range<usize>, Reason)> {
    of_garbage(runs, percent).or_else(|| of_number(runs))
}

/// Whether a database suffers from what is put off.
pub(super) fn presses(version: &Version, garbage_percent: u32) -> bool {
    let runs = Run::all_of(&version.segments);
    RUNS_MAX < most_meeting(&runs) || is_far_too_much(sums(&runs), u64::from(garbage_percent))
}

/// What of a database keeps its flushes waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    /// So many segments meet that every flush has to wait.
    pub(super) stalls: bool,
    /// There is more garbage than the allowed share by far.
    pub(super) is_urgent: bool,
}

pub(super) fn backlog(version: &Version, garbage_percent: u32) -> Backlog {
    let runs = Run::all_of(&version.segments);
    Backlog {
        stalls: RUNS_STALL <= most_meeting(&runs),
        is_urgent: is_far_too_much(sums(&runs), u64::from(garbage_percent)),
    }
}

fn of_garbage(runs: &[Run<'_>], percent: u64) -> Option<(Range<usize>, Reason)> {
    let (bytes, garbage) = sums(runs);
    if !is_too_much(garbage, bytes, percent) {
        return None;
    }
    // Whoever writes does so faster than the budget lets us follow.
    let urgent = is_far_too_much((bytes, garbage), percent);
    let reason = if urgent { Reason::Urgent } else { Reason::Due };
    let tombstones: u64 = runs.iter().map(|run| run.tombstones).sum();
    if bytes <= WHOLE_BYTES || garbage <= 2 * tombstones {
        return Some((within_rows(runs, 0..runs.len()), reason));
    }
    let worst = (1..runs.len())
        .fold(0, |worst, at| if runs[worst].is_as_dead_as(&runs[at]) { worst } else { at });
    Some((within_rows(runs, with_neighbours(runs, worst, bytes, garbage)), reason))
}

/// A run with those around it that are worth a rewrite as well: as long as more of them than of
/// everything is garbage, and what is copied is no more than a large segment.
fn with_neighbours(runs: &[Run<'_>], at: usize, bytes: u64, garbage: u64) -> Range<usize> {
    let average = Run { bytes, dead: garbage, ..runs[at] };
    let (mut which, mut live) = (at..at + 1, runs[at].live());
    loop {
        let before = which.start.checked_sub(1).map(|at| &runs[at]);
        let fits = |run: &&Run<'_>| {
            run.is_as_dead_as(&average) && live + run.live() <= bytes / LARGE_SHARE
        };
        match (before.filter(fits), runs.get(which.end).filter(fits)) {
            (Some(before), after) if after.is_none_or(|after| before.is_as_dead_as(after)) => {
                which.start -= 1;
                live += before.live();
            }
            (_, Some(after)) => {
                which.end += 1;
                live += after.live();
            }
            (_, None) => return which,
        }
    }
}

/// The first of them that fit one output.
fn within_rows(runs: &[Run<'_>], which: Range<usize>) -> Range<usize> {
    let mut rows = 0;
    let fits = |run: &&Run<'_>| {
        rows += run.rows;
        rows <= ROWS_MAX
    };
    let count = runs[which.clone()].iter().take_while(fits).count();
    which.start..which.start + count
}

fn of_number(runs: &[Run<'_>]) -> Option<(Range<usize>, Reason)> {
    let depth = most_meeting(runs);
    let reason = if RUNS_MAX < depth { Reason::Urgent } else { Reason::Due };
    let tiered = tiered(runs);
    let which = if MERGE_MIN <= tiered {
        0..tiered
    } else if RUNS_MAX < depth {
        smallest_neighbours(runs, (depth - RUNS_MAX + RUNS_MAX / 4).max(MERGE_MIN))?
    } else if SEGMENTS_MAX < runs.len() {
        smallest_neighbours(runs, MERGE_MANY)?
    } else {
        return None;
    };
    let which = within_rows(runs, which);
    (2 <= which.len()).then_some((which, reason))
}

/// How many of the newest runs are of similar size, and none of them large.
fn tiered(runs: &[Run<'_>]) -> usize {
    let large = (sums(runs).0 / LARGE_SHARE).max(SMALL_BYTES);
    let (mut gathered, mut count) = (0, 0);
    for run in runs {
        let fits = count == 0 || run.bytes <= gathered * SIZE_RATIO;
        if !fits || large <= run.bytes || !is_eligible(run, count, runs) {
            break;
        }
        gathered += run.bytes;
        count += 1;
    }
    count
}

fn is_eligible(run: &Run<'_>, at: usize, all: &[Run<'_>]) -> bool {
    let mut others = all.iter().enumerate().filter(|(other, _)| *other != at);
    run.bytes < SMALL_BYTES || others.any(|(_, other)| other.meets(run))
}

/// Most runs that can have the same id.
fn most_meeting(runs: &[Run<'_>]) -> usize {
    // Where most ranges meet, some range begins.
    let meeting = |id| runs.iter().filter(|run| run.holds(id)).count();
    runs.iter().map(|run| meeting(run.range.0)).max().unwrap_or(0)
}

/// The neighbours with the fewest bytes to copy.
fn smallest_neighbours(runs: &[Run<'_>], count: usize) -> Option<Range<usize>> {
    let count = count.min(runs.len()).max(1);
    let live = |window: &[Run<'_>]| window.iter().map(Run::live).sum::<u64>();
    let windows = runs.windows(count).enumerate();
    let (start, _) = windows.min_by_key(|(_, window)| live(window))?;
    Some(start..start + count)
}

/// Everything, if that changes anything.
pub(super) fn whole(version: &Version) -> Option<Choice> {
    let segments = &version.segments;
    let clean = segments.len() <= 1 && garbage_bytes(version) == 0;
    let inputs = &segments[within_rows(&Run::all_of(segments), 0..segments.len())];
    (!clean && !inputs.is_empty()).then(|| Choice::of(inputs, Reason::Asked))
}

/// What a rewrite takes and what it gives back beyond that, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Yield {
    pub(super) left: u64,
    pub(super) dead: u64,
}

impl Yield {
    fn of(segment: &Segment) -> Self {
        Self { left: rewritten_bytes(segment), dead: dead_bytes(segment) }
    }

    /// Whether it is worth a part of the reserve.
    pub(super) fn is_much(self) -> bool {
        self.left + self.dead <= self.dead * ROOM_SHARE
    }
}

/// Whether any segment has garbage of its own.
pub(super) fn is_clean(version: &Version) -> bool {
    version.segments.iter().all(|segment| dead_bytes(segment) == 0)
}

/// Whether some segment has garbage that is worth a part of the reserve.
pub(super) fn is_worth_room(version: &Version) -> bool {
    version.segments.iter().any(|segment| Yield::of(segment).is_much())
}

/// The single segments with garbage, those whose rewrite needs the least room first.
pub(super) fn pieces_with_garbage(version: &Version) -> Vec<(Yield, Choice)> {
    let with_garbage = version.segments.iter().filter(|segment| 0 < dead_bytes(segment));
    let mut pieces: Vec<_> = with_garbage
        .map(|segment| (Yield::of(segment), Choice::of([segment], Reason::Urgent)))
        .collect();
    pieces.sort_by_key(|(found, _)| found.left);
    pieces
}

/// The newest segments, if they are small, and several: on a full disk each relief leaves one of a
/// few tombstones, which takes several blocks.
pub(super) fn newest_small(version: &Version) -> Option<(Yield, Choice)> {
    let is_small = |segment: &&Arc<Segment>| segment.file_bytes() <= TINY_BYTES;
    let count = version.segments.iter().take_while(is_small).count();
    let inputs = &version.segments[..count];
    // Nearly all of it may be left; what comes back is blocks.
    let bytes = inputs.iter().map(|segment| segment.file_bytes()).sum();
    let found = Yield { left: bytes, dead: bytes };
    (MERGE_MIN <= count).then(|| (found, Choice::of(inputs, Reason::Urgent)))
}

/// Single segments whose own garbage is worth a rewrite, those that need the least room first.
pub(super) fn pieces_worth(version: &Version, garbage_percent: u32) -> Vec<Choice> {
    let is_worth = |segment: &&Arc<Segment>| {
        is_too_much(dead_bytes(segment), segment.file_bytes(), u64::from(garbage_percent))
    };
    let mut worth: Vec<_> = version.segments.iter().filter(is_worth).collect();
    worth.sort_by_key(|segment| rewritten_bytes(segment));
    worth.into_iter().map(|segment| Choice::of([segment], Reason::Due)).collect()
}

fn rewritten_bytes(segment: &Segment) -> u64 {
    segment.file_bytes().saturating_sub(dead_bytes(segment))
}

/// One segment, to give back room on a full disk.
pub(super) fn alone(segment: &Arc<Segment>) -> Choice {
    Choice::of([segment], Reason::Full)
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

/// As [`is_too_much`], of bytes with the garbage among them, and by so much that it is urgent.
fn is_far_too_much((bytes, garbage): (u64, u64), percent: u64) -> bool {
    is_too_much(garbage, bytes, percent + URGENT_POINTS)
}

#[cfg(test)]
mod tests;
