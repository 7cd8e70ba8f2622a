//! The fence index: the first id of every id page, and the last id of the run.
//!
//! It is read whole when a segment is first used and stays in memory, so that a lookup reads one
//! id page. On disk it is a blob in blocks of 4096 bytes, zero-padded.

use crate::BLOCK_BYTES;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::id::{IdKind, IdRef};

/// Bytes of the blob before the ids.
const HEADER_BYTES: usize = 16;
const HEADER_BYTES_U32: u32 = 16;

/// How far into a page, in 65536ths of its entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share(u16);

impl Share {
    /// In the middle: nothing is known.
    pub const HALF: Self = Self(1 << 15);

    /// Of `key` on the way from `below` to `above`.
    fn between(below: u64, key: u64, above: u64) -> Self {
        let (way, whole) = (key.saturating_sub(below), above.saturating_sub(below));
        // So many bits that the product below fits.
        let spare = (64 - whole.leading_zeros()).saturating_sub(40);
        let (way, whole) = (way >> spare, whole >> spare);
        let share = (way.min(whole) << 16).checked_div(whole).unwrap_or(0);
        Self(u16::try_from(share).unwrap_or(u16::MAX))
    }

    /// The position among so many.
    #[must_use]
    #[inline]
    pub fn of(self, count: usize) -> usize {
        (count * usize::from(self.0)) >> 16
    }
}

/// Fences of one id run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FenceIndex {
    firsts: Firsts,
    /// Number of pages and of `firsts`.
    page_count: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Firsts {
    U64 {
        ids: Vec<u64>,
        last: u64,
    },
    /// `bytes` is the ids one after another; `ends` where each ends. All ids of the run begin with
    /// the same `shared` bytes; `keys` are the eight bytes of each fence behind them, as numbers
    /// that ascend with the ids: most searches end there.
    Bytes {
        bytes: Vec<u8>,
        ends: Vec<u32>,
        last: Vec<u8>,
        shared: usize,
        keys: Vec<u64>,
    },
}

impl FenceIndex {
    pub(super) const fn empty(kind: IdKind) -> Self {
        let firsts = match kind {
            IdKind::U64 => Firsts::U64 { ids: Vec::new(), last: 0 },
            IdKind::Bytes => Firsts::Bytes {
                bytes: Vec::new(),
                ends: Vec::new(),
                last: Vec::new(),
                shared: 0,
                keys: Vec::new(),
            },
        };
        Self { firsts, page_count: 0 }
    }

    /// Notes the next id of the run; `is_first` when it begins a page. The caller keeps kind and
    /// order.
    pub(super) fn note(&mut self, id: IdRef<'_>, is_first: bool) {
        match (&mut self.firsts, id) {
            (Firsts::U64 { ids, last }, IdRef::U64(id)) => {
                if is_first {
                    ids.push(id);
                }
                *last = id;
            }
            (Firsts::Bytes { bytes, ends, last, .. }, IdRef::Bytes(id)) => {
                if is_first {
                    bytes.extend_from_slice(id);
                    ends.push(u32::try_from(bytes.len()).expect("fences are below 4 GiB"));
                }
                last.clear();
                last.extend_from_slice(id);
            }
            (_, id) => panic!("id {id} is of another kind than the fences"),
        }
        self.page_count += u32::from(is_first);
    }

    /// After the last id: prepares the search and gives back memory that growing set aside.
    pub(super) fn complete(&mut self) {
        match &mut self.firsts {
            Firsts::U64 { ids, .. } => ids.shrink_to_fit(),
            Firsts::Bytes { bytes, ends, last, shared, keys } => {
                let first = &bytes[..ends.first().map_or(0, |end| *end as usize)];
                *shared = first.iter().zip(&*last).take_while(|(one, other)| one == other).count();
                let id = |page| &bytes[start_of(ends, page)..ends[page] as usize];
                *keys = (0..ends.len()).map(|page| key(id(page), *shared)).collect();
                bytes.shrink_to_fit();
                ends.shrink_to_fit();
                last.shrink_to_fit();
            }
        }
    }

    /// Kind of the ids.
    #[must_use]
    pub const fn kind(&self) -> IdKind {
        match self.firsts {
            Firsts::U64 { .. } => IdKind::U64,
            Firsts::Bytes { .. } => IdKind::Bytes,
        }
    }

