//! Traffic: how much flushes and compactions may have in flight while readers wait for the disk.
//!
//! A device serves what it was given in about the order in which it came, so a read waits behind
//! the writes before it: behind 8 MiB, several milliseconds on a device of 2 GB/s. So the *window*,
//! the bytes that background writes may have in flight, follows the readers. A frame of the log
//! that somebody waits for to be synced counts like a page that is being loaded:
//!
//! | readers | memtables | window |
//! |---|---|---|
//! | loaded no page during the last [`CALM_PIECES`] pieces | any | all that the caller wants |
//! | load pages | below half full | [`PIECE_BYTES`] |
//! | load pages | half full to full | twice to eight times that |
//! | have [`DEEP_LOADS`] and more loads in flight | any | half of that, at least a piece |
//!
//! Guarantees: the window is never empty, so whoever writes gets on; a piece is never split
//! further. Nothing here waits: the sink of a segment does (`sink`), and counts when it does so for
//! readers. Ordering: all numbers are hints, so every access is Relaxed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Bytes of one transfer of a flush or compaction: large enough for most of the bandwidth.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Pieces without a page load after which readers count as gone.
const CALM_PIECES: u64 = 16;
/// Loads in flight from which readers are in need of the whole device.
const DEEP_LOADS: u64 = 16;

/// Who waits for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Nobody: it gives way to readers.
    Background,
    /// Somebody waits for its sync.
    Awaited,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Page loads in flight.
    loading: AtomicU64,
    /// Page loads begun so far, and how many of them the last piece saw.
    begun: AtomicU64,
    seen: AtomicU64,
    /// Pieces for which readers still count as there.
    warm: AtomicU64,
    /// Bytes of the memtables, and what they may come to.
    memtable_bytes: Arc<AtomicU64>,
    memtable_room: AtomicU64,
    /// Pieces that waited for a window that readers had made small.
    pub(crate) paced: AtomicU64,
}

/// A page load, or a synced frame of the log, in flight.
#[derive(Debug)]
pub(crate) struct Loading(Arc<Traffic>);

impl Drop for Loading {
    fn drop(&mut self) {
        self.0.loading.fetch_sub(1, Relaxed);
    }
}

impl Traffic {
    /// A page is being loaded, or a frame of the log synced, until the answer is dropped.
    pub(crate) fn load(self: &Arc<Self>) -> Loading {
        self.loading.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        Loading(Arc::clone(self))
    }

    /// Where the bytes of the memtables are counted.
    pub(crate) fn memtable_bytes(&self) -> &Arc<AtomicU64> {
        &self.memtable_bytes
    }

    /// What the memtables may come to before writers wait.
    pub(crate) fn note_room(&self, room: u64) {
        self.memtable_room.store(room, Relaxed);
    }

    /// How full the memtables are, in eighths.
    fn fill(&self) -> u64 {
        let room = self.memtable_room.load(Relaxed);
        self.memtable_bytes.load(Relaxed).saturating_mul(8) / room.max(1)
    }

    /// Called for every piece: bytes that may be in flight, of the `most` that the caller wants.
    pub(crate) fn window(&self, most: u64) -> u64 {
        let begun = self.begun.load(Relaxed);
        let loading = self.loading.load(Relaxed);
        if self.seen.swap(begun, Relaxed) != begun || 0 < loading {
            self.warm.store(CALM_PIECES, Relaxed);
        } else {
            let cooler = self.warm.load(Relaxed).saturating_sub(1);
            self.warm.store(cooler, Relaxed);
            if cooler == 0 {
                return most;
            }
        }
        let pieces = match self.fill() {
            0..4 => 1,
            4..6 => 2,
            6..8 => 4,
            _ => 8,
        };
        let pieces = if DEEP_LOADS <= loading { (pieces / 2).max(1) } else { pieces };
        (pieces * PIECE_BYTES as u64).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 8 << 20;
    const PIECE: u64 = PIECE_BYTES as u64;

    fn full_to(percent: u64) -> Arc<Traffic> {
        let traffic = Arc::new(Traffic::default());
        fill(&traffic, percent);
        traffic
    }

    fn fill(traffic: &Traffic, percent: u64) {
        traffic.memtable_bytes().store(percent, Relaxed);
        traffic.note_room(100);
    }

    #[test]
    fn without_readers_the_window_is_open() {
        let traffic = full_to(0);
        assert_eq!(traffic.window(MOST), MOST);
        fill(&traffic, 1);
        assert_eq!(traffic.window(MOST), MOST);
    }

    #[test]
    fn a_reader_narrows_the_window_until_it_has_been_gone_for_a_while() {
        let traffic = full_to(0);
        let load = traffic.load();
        assert_eq!(traffic.window(MOST), PIECE);
        drop(load);
        let narrow = (0..100).take_while(|_| traffic.window(MOST) == PIECE).count();
        assert_eq!(narrow as u64, CALM_PIECES - 1);
        assert_eq!(traffic.window(MOST), MOST);
        drop(traffic.load());
        assert_eq!(traffic.window(MOST), PIECE, "one that came and went between two pieces");
    }

    #[test]
    fn the_window_opens_as_the_memtables_fill() {
        let traffic = full_to(0);
        let _load = traffic.load();
        let windows = [10, 50, 80, 100, 130].map(|percent| {
            fill(&traffic, percent);
            traffic.window(MOST) / PIECE
        });
        assert_eq!(windows, [1, 2, 4, 8, 8]);
        assert_eq!(traffic.window(PIECE / 2), PIECE / 2, "never more than is wanted");
    }

    #[test]
    fn many_loads_in_flight_halve_the_window_and_never_close_it() {
        let traffic = full_to(0);
        let loads: Vec<_> = (0..DEEP_LOADS).map(|_| traffic.load()).collect();
        assert_eq!(traffic.window(MOST), PIECE);
        fill(&traffic, 100);
        assert_eq!(traffic.window(MOST), 4 * PIECE);
        drop(loads);
        assert_eq!(traffic.window(MOST), 8 * PIECE);
    }
}
