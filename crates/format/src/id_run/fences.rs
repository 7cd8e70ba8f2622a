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
    /// `bytes` is the ids one after another; `ends` where each ends.
    Bytes {
        bytes: Vec<u8>,
        ends: Vec<u32>,
        last: Vec<u8>,
    },
}

impl FenceIndex {
    pub(super) const fn empty(kind: IdKind) -> Self {
        let firsts = match kind {
            IdKind::U64 => Firsts::U64 { ids: Vec::new(), last: 0 },
            IdKind::Bytes => {
                Firsts::Bytes { bytes: Vec::new(), ends: Vec::new(), last: Vec::new() }
            }
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
            (Firsts::Bytes { bytes, ends, last }, IdRef::Bytes(id)) => {
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

    /// Gives back memory that growing set aside.
    pub(super) fn shrink(&mut self) {
        match &mut self.firsts {
            Firsts::U64 { ids, .. } => ids.shrink_to_fit(),
            Firsts::Bytes { bytes, ends, last } => {
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
            (Firsts::Bytes { ends, last, .. }, IdRef::Bytes(id_bytes)) if id_bytes <= &last[..] => {
                let (mut low, mut high) = (0, ends.len());
                while low < high {
                    let middle = usize::midpoint(low, high);
                    if self.bytes_of(middle) <= id_bytes {
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

    /// Bytes of memory that this index takes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        let heap = match &self.firsts {
            Firsts::U64 { ids, .. } => ids.capacity() * size_of::<u64>(),
            Firsts::Bytes { bytes, ends, last } => {
                bytes.capacity() + ends.capacity() * size_of::<u32>() + last.capacity()
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
        index.shrink();
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