    /// Number of id pages.
    #[must_use]
    pub const fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The largest id of the run.
    #[must_use]
    pub fn last(&self) -> Option<IdRef<'_>> {
        if self.page_count == 0 {
            return None;
        }
        Some(match &self.firsts {
            Firsts::U64 { last, .. } => IdRef::U64(*last),
            Firsts::Bytes { last, .. } => IdRef::Bytes(last),
        })
    }

    /// The smallest id of page `page`; `None` past the last page.
    #[must_use]
    pub fn first_of(&self, page: u32) -> Option<IdRef<'_>> {
        let page = page as usize;
        match &self.firsts {
            Firsts::U64 { ids, .. } => ids.get(page).copied().map(IdRef::U64),
            Firsts::Bytes { bytes, ends, .. } => {
                let end = *ends.get(page)? as usize;
                Some(IdRef::Bytes(&bytes[start_of(ends, page)..end]))
            }
        }
    }

    /// The only page that can hold `id`; `None` when no page can, or the id is of the other kind.
    #[must_use]
    #[inline]
    pub fn page_for(&self, id: IdRef<'_>) -> Option<u32> {
        let above = match (&self.firsts, id) {
            (Firsts::U64 { ids, last }, IdRef::U64(id)) if id <= *last => {
                ids.partition_point(|first| *first <= id)
            }
            (Firsts::Bytes { last, shared, keys, .. }, IdRef::Bytes(id)) if id <= &last[..] => {
                // An id that begins otherwise lies below all of them, as it is not above the last.
                if id.get(..*shared) != last.get(..*shared) {
                    return None;
                }
                let key = key(id, *shared);
                let mut low = keys.partition_point(|other| *other < key);
                let equal = keys[low..].iter().take_while(|other| **other == key).count();
                let mut high = low + equal;
                while low < high {
                    let middle = usize::midpoint(low, high);
                    if self.bytes_of(middle) <= id {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                low
            }
            _ => return None,
        };
        u32::try_from(above.checked_sub(1)?).ok()
    }

    /// The page that can hold `id` as in [`FenceIndex::page_for`], and where in it the id probably
    /// lies, by its distance from the fences beside it: exact for evenly spread ids, a guess for
    /// all others.
    #[must_use]
    #[inline]
    pub fn place_for(&self, id: IdRef<'_>) -> Option<(u32, Share)> {
        let page = self.page_for(id)?;
        let at = page as usize;
        let share = match (&self.firsts, id) {
            (Firsts::U64 { ids, last }, IdRef::U64(id)) => {
                let above = ids.get(at + 1).unwrap_or(last);
                Share::between(ids[at], id, *above)
            }
            (Firsts::Bytes { ends, last, .. }, IdRef::Bytes(id)) => {
                let below = self.bytes_of(at);
                let above = if at + 1 < ends.len() { self.bytes_of(at + 1) } else { &last[..] };
                let same = below.iter().zip(above).take_while(|(one, other)| one == other);
                let same = same.count();
                Share::between(key(below, same), key(id, same), key(above, same))
            }
            _ => Share::HALF,
        };
        Some((page, share))
    }

    /// Bytes of memory that this index takes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        let heap = match &self.firsts {
            Firsts::U64 { ids, .. } => ids.capacity() * size_of::<u64>(),
            Firsts::Bytes { bytes, ends, last, keys, .. } => {
                bytes.capacity()
                    + ends.capacity() * size_of::<u32>()
                    + last.capacity()
                    + keys.capacity() * size_of::<u64>()
            }
        };
        size_of::<Self>() + heap
    }

    /// The blob, zero-padded to a multiple of 4096 bytes.
    ///
    /// # Panics
    /// When the run is empty.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let last = self.last().expect("fences of a run with entries");
        let mut blob = vec![0; HEADER_BYTES];
        (0..self.page_count).filter_map(|page| self.first_of(page)).for_each(|id| {
            push_id(&mut blob, id);
        });
        push_id(&mut blob, last);
        let used = blob.len() as u64;
        blob[0] = self.kind().code();
        blob[4..8].copy_from_slice(&self.page_count.to_le_bytes());
        blob[8..16].copy_from_slice(&used.to_le_bytes());
        blob.resize(blob.len().next_multiple_of(BLOCK_BYTES), 0);
        blob
    }

    /// Reads a blob; `offset` is where in `file` it lies. Allocates about as much as the blob
    /// has bytes.
    ///
    /// # Errors
    /// `Corrupt` when lengths, counts, order or padding do not fit.
    pub fn decode(blob: &[u8], kind: IdKind, file: &str, offset: u64) -> Result<Self> {
        let mut cursor = Cursor::new(blob, offset, file);
        let start = cursor;
        let code = cursor.u8("kind of fences")?;
        cursor.zeros(3, "fences")?;
        let page_count = cursor.u32("count of fences")?;
        let used = cursor.u64("length of fences")?;
        if code != kind.code() {
            return Err(start.corrupt(format!("fences of kind {code} where {kind} ids are")));
        }
        if page_count == 0 {
            return Err(start.corrupt("there are no fences"));
        }
        let body = u32::try_from(used).ok().and_then(|used| used.checked_sub(HEADER_BYTES_U32));
        let Some(body) = body else {
            return Err(start.corrupt(format!("the fences claim {used} bytes")));
        };
        let body = body as usize;
        if blob.len() != (HEADER_BYTES + body).next_multiple_of(BLOCK_BYTES) {
            let what = format!("the fences claim {used} bytes of a section of {}", blob.len());
            return Err(start.corrupt(what));
        }
        let mut ids = cursor.sub(body, "fences")?;
        let index = Self::decode_ids(&mut ids, kind, page_count)?;
        ids.finish("the fences")?;
        cursor.zeros(cursor.remaining(), "fences")?;
        Ok(index)
    }

    fn decode_ids(cursor: &mut Cursor<'_>, kind: IdKind, page_count: u32) -> Result<Self> {
        let mut index = Self::empty(kind);
        for _ in 0..page_count {
            let start = *cursor;
            let id = read_id(cursor, kind)?;
            if index.last().is_some_and(|last| id <= last) {
                return Err(start.corrupt(format!("fence {id} is out of order")));
            }
            index.note(id, true);
        }
        let start = *cursor;
        let last = read_id(cursor, kind)?;
        if index.last().is_some_and(|fence| last < fence) {
            return Err(start.corrupt(format!("last id {last} is below the last fence")));
        }
        index.note(last, false);
        index.complete();
        Ok(index)
    }

    /// First id of a page of byte ids; the caller keeps the kind and the range.
    fn bytes_of(&self, page: usize) -> &[u8] {
        match &self.firsts {
            Firsts::Bytes { bytes, ends, .. } => &bytes[start_of(ends, page)..ends[page] as usize],
            Firsts::U64 { .. } => &[],
        }
    }
}

