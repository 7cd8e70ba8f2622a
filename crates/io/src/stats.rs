//! Counters of a disk, and the picture of them that callers get.
//!
//! Guarantee: `submitted = delivered + orphaned` whenever no request is queued or in flight. Every
//! counter is raised before the request's completion is called, so who awaits sees it counted.
//! Ordering: Relaxed throughout; the numbers order nothing, and the hand-over of a completion is
//! what makes them visible to its taker (loom model `ticket`).

use crate::sync::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a disk has done since it was opened. All numbers only grow, except as noted.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct IoStats {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl IoStats {
            /// Every counter under its name, with `io_` before it, in the order of the fields.
            pub fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((concat!("io_", stringify!($name)), self.$name)),+].into_iter()
            }
        }

        /// The live counters behind [`IoStats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Counters {
            pub(crate) fn picture(&self) -> IoStats {
                IoStats { $($name: self.$name.value(),)+ }
            }
        }
    };
}

counters! {
    /// Requests taken in, whatever became of them.
    submitted,
    /// Requests whose outcome somebody took. For an instant it also counts one that is then found
    /// to be orphaned.
    delivered,
    /// Requests whose outcome nobody was left to take: their future had been dropped.
    orphaned,
    /// Reads that succeeded.
    reads,
    /// Writes that succeeded, durable ones among them.
    writes,
    /// Syncs that succeeded, also those that were the second half of a durable write.
    syncs,
    /// Of the writes, those that were durable at their end (`Operation::WriteSynced`).
    synced_writes,
    /// Of the durable writes, those that were one write of the device (`RWF_DSYNC`), without a
    /// sync after it.
    synced_writes_through,
    /// Bytes that successful reads delivered.
    bytes_read,
    /// Bytes that successful writes stored.
    bytes_written,
    /// Times the kernel transferred less than it was asked for and the rest was asked for again.
    short_counts,
    /// Operations issued again after EINTR, EAGAIN or a stray ECANCELED.
    retries,
    /// Requests that failed.
    errors,
    /// Calls of `io_uring_enter`.
    ring_enters,
    /// Times a submitter had to wake a ring thread.
    ring_wakes,
    /// Times the kernel reported that completions did not fit the ring. Always 0 by design.
    ring_overflows,
    /// Completions that belonged to no operation in flight. Always 0 by design.
    ring_strays,
    /// Requests that the submitting thread carried out itself: see [`crate::drive`].
    caller_driven,
    /// Times a thread could have no ring of its own in [`crate::drive`] and parked.
    caller_parks,
    /// Requests that ran on the positional threads although a ring was chosen.
    fallbacks,
    /// Pieces of transfers that named a registered buffer: see
    /// [`crate::DiskOptions::registered_buffers`].
    registered_transfers,
    /// Times a ring could not register an arena that it was offered.
    registrations_refused,
    /// Times a submitter waited because the queue was full.
    submit_waits,
    /// Sealed files that were mapped.
    maps,
    /// Mappings in place now; goes down too.
    maps_open,
    /// Sealed files that could not be mapped and are read positionally.
    maps_refused,
    /// Pieces of reads that were copied from a mapping.
    map_reads,
    /// Pieces of reads of a mapped file that went to the file: beyond the mapping, or its pages
    /// could not be had.
    map_fallbacks,
    /// Operations that the kernel had not given back when a drain timed out or a ring was lost.
    /// Their memory is leaked on purpose.
    leaked,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
