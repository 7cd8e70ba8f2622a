//! Merging the ids of several segments, a page at a time.
//!
//! [`Cursor`] gives the entries of one segment in order, read past the cache in pieces; [`Merge`]
//! gives the newest entry of every id that some input has. Memory: one piece per segment, whatever
//! the number of ids.
//! Every piece is paid for (`pace`), which also notices that the store is being closed.
//!
//! Ids are compared by their beginning, a number that sorts like it, which is all of a number; byte
//! ids with the same beginning by their bytes. What is read is checked on the way: order, rows,
//! checksums.

use std::sync::Arc;

use nephrite_format::{BLOCK_BYTES, Id, IdKind, IdRef, Row, id_run::IdPage};

use super::pace::Pace;
use crate::{
    error::Error,
    planted::planted,
    segment::{ReadContext, Segment},
};

/// Bytes of id pages that are listed at a time: what lists them stays in small pieces of memory.
const LISTED_BYTES: usize = 64 << 10;
/// Entries of a segment of consecutive ids that are listed at a time.
const DENSE_STEP: u32 = 1024;

/// Entries of one segment, ascending.
#[derive(Debug)]
pub(super) struct Cursor {
    segment: Arc<Segment>,
    /// Next id page, or next entry of a segment of consecutive ids.
    next: u32,
    pages_at_once: u32,
    listed: Listed,
    at: usize,
}

/// Entries of a cursor, ascending.
#[derive(Debug, Default)]
struct Listed {
    rows: Vec<Row>,
    /// The beginning of each key as a number that sorts like it: all there is of a number.
    heads: Vec<u64>,
    /// Keys of bytes, end to end, and where each ends.
    keys: Vec<u8>,
    ends: Vec<usize>,
    last: Last,
}

/// The entry before, which outlives the list.
#[derive(Debug, Default)]
struct Last {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl Listed {
    fn clear(&mut self) {
        self.rows.clear();
        self.heads.clear();
        self.keys.clear();
        self.ends.clear();
    }

    /// Adds an entry; `false` when it does not follow the last one.
    fn add(&mut self, id: IdRef<'_>, row: Row) -> bool {
        self.rows.push(row);
        match id {
            IdRef::U64(number) => {
                self.heads.push(number);
                let before = self.last.number.replace(number);
                before.is_none_or(|before| before < number)
            }
            IdRef::Bytes(key) => {
                self.heads.push(beginning(key));
                self.keys.extend_from_slice(key);
                self.ends.push(self.keys.len());
                let ascends = self.last.bytes.as_slice() < key;
                self.last.bytes.clear();
                self.last.bytes.extend_from_slice(key);
                ascends
            }
        }
    }

    /// The bytes of a key of bytes; none of a number's.
    fn key(&self, at: usize) -> &[u8] {
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.keys[start..end]
    }
}

impl Cursor {
    /// From the first page on that can hold `from`.
    pub(super) fn new(segment: &Arc<Segment>, from: IdRef<'_>, bytes: usize) -> Self {
        let bytes = bytes.min(LISTED_BYTES);
        let pages_at_once = u32::try_from(bytes / BLOCK_BYTES).unwrap_or(u32::MAX).max(1);
        Self {
            segment: Arc::clone(segment),
            next: segment.first_id_page(from),
            pages_at_once,
            listed: Listed::default(),
            at: 0,
        }
    }

    /// The row of the entry that is next.
    fn row(&self) -> Option<Row> {
        self.listed.rows.get(self.at).copied()
    }

    /// Its key, which is no bytes for a number.
    fn key(&self) -> &[u8] {
        self.listed.key(self.at)
    }

    /// Where its key begins; the largest number at the end.
    fn head(&self) -> u64 {
        self.listed.heads.get(self.at).copied().unwrap_or(u64::MAX)
    }

    /// Lists more entries when none are left; none after that is the end. What is read is paid for.
    async fn fill(&mut self, context: &ReadContext, pace: &mut Pace<'_>) -> Result<(), Error> {
        if self.row().is_some() {
            return Ok(());
        }
        self.listed.clear();
        self.at = 0;
        let read = match self.segment.dense() {
            Some(dense) => {
                self.list_dense(dense);
                0
            }
            None => self.list_pages(context).await?,
        };
        // Nothing was listed at the end, which is asked for again and again.
        if self.row().is_none() { Ok(()) } else { pace.pay(read).await }
    }

    fn list_dense(&mut self, (first, first_row, count): (u64, Row, u32)) {
        let end = count.min(self.next.saturating_add(DENSE_STEP));
        for at in self.next..end {
            self.listed.add(IdRef::U64(first + u64::from(at)), Row::new(first_row.get() + at));
        }
        self.next = end;
    }