/// The eight bytes from `start` on as a number that ascends with the id.
#[inline]
fn key(id: &[u8], start: usize) -> u64 {
    let rest = id.get(start..).unwrap_or_default();
    let mut first = [0; 8];
    match rest.first_chunk::<8>() {
        Some(chunk) => first = *chunk,
        None => first[..rest.len()].copy_from_slice(rest),
    }
    u64::from_le_bytes(first).swap_bytes() // the first byte weighs most
}

fn start_of(ends: &[u32], page: usize) -> usize {
    page.checked_sub(1).map_or(0, |before| ends[before] as usize)
}

fn push_id(blob: &mut Vec<u8>, id: IdRef<'_>) {
    match id {
        IdRef::U64(id) => blob.extend_from_slice(&id.to_le_bytes()),
        IdRef::Bytes(id) => {
            blob.push(u8::try_from(id.len()).expect("ids of a run have at most 255 bytes"));
            blob.extend_from_slice(id);
        }
    }
}

fn read_id<'a>(cursor: &mut Cursor<'a>, kind: IdKind) -> Result<IdRef<'a>> {
    crate::wal::decode_id(cursor, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences(kind: IdKind, firsts: &[IdRef<'_>], last: IdRef<'_>) -> FenceIndex {
        let mut fences = FenceIndex::empty(kind);
        firsts.iter().for_each(|id| fences.note(*id, true));
        fences.note(last, false);
        fences.complete();
        fences
    }

    #[test]
    fn evenly_spread_ids_lie_where_they_are_expected() {
        let firsts = [IdRef::U64(100), IdRef::U64(1100)];
        let numbers = fences(IdKind::U64, &firsts, IdRef::U64(u64::MAX));
        let place =
            |id| numbers.place_for(IdRef::U64(id)).map(|(page, share)| (page, share.of(100)));
        assert_eq!(place(99), None);
        assert_eq!(
            (place(100), place(600), place(1099)),
            (Some((0, 0)), Some((0, 50)), Some((0, 99)))
        );
        assert_eq!((place(1100), place(u64::MAX / 4)), (Some((1, 0)), Some((1, 24))));
        assert_eq!(place(u64::MAX), Some((1, 99)));

        let firsts = [IdRef::from("item-1"), IdRef::from("item-5")];
        let texts = fences(IdKind::Bytes, &firsts, IdRef::from("item-50"));
        let place =
            |id| texts.place_for(IdRef::from(id)).map(|(page, share)| (page, share.of(100)));
        assert_eq!((place("item-0"), place("item-51")), (None, None));
        assert_eq!((place("item-1"), place("item-3")), (Some((0, 0)), Some((0, 50))));
        assert_eq!((place("item-5"), place("item-50")), (Some((1, 0)), Some((1, 99))));
    }

    #[test]
    fn fences_that_differ_late_are_compared_whole() {
        let firsts = ["a-123456781", "a-123456785", "a-1234567850", "b"].map(IdRef::from);
        let texts = fences(IdKind::Bytes, &firsts, IdRef::from("ba"));
        let page = |id| texts.page_for(IdRef::from(id));
        assert_eq!((page("a-123456780"), page("a"), page("bb")), (None, None, None));
        assert_eq!((page("a-123456781"), page("a-1234567849")), (Some(0), Some(0)));
        assert_eq!((page("a-123456785"), page("a-1234567850")), (Some(1), Some(2)));
        assert_eq!((page("azz"), page("b"), page("ba")), (Some(2), Some(3), Some(3)));
        assert_eq!(texts.page_for(IdRef::U64(1)), None);
    }

    #[test]
    fn a_page_of_one_id_has_a_share() {
        let one = fences(IdKind::U64, &[IdRef::U64(7)], IdRef::U64(7));
        assert_eq!(
            one.place_for(IdRef::U64(7)).map(|(page, share)| (page, share.of(1))),
            Some((0, 0))
        );
    }
}
