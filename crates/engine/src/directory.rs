//! Directory: which segments of a version can hold an id, by their ranges of ids.
//!
//! A few words per segment, side by side, so that a lookup does not visit segments which cannot
//! have the id. When no two ranges meet (bulk loads of ascending ids) it is one binary search;
//! otherwise the ranges are looked at newest first.
//!
//! Guarantee: never leaves out a segment that holds the id. Byte ids are compared by the eight
//! bytes behind what all of them begin with, so a candidate may still have other ids only.

use std::sync::Arc;

use nephrite_format::IdRef;

use crate::segment::Segment;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Ascending when `disjoint`, else newest first.
    spans: Box<[Span]>,
    disjoint: bool,
    /// What all byte ids here begin with; left out of the keys.
    prefix: Box<[u8]>,
}

/// The range of keys of one segment, both ends included.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    last: u64,
    segment: usize,
}

impl Directory {
    /// Of segments, newest first.
    pub(crate) fn new(segments: &[Arc<Segment>]) -> Self {
        Self::of_ranges(segments.iter().map(|segment| segment.id_range()).collect())
    }

    fn of_ranges(ranges: Vec<(IdRef<'_>, IdRef<'_>)>) -> Self {
        let prefix = common_prefix(&ranges);
        let span = |(segment, (first, last)): (usize, &(IdRef<'_>, IdRef<'_>))| {
            let key = |id| key(id, prefix).unwrap_or(0); // all begin with the prefix
            Span { first: key(*first), last: key(*last), segment }
        };
        let newest_first: Box<[Span]> = ranges.iter().enumerate().map(span).collect();
        let mut ascending = newest_first.clone();
        ascending.sort_unstable_by_key(|span| span.first);
        let disjoint = ascending.windows(2).all(|pair| pair[0].last < pair[1].first);
        let spans = if disjoint { ascending } else { newest_first };
        Self { spans, disjoint, prefix: prefix.into() }
    }

    /// Whether some ranges meet.
    #[inline]
    pub(crate) fn has_overlaps(&self) -> bool {
        !self.disjoint
    }

    /// What all byte ids here begin with.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The position of the only segment that can hold a number, when no ranges meet and it is in
    /// the first of them: databases of consecutive ids mostly have that one, or few.
    #[inline]
    pub(crate) fn sole_candidate(&self, id: IdRef<'_>) -> Option<usize> {
        let (IdRef::U64(id), Some(span)) = (id, self.spans.first()) else { return None };
        (self.disjoint && span.first <= id && id <= span.last).then_some(span.segment)
    }

    /// Positions of the segments that can hold an id, newest first.
    #[inline]
    pub(crate) fn candidates(&self, id: IdRef<'_>) -> impl Iterator<Item = usize> {
        let (key, spans) = match key(id, &self.prefix) {
            None => (0, &[][..]),
            Some(key) if self.disjoint => {
                let after = self.spans.partition_point(|span| span.first <= key);
                (key, &self.spans[after.saturating_sub(1)..after])
            }
            Some(key) => (key, &self.spans[..]),
        };
        let holds = move |span: &&Span| span.first <= key && key <= span.last;
        spans.iter().filter(holds).map(|span| span.segment)
    }
}

/// What both ends of all ranges begin with; empty for numbers.
fn common_prefix<'a>(ranges: &[(IdRef<'a>, IdRef<'a>)]) -> &'a [u8] {
    let ids = ranges.iter().flat_map(|(first, last)| [*first, *last]);
    let bytes = ids.map(|id| match id {
        IdRef::U64(_) => &[][..],
        IdRef::Bytes(id) => id,
    });
    let shared = |one: &'a [u8], other: &'a [u8]| {
        let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
        &one[..same]
    };
    bytes.reduce(shared).unwrap_or_default()
}

