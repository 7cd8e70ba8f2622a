//! What readers of a database may see: everything up to one log sequence number.
//!
//! A write becomes visible when it is acknowledged, and writes of one database are acknowledged in
//! log order. While a synced write waits for the disk, later buffered writes of the same database
//! wait with it (they do not ask for a sync of their own).
//!
//! Ordering: `visible` is stored with Release after the index entries it covers exist, and loaded
//! with Acquire by readers. `pending` changes under the database's write lock when it grows; the
//! committer lowers it after it raised `visible`, so a writer that reads zero (Acquire) also sees
//! every earlier record acknowledged.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use event_listener::Event;
use nephrite_format::Lsn;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Visibility {
    visible: AtomicU64,
    pending: AtomicU32,
    changed: Event,
}

impl Visibility {
    pub(crate) fn new(visible: Lsn) -> Self {
        Self { visible: AtomicU64::new(visible.get()), ..Self::default() }
    }

    /// The newest sequence number readers may see.
    #[inline]
    pub(crate) fn visible(&self) -> Lsn {
        Lsn::new(self.visible.load(Ordering::Acquire))
    }

    /// Whether earlier writes of this database still wait for the log.
    pub(crate) fn has_pending(&self) -> bool {
        0 < self.pending.load(Ordering::Acquire)
    }

    /// A writer is about to stage a record that it will wait for. Under the write lock.
    pub(crate) fn add_pending(&self) {
        // Relaxed: the staging lock, taken next, orders it for the committer.
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// The record was not staged after all. Under the write lock.
    pub(crate) fn forget_pending(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed); // nobody else knew of it
    }

    /// A buffered record with nothing pending before it: visible at once. Under the write lock.
    pub(crate) fn publish(&self, lsn: Lsn) {
        self.visible.fetch_max(lsn.get(), Ordering::Release);
    }

    /// The committer wrote (and synced, where asked) the record.
    pub(crate) fn acknowledge(&self, lsn: Lsn) {
        self.visible.fetch_max(lsn.get(), Ordering::Release);
        self.pending.fetch_sub(1, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    /// The committer failed: the record stays invisible for ever.
    pub(crate) fn reject(&self) {
        self.changed.notify(usize::MAX);
    }

    /// Waits until everything up to `lsn` is acknowledged or `failed` gives an error. Cancel safe.
    pub(crate) async fn reached<E>(
        &self,
        lsn: Lsn,
        failed: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let listener = self.changed.listen();
            if lsn <= self.visible() {
                return Ok(());
            }
            failed()?;
            listener.await;
        }
    }
}
