//! Memory that passes between cache and memtables: who has how much of it now.
//!
//! ```text
//! memory limit | cache: half | memtables, and what their share pays for: half |
//!                            | loan to the cache, three quarters of it at most |
//! ```
//!
//! The loan belongs to the memtables' half. The cache has it while they have no use for it: from
//! the opening of the store on, once it has recovered, and again when a flush or a compaction has
//! ended, as far as memtables are empty. Who writes takes it back first, some at a time, as the
//! memtables grow; compactions and the flush task take back what else the share pays for.
//!
//! Guarantee: what memtables may hold, what is charged to them and the cache stay within the limit
//! as far as they did without a loan, but for what others hold of it in pages that are pinned or
//! loading, and for what is charged until the next look (a write, a piece of a compaction, a tick
//! of the flush task): memory counts as the cache's until it has gone back to the system. Nobody
//! waits for memory of the loan: what is in use is asked for again later, and writers have the
//! rest meanwhile.
//! Does not: lend where the disk has registered the cache with the kernel, where memory cannot be
//! given back, nor below limits of 32.5 MiB.
//! Ordering: gauges, but for one pair. A writer tells what it is about to write and then looks at
//! the loan; who lends does so and then looks at what is about to be written. The fences between
//! make one of the two see the other.
//! Tested below and in `tests/it/loan.rs`.

use std::sync::{
    Mutex, MutexGuard, TryLockError,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

use crate::{core::Core, planted::planted, wal::LOG_BUFFERS_BYTES};

/// After a recall that gained nothing the next one comes when this part of a memtable was written.
const PATIENCE_SHARE: u64 = 8;

/// What the memtables' side knows of the loan.
#[derive(Debug, Default)]
pub(crate) struct Lending {
    /// Held while memory changes hands.
    turn: Mutex<()>,
    /// The store has recovered.
    begun: AtomicBool,
    /// Bytes of changes that are about to be written.
    promised: AtomicU64,
    /// Bytes promised and moved so far, and how many there are when a recall is of use again.
    written: AtomicU64,
    next_recall: AtomicU64,
}

/// Bytes of a change that is about to be written, until it is dropped.
#[derive(Debug)]
pub(crate) struct Promise<'a> {
    lending: &'a Lending,
    bytes: u64,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.lending.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Lending {
    /// A change of so many bytes is about to be written.
    pub(crate) fn promise(&self, bytes: u64) -> Promise<'_> {
        self.promised.fetch_add(bytes, Ordering::Relaxed);
        self.written.fetch_add(bytes, Ordering::Relaxed);
        fence(Ordering::SeqCst); // see the module documentation
        Promise { lending: self, bytes }
    }

    /// None while somebody else is at it.
    fn try_turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether a recall may gain more than the last one.
    fn is_due(&self) -> bool {
        self.next_recall.load(Ordering::Relaxed) <= self.written.load(Ordering::Relaxed)
    }

    /// A recall gained nothing: the next one comes after so many bytes.
    fn put_off(&self, bytes: u64) {
        let next = self.written.load(Ordering::Relaxed).saturating_add(bytes);
        self.next_recall.store(next, Ordering::Relaxed);
    }
}

impl Core {
    /// Bytes that the memtables may hold before writers wait: what is left to them of their share.
    /// Half of it is theirs in any case, for the sake of small limits.
    pub(crate) fn memtable_room(&self) -> u64 {
        let share = self.memtable_share();
        share.saturating_sub(self.charged()).max(share / 2).max(self.config.memtable_limit())
    }

    /// The memtables' share of the memory limit, but for what the cache has of it.
    pub(crate) fn memtable_share(&self) -> u64 {
        self.config.memtables_total_limit().saturating_sub(self.read.pager.loan_bytes())
    }

