//! Sources of a scan: the entries of one memtable or segment, ascending, and runs of them.
//!
//! Consecutive ids in consecutive rows stay a run from the segment that says so in three numbers to
//! the piece that is handed out: what lists, cuts and places them works on runs, not on ids.
//! A run of byte strings has one id.

use std::{collections::VecDeque, sync::Arc};

use nephrite_format::{Id, IdRef, Row, VectorLayout};

use crate::{
    error::Error,
    memtable::Memtable,
    segment::{ReadContext, Segment, prefetch_id_pages},
};

/// Id pages that are read in one submission.
const ID_PAGES_AT_ONCE: u32 = 32;

/// The newest entries of some consecutive ids, in consecutive rows of one of the sources.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// The first id, and its row.
    id: Id,
    row: Row,
    pub(super) source: usize,
    /// Ids; not 0, but for one that is used up.
    pub(super) count: u32,
}

/// Entries of one memtable or segment, ascending.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) entries: Entries,
    pub(super) from: From,
}

#[derive(Debug)]
pub(super) enum Entries {
    Listed(VecDeque<(Id, Row)>),
    /// Consecutive ids in consecutive rows.
    Dense {
        next: u64,
        row: u32,
        left: u32,
    },
}

#[derive(Debug)]
pub(super) enum From {
    Memory(Arc<Memtable>),
    /// With the next id page.
    Segment(Arc<Segment>, u32),
}

impl Located {
    pub(super) fn is_tombstone(&self) -> bool {
        self.row.is_tombstone()
    }

    pub(super) fn first_id(&self) -> IdRef<'_> {
        self.id.as_id_ref()
    }

    pub(super) fn first_row(&self) -> Row {
        self.row
    }

    pub(super) fn last_row(&self) -> Row {
        Row::new(self.row.get() + self.count.saturating_sub(1))
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row> {
        (self.row.get()..self.row.get() + self.count).map(Row::new)
    }

    /// Takes the first id, with its row.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<(Id, Row)> {
        self.count = self.count.checked_sub(1)?;
        let row = self.row;
        self.row = Row::new(row.get().wrapping_add(1));
        let id = match &mut self.id {
            Id::U64(next) => {
                let id = Id::U64(*next);
                *next = next.wrapping_add(1); // the last id may be the largest number
                id
            }
            alone @ Id::Bytes(_) => std::mem::replace(alone, Id::U64(0)),
        };
        Some((id, row))
    }

    /// Keeps the first `count` ids; gives the others. None when there are no more.
    pub(super) fn split_off(&mut self, count: u32) -> Option<Self> {
        let others = self.count.checked_sub(count).filter(|others| 0 < *others)?;
        let Id::U64(first) = self.id else { return None };
        self.count = count;
        let row = Row::new(self.row.get() + count);
        Some(Self {
            id: Id::U64(first + u64::from(count)),
            row,
            source: self.source,
            count: others,
        })
    }
}

impl Entries {
    pub(super) fn of(segment: &Segment) -> Self {
        match segment.dense() {
            Some((next, row, left)) => Self::Dense { next, row: row.get(), left },
            None => Self::Listed(VecDeque::new()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Listed(entries) => entries.is_empty(),
            Self::Dense { left, .. } => *left == 0,
        }
    }

    pub(super) fn first(&self) -> Option<IdRef<'_>> {
        match self {
            Self::Listed(entries) => Some(entries.front()?.0.as_id_ref()),
            Self::Dense { left: 0, .. } => None,
            Self::Dense { next, .. } => Some(IdRef::U64(*next)),
        }
    }

    /// Takes the first id, and those that follow it in a run: at most `most`.
    pub(super) fn pop(&mut self, source: usize, most: u32) -> Option<Located> {
        let (next, row, left) = match self {
            Self::Listed(entries) => {
                let (id, row) = entries.pop_front()?;
                return Some(Located { id, row, source, count: 1 });
            }
            Self::Dense { left: 0, .. } => return None,
            Self::Dense { next, row, left } => (next, row, left),
        };
        let count = most.clamp(1, *left);
        let popped = Located { id: Id::U64(*next), row: Row::new(*row), source, count };
        // The last id may be the largest number.
        *next = next.wrapping_add(u64::from(count));
        *row = row.wrapping_add(count);
        *left -= count;
        Some(popped)
    }
}

impl Source {
    /// Lists the ids of the next id page, if there is one.
    pub(super) async fn fill(&mut self, context: &ReadContext) -> Result<(), Error> {
        let (Entries::Listed(entries), From::Segment(segment, next)) =
            (&mut self.entries, &mut self.from)
        else {
            return Ok(());
        };
        if segment.id_pages() <= *next {
            return Ok(());
        }
        if next.is_multiple_of(ID_PAGES_AT_ONCE) {
            let end = segment.id_pages().min(*next + ID_PAGES_AT_ONCE);
            let pages: Vec<_> = (*next..end).map(|page| (&*segment, page)).collect();
            prefetch_id_pages(context, &pages).await?;
        }
        entries.extend(segment.id_page_entries(context, *next).await?);
        *next += 1;
        Ok(())
    }

    pub(super) fn segment(&self) -> Option<&Arc<Segment>> {
        match &self.from {
            From::Memory(_) => None,
            From::Segment(segment, _) => Some(segment),
        }
    }

    pub(super) fn layout(&self) -> &VectorLayout {
        match &self.from {
            From::Memory(memtable) => memtable.layout(),
            From::Segment(segment, _) => segment.layout(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(next: u64, left: u32) -> Entries {
        Entries::Dense { next, row: 7, left }
    }

    fn ids(mut run: Located) -> Vec<(Id, u32)> {
        std::iter::from_fn(|| run.pop()).map(|(id, row)| (id, row.get())).collect()
    }

    #[test]
    fn a_run_is_taken_up_to_what_another_source_has_and_to_its_end() {
        let mut entries = dense(10, 5);

        let first = entries.pop(3, 2).unwrap();
        let rest = entries.pop(3, u32::MAX).unwrap();

        assert_eq!(ids(first), [(Id::U64(10), 7), (Id::U64(11), 8)]);
        assert_eq!(ids(rest), [(Id::U64(12), 9), (Id::U64(13), 10), (Id::U64(14), 11)]);
        assert!(entries.is_empty() && entries.pop(3, 1).is_none());
    }

    #[test]
    fn the_largest_number_may_end_a_run() {
        let mut entries = dense(u64::MAX - 1, 2);

        let run = entries.pop(0, u32::MAX).unwrap();

        assert_eq!(ids(run), [(Id::U64(u64::MAX - 1), 7), (Id::U64(u64::MAX), 8)]);
        assert!(entries.first().is_none());
    }

    #[test]
    fn a_run_is_split_in_two() {
        let mut run = dense(10, 5).pop(1, u32::MAX).unwrap();
        assert!(run.split_off(5).is_none(), "nothing is left over");

        let rest = run.split_off(2).unwrap();

        assert_eq!((run.last_row().get(), rest.first_row().get()), (8, 9));
        assert_eq!((rest.source, rest.count), (1, 3));
        assert_eq!(ids(run), [(Id::U64(10), 7), (Id::U64(11), 8)]);
        assert_eq!(ids(rest).last(), Some(&(Id::U64(14), 11)));
    }
}