    /// Gives the bytes that were read.
    async fn list_pages(&mut self, context: &ReadContext) -> Result<u64, Error> {
        let count = self.pages_at_once.min(self.segment.id_pages() - self.next);
        if count == 0 {
            return Ok(0);
        }
        let segment = Arc::clone(&self.segment);
        let pages = segment.read_id_pages(context, self.next, count).await?;
        for (bytes, page) in pages.as_slice().chunks_exact(BLOCK_BYTES).zip(self.next..) {
            let (name, offset) = segment.id_page_place(page);
            let parsed = IdPage::parse(bytes, segment.id_kind(), name, offset)?;
            for entry in parsed.iter() {
                let (id, row) = entry?;
                if !row.is_tombstone() && segment.row_count() <= row.get() {
                    let what = format!("id page {page} names row {row}, which is not there");
                    return Err(Error::corrupt(name, offset, what));
                }
                if !self.listed.add(id, row) {
                    let what = format!("id {id} of id page {page} is out of order");
                    return Err(Error::corrupt(name, offset, what));
                }
            }
        }
        self.next += count;
        Ok(pages.len() as u64)
    }
}

/// The first bytes of a key, as a number that sorts like them.
#[expect(clippy::big_endian_bytes, reason = "byte order that sorts, in memory only")]
fn beginning(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    padded[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(padded)
}

/// The newest entry of an id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Position among the inputs, newest first.
    pub(super) input: usize,
    pub(super) row: Row,
}

/// Merges inputs under the segments that shadow them.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    context: &'a ReadContext,
    kind: IdKind,
    /// Newest first: first the shadows, then the inputs.
    cursors: Vec<Cursor>,
    /// Where the keys of the cursors begin: most of them need not be looked at further.
    heads: Vec<u64>,
    /// Cursors that must list more entries before the next id is known.
    drained: Vec<usize>,
    /// Inputs with entries left.
    inputs_left: usize,
    shadows: usize,
    /// Of the entry that was given last: where its key begins, and the key of one of bytes.
    head: u64,
    key: Vec<u8>,
}

impl<'a> Merge<'a> {
    /// `shadows` are newer than all inputs: ids that they have are left out. Both newest first.
    /// `bytes` are spread over the cursors.
    pub(super) fn new(
        context: &'a ReadContext,
        kind: IdKind,
        shadows: &[Arc<Segment>],
        inputs: &[Arc<Segment>],
        bytes: usize,
    ) -> Self {
        let first = inputs.iter().map(|input| input.id_range().0).min();
        let first = first.expect("a compaction has inputs").to_id();
        let each = bytes / (shadows.len() + inputs.len());
        let cursor = |segment| Cursor::new(segment, first.as_id_ref(), each);
        let cursors: Vec<Cursor> = shadows.iter().chain(inputs).map(cursor).collect();
        Self {
            context,
            kind,
            heads: vec![u64::MAX; cursors.len()],
            drained: (0..cursors.len()).collect(),
            inputs_left: inputs.len(),
            cursors,
            shadows: shadows.len(),
            head: 0,
            key: Vec::new(),
        }
    }

    /// The next id that an input has and no shadow; its entry. The id is in [`Self::id`].
    pub(super) async fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<Entry>, Error> {
        loop {
            if !self.drained.is_empty() {
                self.refill(pace).await?;
            }
            if self.inputs_left == 0 {
                return Ok(None);
            }
            let Some((newest, row)) = self.take_smallest() else { return Ok(None) };
            if let Some(input) = newest.checked_sub(self.shadows) {
                return Ok(Some(Entry { input, row }));
            }
        }
    }

    /// Lists more entries where none are left.
    async fn refill(&mut self, pace: &mut Pace<'_>) -> Result<(), Error> {
        while let Some(position) = self.drained.pop() {
            let cursor = &mut self.cursors[position];
            cursor.fill(self.context, pace).await?;
            self.heads[position] = cursor.head();
            if cursor.row().is_none() && self.shadows <= position {
                self.inputs_left -= 1;
            }
        }
        Ok(())
    }

    /// Takes the smallest id from every cursor that has it; the newest one says where it is.
    fn take_smallest(&mut self) -> Option<(usize, Row)> {
        let head = *self.heads.iter().min()?;
        let is_whole = self.kind == IdKind::U64; // what a key begins with is all of a number
        let mut smallest: Option<(usize, Row)> = None;
        for (position, cursor) in self.cursors.iter().enumerate() {
            if self.heads[position] != head {
                continue;
            }
            let Some(row) = cursor.row() else { continue };
            let older = planted("oldest_version_kept");
            let goes_before = |known: usize| match self.cursors[known].key() {
                _ if is_whole => older,
                known => cursor.key() < known || older && cursor.key() == known,
            };
            if smallest.is_none_or(|(known, _)| goes_before(known)) {
                smallest = Some((position, row));
            }
        }
        let (newest, row) = smallest?;
        self.head = head;
        self.key.clear();
        self.key.extend_from_slice(self.cursors[newest].key());
        let first = if planted("oldest_version_kept") { 0 } else { newest };
        for (position, cursor) in self.cursors.iter_mut().enumerate().skip(first) {
            let has_it = self.heads[position] == head
                && cursor.row().is_some()
                && (is_whole || cursor.key() == self.key);
            if has_it {
                cursor.at += 1;
                self.heads[position] = cursor.head();
                if cursor.row().is_none() {
                    self.drained.push(position);
                }
            }
        }
        Some((newest, row))
    }

    /// The id of the entry that was given last.
    pub(super) fn id(&self) -> IdRef<'_> {
        match self.kind {
            IdKind::Bytes => IdRef::Bytes(&self.key),
            IdKind::U64 => IdRef::U64(self.head),
        }
    }

    /// As [`Self::id`], to keep.
    pub(super) fn owned_id(&self) -> Id {
        self.id().to_id()
    }
}
