//! Memory that passes between cache and memtables: who has how much of it now.
//!
//! ```text
//! memory limit | cache: half | memtables, and what their share pays for: half |
//!                            | loan to the cache, three quarters of it at most |
//! ```
//!
//! The loan belongs to the memtables' half. The cache has it while they have no use for it: from
//! the opening of the store on, and again when a flush or a compaction has ended and little was
//! written meanwhile. Who writes takes it back first, some at a time, as the memtables grow.
//!
//! Guarantee: what memtables may hold, what is charged to them and the cache stay within the limit
//! at every moment, as far as they did without a loan: memory counts as the cache's until it has
//! gone back to the system. Nobody waits for memory of the loan: what pinned or loading pages keep
//! is asked for again at the next write, and writers have the rest meanwhile.
//! Does not: lend where the disk has registered the cache with the kernel, nor below 34 MiB.
//! Tested in `tests/it/loan.rs`.

use std::sync::atomic::Ordering;

use crate::{core::Core, wal::LOG_BUFFERS_BYTES};

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

    /// What the memtables' share should be now: flushes begin before half of their room is full.
    fn share_wanted(&self) -> u64 {
        self.charged() + 2 * self.memory.bytes() + self.config.memtable_limit() / 2
    }

    /// Takes back from the cache what the memtables are about to need.
    pub(crate) fn take_loan_back(&self) {
        if self.read.pager.loan_bytes() == 0 {
            return;
        }
        let missing = self.share_wanted().saturating_sub(self.memtable_share());
        if missing != 0 {
            let bytes = missing.max(self.config.memtable_limit());
            self.read.pager.recall(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
    }

    /// Lends the cache what the memtables have no use for.
    pub(crate) fn lend(&self) {
        let spare = self.config.memtables_total_limit().saturating_sub(self.share_wanted());
        if !self.compactions.works() {
            self.read.pager.lend(usize::try_from(spare).unwrap_or(usize::MAX));
        }
    }
}
