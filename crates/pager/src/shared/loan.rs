//! The loan of a cache, as its owner gives and takes it (`extents/loan.rs` has the books).
//!
//! Guarantee: neither call waits for anything but the lock of the frame books, which a recall takes
//! anew for each step of 2 MiB; memory that a recall counts as taken back has gone to the system.
//! A recall first takes steps in which nothing is pinned or loading. Only if they do not suffice
//! others leave, no more of them than would cover what is asked: what is at rest there is evicted
//! at once, the rest when a later recall finds it at rest.
//! Tested in `pager/tests/loan.rs`.

use std::sync::atomic::Ordering::Relaxed;

use super::{Books, News, Shared};
use crate::extents::{Evicted, Place};
use crate::retention::Ground;
use crate::sync::lock;

/// Which steps a recall looks at.
#[derive(Clone, Copy)]
enum Look {
    /// Those that are leaving.
    Leaving,
    /// Those in which nothing is in use.
    AtRest,
    Any,
}

impl Shared {
    /// Makes so much of the loan part of the cache, unless it has more.
    pub(crate) fn lend(&self, bytes: usize) {
        let mut books = lock(&self.books);
        let Books { extents, retention, .. } = &mut *books;
        if bytes < extents.loan_bytes() {
            return; // what leaves shall go on leaving
        }
        if let Some(retention) = retention {
            retention.stay(&self.slots);
        }
        extents.take_loan(bytes);
        self.note_loan(&books);
        drop(books);
        self.announce();
    }

    /// Takes back `bytes` of the loan, or as much as can be had at once; returns how much.
    pub(crate) fn recall(&self, bytes: usize) -> usize {
        let (mut news, mut gained) = (self.news(), 0);
        for look in [Look::Leaving, Look::AtRest, Look::Any] {
            let mut before = usize::MAX;
            while gained < bytes {
                let wanted = bytes - gained;
                let Some((step, freed)) = self.end_step_below(before, look, wanted, &mut news)
                else {
                    break;
                };
                before = step;
                gained += freed;
            }
        }
        gained
    }

    /// Takes what can be had of the last such step below `before`: which it is, and the bytes that
    /// went back to the system. `None` as well when those that are leaving cover it.
    fn end_step_below(
        &self,
        before: usize,
        look: Look,
        wanted: usize,
        news: &mut News<'_>,
    ) -> Option<(usize, usize)> {
        let mut books = lock(&self.books);
        let Books { extents, retention, named, .. } = &mut *books;
        let place = match look {
            Look::Leaving => Place::Leaving,
            Look::Any if wanted <= extents.leaving_bytes() => return None,
            Look::AtRest | Look::Any => Place::Here,
        };
        let step = extents.last_step(place, before)?;
        let slots = extents.has_slots(step).then(|| extents.step(step));
        let mut retention = retention.as_mut();
        if matches!(look, Look::AtRest) {
            let slots_rest = match (&retention, &slots) {
                (Some(retention), Some(gone)) => retention.is_at_rest(&self.slots, gone),
                _ => true,
            };
            if !slots_rest || !extents.is_at_rest(step, &self.frames) {
                return Some((step, 0));
            }
        }
        let mut evicted = Evicted::default();
        if let Some(retention) = &mut retention {
            evicted.named = Some(std::mem::take(named));
            if let Some(gone) = slots {
                retention.leave(&self.slots, extents, &gone);
            }
        }
        extents.leave(step, &self.frames, &mut evicted);
        if let Some(retention) = retention {
            let memory = Some(&self.memory);
            let ground = Ground { frames: &self.frames, slots: &self.slots, memory };
            retention.keep_all(ground, &mut evicted);
            *named = evicted.named.take().unwrap_or_default();
        }
        self.budget.give(evicted.charged_units);
        let mut freed = 0;
        if extents.is_empty(step) {
            let bytes = extents.step_bytes(step);
            let length = bytes.len();
            // SAFETY: every extent of the step is away, so none of its frames and slots is in use,
            // and none is given away before `lend` takes the lock that is held here. Who asks for a
            // loan promises not to register the arena.
            if unsafe { self.memory.give_back(bytes) } {
                extents.end_step(step);
                freed = length;
            }
        }
        self.note_loan(&books);
        drop(books);
        news.due |= evicted.charged_units != 0;
        self.counters.evictions.fetch_add(evicted.pages, Relaxed);
        Some((step, freed))
    }

    fn note_loan(&self, books: &Books) {
        let bytes = books.extents.loan_bytes() as u64;
        self.counters.loan_bytes.store(bytes, Relaxed); // a gauge
    }
}