/// A number that ascends with the id: for byte ids the eight bytes behind the prefix. `None` for an
/// id without the prefix, which no range holds.
#[inline]
fn key(id: IdRef<'_>, prefix: &[u8]) -> Option<u64> {
    let id = match id {
        IdRef::U64(id) => return Some(id),
        IdRef::Bytes(id) => id.strip_prefix(prefix)?,
    };
    let mut first = [0; 8];
    match id.first_chunk::<8>() {
        Some(chunk) => first = *chunk,
        None => first[..id.len()].copy_from_slice(id),
    }
    Some(u64::from_le_bytes(first).swap_bytes()) // the first byte weighs most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(directory: &Directory, id: IdRef<'_>) -> Vec<usize> {
        directory.candidates(id).collect()
    }

    #[test]
    fn disjoint_ranges_have_one_candidate_at_the_most() {
        let ranges = [(20, 29), (0, 9), (40, 49)];
        let ranges = ranges.map(|(first, last)| (IdRef::U64(first), IdRef::U64(last)));
        let directory = Directory::of_ranges(ranges.to_vec());

        let found = [0, 9, 10, 20, 25, 39, 49, 50, u64::MAX]
            .map(|id| candidates(&directory, IdRef::U64(id)).first().copied());

        assert_eq!(found, [Some(1), Some(1), None, Some(0), Some(0), None, Some(2), None, None]);
    }

    #[test]
    fn the_first_of_disjoint_ranges_is_told_at_a_glance() {
        let ranges = |second| {
            let ranges = [(20, 29), (0, second)];
            ranges.map(|(first, last)| (IdRef::U64(first), IdRef::U64(last))).to_vec()
        };
        let sole = |second, id| Directory::of_ranges(ranges(second)).sole_candidate(IdRef::U64(id));

        assert_eq!([0, 9].map(|id| sole(9, id)), [Some(1); 2]);
        assert_eq!([10, 20, 30].map(|id| sole(9, id)), [None; 3], "of another, or of none");
        assert_eq!(sole(25, 3), None, "the ranges meet");
        assert_eq!(Directory::of_ranges(Vec::new()).sole_candidate(IdRef::U64(0)), None);
    }

    #[test]
    fn of_overlapping_ranges_the_newest_comes_first() {
        let ranges = [(5, 15), (0, 9), (10, 19)];
        let ranges = ranges.map(|(first, last)| (IdRef::U64(first), IdRef::U64(last)));
        let directory = Directory::of_ranges(ranges.to_vec());

        assert_eq!(candidates(&directory, IdRef::U64(7)), [0, 1]);
        assert_eq!(candidates(&directory, IdRef::U64(12)), [0, 2]);
        assert_eq!(candidates(&directory, IdRef::U64(3)), [1]);
    }

    #[test]
    fn byte_ids_are_told_apart_behind_what_they_share() {
        let ranges = [("document-5", "document-9"), ("document-0", "document-4")];
        let ranges = ranges.map(|(first, last)| (IdRef::from(first), IdRef::from(last)));
        let directory = Directory::of_ranges(ranges.to_vec());

        assert_eq!(candidates(&directory, IdRef::from("document-7")), [0]);
        assert_eq!(candidates(&directory, IdRef::from("document-41")), [0_usize; 0]);
        assert_eq!(candidates(&directory, IdRef::from("document-3xyz")), [1]);
        assert_eq!(candidates(&directory, IdRef::from("c")), [0_usize; 0]);
    }

    #[test]
    fn byte_ids_that_differ_late_are_all_candidates() {
        let ranges = [("a-123456789", "b"), ("a-123456787", "a-123456788")];
        let ranges = ranges.map(|(first, last)| (IdRef::from(first), IdRef::from(last)));
        let directory = Directory::of_ranges(ranges.to_vec());

        assert_eq!(candidates(&directory, IdRef::from("a-123456788")), [0, 1]);
    }

    #[test]
    fn keys_ascend_with_ids() {
        let ids = ["\0", "a", "a\0", "aa", "ab", "abcdefgh", "abcdefghi", "b"].map(IdRef::from);
        let keys = ids.map(|id| key(id, b"").unwrap());
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!(key(IdRef::from(""), b""), Some(0));
    }
}
