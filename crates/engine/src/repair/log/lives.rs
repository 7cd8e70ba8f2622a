//! Frames of the log that were written twice, in two lives of the store.

use std::cmp::Reverse;

use super::LogFrame;

/// Sorts by number. Of frames with the same numbers only that of the latest life stays: recovery
/// gave the earlier ones up, since a crash had cut the log before them, and counted on from there.
pub(super) fn keep_latest(frames: &mut Vec<LogFrame>) {
    frames.sort_by_key(|frame| (frame.first_lsn, frame.sequence, Reverse(frame.generation)));
    frames.dedup_by_key(|frame| (frame.first_lsn, frame.sequence));
}

#[cfg(test)]
mod tests {
    use nephrite_format::Generation;

    use super::*;

    fn frame(sequence: u64, first_lsn: u64, generation: u64) -> LogFrame {
        let generation = Generation::new(generation);
        LogFrame { file: 0, offset: 4096, first_lsn, records: 2, sequence, generation }
    }

    /// A frame that recovery had given up hid the one that was acknowledged in its place.
    #[test]
    fn of_frames_with_the_same_numbers_the_latest_life_counts() {
        let mut frames = vec![frame(5, 9, 1), frame(6, 11, 3), frame(5, 9, 3), frame(4, 7, 1)];
        keep_latest(&mut frames);
        let kept: Vec<(u64, u64)> =
            frames.iter().map(|frame| (frame.sequence, frame.generation.get())).collect();
        assert_eq!(kept, [(4, 1), (5, 3), (6, 3)]);
    }
}