    /// What others take of the memtables' share: the cache's page tables, fences, filters, the
    /// databases, the log's buffers, chunks that wait for a memtable, and running flushes and
    /// compactions. Room for some work is always kept free, because work begins when the memtables
    /// are full.
    fn charged(&self) -> u64 {
        let work = self.read.work.bytes().max(self.config.work_reserve());
        let tables = self.read.pager.table_bytes();
        let databases = self.databases_bytes.load(Ordering::Relaxed); // a gauge
        let pooled = self.memory.pooled_bytes();
        tables + self.read.metadata.bytes() + LOG_BUFFERS_BYTES + work + databases + pooled
    }

    /// What the memtables' share should be now: flushes begin before half of their room is full,
    /// and a memtable has room whatever happens.
    fn share_wanted(&self) -> u64 {
        let promised = self.lending.promised.load(Ordering::Relaxed);
        let memtables = self.memory.bytes().saturating_add(promised);
        let charged = self.charged() + self.config.memtable_limit();
        memtables.saturating_mul(2).saturating_add(charged)
    }

    /// What of the loan the memtables are about to need.
    fn missing(&self) -> u64 {
        let loan = self.read.pager.loan_bytes();
        if loan == 0 {
            return 0;
        }
        self.share_wanted().saturating_sub(self.memtable_share()).min(loan)
    }

    /// Takes back from the cache what the memtables are about to need. Where somebody else is at
    /// it, what that one leaves missing is asked for at the next look.
    pub(crate) fn take_loan_back(&self) {
        while self.missing() != 0 && self.lending.is_due() && !planted("loan_kept") {
            let Some(turn) = self.lending.try_turn() else { return };
            let missing = self.missing(); // another one may have been faster
            if missing == 0 {
                return;
            }
            let limit = self.config.memtable_limit();
            let bytes = usize::try_from(missing.max(limit)).unwrap_or(usize::MAX);
            let gained = self.read.pager.recall(bytes);
            if gained == 0 {
                self.lending.put_off(limit / PATIENCE_SHARE);
                return;
            }
            drop(turn);
            self.memory.freed.notify(usize::MAX); // there is more room
        }
    }

    /// So many bytes were moved: takes back what that needs.
    pub(crate) fn take_loan_back_after(&self, bytes: u64) {
        self.lending.written.fetch_add(bytes, Ordering::Relaxed);
        self.take_loan_back();
    }

    /// A while has passed: takes back what could not be had the last time as well.
    pub(crate) fn take_loan_back_late(&self) {
        self.lending.next_recall.store(0, Ordering::Relaxed);
        self.take_loan_back();
    }

    /// The store has recovered: lends from now on.
    pub(crate) fn begin_lending(&self) {
        self.lending.begun.store(true, Ordering::Release);
        self.lend();
    }

    /// Lends the cache what the memtables have no use for; or takes back what they need by now.
    pub(crate) fn lend(&self) {
        if !self.lending.begun.load(Ordering::Acquire) {
            return; // each replayed record would have to take it back
        }
        if let Some(turn) = self.lending.try_turn()
            && !self.compactions.works()
        {
            let spare = self.config.memtables_total_limit().saturating_sub(self.share_wanted());
            self.read.pager.lend(usize::try_from(spare).unwrap_or(usize::MAX));
            drop(turn);
        }
        fence(Ordering::SeqCst); // see the module documentation
        self.take_loan_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recall_in_vain_is_repeated_after_some_bytes_only() {
        let lending = Lending::default();
        assert!(lending.is_due());

        lending.put_off(100);
        lending.written.fetch_add(99, Ordering::Relaxed);
        assert!(!lending.is_due());
        lending.written.fetch_add(1, Ordering::Relaxed);
        assert!(lending.is_due());
    }

    #[test]
    fn a_promise_counts_until_it_is_dropped() {
        let lending = Lending::default();
        let first = lending.promise(100);
        drop(lending.promise(10));
        assert_eq!(lending.promised.load(Ordering::Relaxed), 100);
        drop(first);
        assert_eq!(lending.promised.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn memory_changes_hands_in_one_place_at_a_time() {
        let lending = Lending::default();
        let turn = lending.try_turn();
        assert!(turn.is_some() && lending.try_turn().is_none());
        drop(turn);
        assert!(lending.try_turn().is_some());
    }
}
