//! The frames that scans loaded into one size class, oldest first: scan bypass.
//!
//! A scan that misses takes the oldest frame that a scan filled, if no point look-up used its page
//! since. So a scan of everything goes round in a sixteenth of the class, and what is hot stays,
//! whatever the policy. While parts of the arena are unassigned a scan takes those first.
//!
//! Entries name a load by its version; one whose frame was reused, pinned or used is the policy's
//! business and dropped here. Memory: 8 bytes for each of at most 256 frames.
//! All under the lock of the frame books. Tested in `extents/tests.rs` and by
//! `a_scan_of_everything_keeps_what_points_use` in `pager/limits.rs`.

use std::collections::VecDeque;

use crate::frame::FrameNo;
use crate::frame_state::Word;
use crate::policy::Ring;

/// The part of a class that scans may fill before they reuse their own frames.
const SCAN_SHARE: usize = 16;
/// The most frames that scans go round in: several submissions of read-ahead.
const SCAN_FRAMES_MAX: usize = 256;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct ScanQueue(VecDeque<(FrameNo, u8)>);

impl ScanQueue {
    /// A scan is about to load a page into this frame.
    pub(crate) fn inserted(&mut self, number: FrameNo, ring: &impl Ring) {
        if let Some(frame) = ring.frame_of(number) {
            self.0.push_back((number, frame.state.peek().next_version()));
        }
    }

    /// Claims the oldest frame that only a scan wanted, once scans have their share of the class.
    pub(crate) fn reuse(&mut self, ring: &impl Ring) -> Option<(FrameNo, Word)> {
        let share = (ring.positions() / SCAN_SHARE).clamp(1, SCAN_FRAMES_MAX);
        while share <= self.0.len() {
            let (number, version) = self.0.pop_front()?;
            let Some(frame) = ring.frame_of(number) else { continue };
            let word = frame.state.peek();
            if word.version() != version || word.uses() != 0 || ring.is_leaving(number) {
                continue;
            }
            if let Some(before) = frame.state.claim() {
                return Some((number, before));
            }
        }
        None
    }

    /// The memory of the queue, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(FrameNo, u8)>()
    }
}
