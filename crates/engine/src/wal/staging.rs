//! Staging: where records gather, in log order, while the frame before them is being written.
//!
//! A writer (holding its database's write lock) reserves space, gets a log sequence number and
//! encodes its record straight into the buffer that will be written. The committer swaps the
//! buffer for an empty one.
//!
//! Guarantees: sequence numbers follow the order of records in the log; a record is accepted only
//! if log space for it is already on disk, so a full disk refuses records and never loses one. The
//! end of the last segment is kept for deletes, which are what gives a full disk its room back; all
//! of it is theirs while the reserve gives way to them (`reserve`).
//! Lock rule: the staging lock is taken inside a database's write lock; inside it only the
//! registry of live memtables is locked. No await, no I/O.

use std::sync::{Arc, Weak};

use nephrite_format::{
    Lsn,
    frame::{FRAME_HEADER_BYTES, frame_bytes},
};

use super::{
    buffer::{LogBuffer, STANDARD_BYTES},
    group::CommitGroup,
    visibility::Visibility,
};
use crate::{error::Error, memtable::Memtable};

/// Payload beyond which the committer takes a frame without being asked to.
pub(crate) const WRITE_THRESHOLD_BYTES: usize = 256 << 10;
/// Payload from which a frame is large.
const LARGE_BYTES: usize = 128 << 10;
/// Of the frame that is staged and the one that is written (or waits for its turn).
pub(crate) const LOG_BUFFERS_BYTES: u64 = 2 * STANDARD_BYTES as u64;

/// Why a record was not accepted right now.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Wait for the committer to make room and try again.
    NoRoom,
    /// It will not work.
    Failed(Error),
}

/// Which log space a record may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// What is not kept for deletes.
    Common,
    /// All of it.
    Kept,
}

/// Share of a log segment that is kept for deletes while no further one is ready.
const KEPT_SHARE: usize = 4;

/// What the committer takes in one piece.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) buffer: LogBuffer,
    /// Bytes of the buffer that hold header and payload.
    pub(crate) used: usize,
    pub(crate) records: u32,
    pub(crate) first_lsn: Lsn,
    pub(crate) wants_sync: bool,
    pub(crate) group: Arc<CommitGroup>,
    /// Databases whose writers wait for this frame, one entry per waiting record.
    pub(crate) touched: Vec<(Arc<Visibility>, Lsn)>,
    /// Memtables with bulk rows that must be durable before a sync covers their records.
    pub(crate) bulk: Vec<Weak<Memtable>>,
}

impl Frame {
    fn new(buffer: LogBuffer, first_lsn: Lsn) -> Self {
        Self {
            buffer,
            used: FRAME_HEADER_BYTES,
            records: 0,
            first_lsn,
            wants_sync: false,
            group: Arc::default(),
            touched: Vec::new(),
            bulk: Vec::new(),
        }
    }

    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn::new(self.first_lsn.get() + u64::from(self.records) - 1)
    }
}

/// Log space that exists on disk and is not spoken for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogSpace {
    /// Bytes left in the current log segment.
    pub(crate) current: usize,
    /// Empty segments that are ready to be written.
    pub(crate) spares: usize,
    /// Bytes for frames in an empty segment.
    pub(crate) segment: usize,
}

impl LogSpace {
    /// Whether the current segment has as much as is kept for deletes.
    pub(crate) fn has_kept(self) -> bool {
        self.segment / KEPT_SHARE <= self.current
    }

    fn fits(self, frame: usize, claim: Claim) -> bool {
        let kept = match claim {
            Claim::Common => self.segment / KEPT_SHARE,
            Claim::Kept => 0,
        };
        frame <= self.current.saturating_sub(kept) || (0 < self.spares && frame <= self.segment)
    }

    /// Takes space for a frame that fits.
    fn take(&mut self, frame: usize) {
        if self.current < frame {
            self.spares -= 1;
            self.current = self.segment;
        }
        self.current -= frame;
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Staging {
    frame: Frame,
    spare_buffer: Option<LogBuffer>,
    next_lsn: Lsn,
    pub(crate) space: LogSpace,
    /// Why no further log segment can be made (a full disk), while that lasts.
    pub(crate) no_space: Option<Error>,
    /// Why only deletes are taken (the reserve has given way to them), while that lasts.
    pub(crate) deletes_only: Option<Error>,
    /// Set for ever by the first failed write or sync.
    pub(crate) failed: Option<Error>,
    /// Someone waits for the frame to be written, synced or not.
    pub(crate) wants_write: bool,
    /// A writer found no room.
    pub(crate) wants_room: bool,
    /// Someone waits for everything staged so far to be on disk.
    pub(crate) wants_sync: bool,
    pub(crate) closing: bool,
    /// Memtables with bulk rows in records that no sync has covered.
    bulk_unsynced: Vec<Weak<Memtable>>,
    /// The buffers are halves of a huge page.
    has_windows: bool,
}

/// A record's place in the log.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) lsn: Lsn,
    pub(crate) group: Arc<CommitGroup>,
    /// The committer should be woken.
    pub(crate) wake: bool,
    /// The log's task was not woken, since the writer is to lead (see `seat`).
    pub(crate) leads: bool,
}

/// How a record is staged.
pub(crate) struct Record<'a> {
    pub(crate) bytes: usize,
    pub(crate) synced: bool,
    pub(crate) claim: Claim,
    /// The writer waits for the frame: through this its record becomes visible.
    pub(crate) waiting: Option<&'a Arc<Visibility>>,
    /// The rows are in the segment file of this memtable, not in the record.
    pub(crate) bulk: Option<&'a Arc<Memtable>>,
    /// Its writer goes on with `Seat::lead` at once, without a wait in between.
    pub(crate) leads: bool,
}

impl Staging {
    pub(crate) fn new(next_lsn: Lsn) -> Result<Self, Error> {
        Ok(Self {
            frame: Frame::new(LogBuffer::new(STANDARD_BYTES)?, next_lsn),
            spare_buffer: None,
            next_lsn,
            space: LogSpace::default(),
            no_space: None,
            deletes_only: None,
            failed: None,
            wants_write: false,
            wants_room: false,
            wants_sync: false,
            closing: false,
            bulk_unsynced: Vec::new(),
            has_windows: false,
        })
    }

    pub(crate) fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frame.records == 0
    }

    pub(crate) fn wants_commit(&self) -> bool {
        let enough = WRITE_THRESHOLD_BYTES <= self.frame.used;
        let wanted = self.frame.wants_sync || self.wants_sync || self.wants_write || self.closing;
        !self.is_empty() && (wanted || enough)
    }

    /// Whether a record of this size would be accepted now.
    pub(crate) fn has_room(&mut self, bytes: usize, claim: Claim) -> Result<(), Refusal> {
        if let Some(error) = &self.failed {
            return Err(Refusal::Failed(error.clone()));
        }
        if self.closing {
            return Err(Refusal::Failed(Error::Closed));
        }
        if let Some(error) = self.deletes_only.as_ref().filter(|_| claim == Claim::Common) {
            return Err(Refusal::Failed(error.clone()));
        }
        let used = self.frame.used + bytes;
        let fits_buffer = used <= self.frame.buffer.len() || self.is_empty();
        if fits_buffer && self.space.fits(frame_bytes(used - FRAME_HEADER_BYTES), claim) {
            return Ok(());
        }
        let full = !self.space.fits(frame_bytes(bytes), claim) && self.is_empty();
        self.wants_write = true;
        self.wants_room = true;
        // A refusal for want of disk space is told once; then the committer tries again.
        match self.no_space.take_if(|_| full) {
            Some(error) => Err(Refusal::Failed(error)),
            None => Err(Refusal::NoRoom),
        }
    }

    /// Gives the record the next sequence number and lets `encode` write it into the frame.
    pub(crate) fn stage(
        &mut self,
        record: &Record<'_>,
        encode: impl FnOnce(&mut [u8]),
    ) -> Result<Staged, Refusal> {
        self.has_room(record.bytes, record.claim)?;
        let end = self.frame.used + record.bytes;
        if self.frame.buffer.len() < end {
            let bytes = frame_bytes(end - FRAME_HEADER_BYTES);
            self.frame.buffer = LogBuffer::new(bytes).map_err(Refusal::Failed)?;
        }
        encode(&mut self.frame.buffer[self.frame.used..end]);
        let crossed = self.frame.used < WRITE_THRESHOLD_BYTES && WRITE_THRESHOLD_BYTES <= end;
        let first = self.is_empty();
        let lsn = self.next_lsn;
        self.next_lsn = Lsn::new(lsn.get() + 1);
        self.frame.used = end;
        self.frame.records += 1;
        let sync_asked = record.synced && !self.frame.wants_sync;
        self.frame.wants_sync |= record.synced;
        if let Some(visibility) = record.waiting {
            self.frame.touched.push((Arc::clone(visibility), lsn));
        }
        if let Some(memtable) = record.bulk {
            let memtable = Arc::downgrade(memtable);
            if !self.bulk_unsynced.iter().any(|known| known.ptr_eq(&memtable)) {
                self.bulk_unsynced.push(memtable.clone());
            }
            if !self.frame.bulk.last().is_some_and(|last| last.ptr_eq(&memtable)) {
                self.frame.bulk.push(memtable);
            }
        }
        let write_asked = record.waiting.is_some() && !self.wants_write;
        self.wants_write |= record.waiting.is_some();
        Ok(Staged {
            lsn,
            group: Arc::clone(&self.frame.group),
            wake: first || crossed || sync_asked || write_asked,
            leads: record.leads,
        })
    }

    /// Memtables whose bulk rows a sync would have to make durable; empty in most cases.
    pub(crate) fn bulk_unsynced(&self) -> Vec<Arc<Memtable>> {
        self.bulk_unsynced.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes the staged frame, with the log space it needs; `None` when nothing is staged.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        let needed = frame_bytes(self.frame.used - FRAME_HEADER_BYTES);
        self.space.take(needed);
        self.frame.wants_sync |= self.wants_sync;
        if self.frame.wants_sync {
            self.bulk_unsynced.clear(); // the committer sees to them
        }
        self.wants_write = false;
        let empty = self.next_buffer();
        Some(std::mem::replace(&mut self.frame, Frame::new(empty, self.next_lsn)))
    }

    /// The same if the staged frame is that of this group.
    pub(crate) fn take_of(&mut self, group: &Arc<CommitGroup>) -> Option<Frame> {
        if !Arc::ptr_eq(&self.frame.group, group) {
            return None;
        }
        self.take()
    }

    /// A buffer for the frame that follows the staged one.
    fn next_buffer(&mut self) -> LogBuffer {
        if LARGE_BYTES <= self.frame.used
            && !self.has_windows
            && let Some((first, second)) = LogBuffer::pair()
        {
            self.has_windows = true;
            self.spare_buffer = Some(second);
            return first;
        }
        // Without memory for a whole buffer the next record allocates what it needs, or fails.
        let empty = self.spare_buffer.take().or_else(|| LogBuffer::new(STANDARD_BYTES).ok());
        let empty = empty.or_else(|| LogBuffer::new(0).ok());
        empty.expect("a buffer of no bytes needs no memory")
    }

    /// Gives a written frame's buffer back for reuse.
    pub(crate) fn recycle(&mut self, buffer: LogBuffer) {
        // The first large frame leaves a buffer behind that the two windows replace.
        if buffer.is_standard() && (buffer.is_window() || !self.has_windows) {
            self.spare_buffer = Some(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> Record<'static> {
        Record { bytes, synced: false, claim: Claim::Kept, waiting: None, bulk: None, leads: false }
    }

    fn staging(current: usize, spares: usize) -> Staging {
        let mut staging = Staging::new(Lsn::new(1)).unwrap();
        staging.space = LogSpace { current, spares, segment: 64 << 10 };
        staging
    }

    #[test]
    fn records_get_consecutive_numbers_across_frames() {
        let mut staging = staging(64 << 10, 1);
        for expected in 1..=3 {
            let staged = staging.stage(&record(100), |bytes| bytes.fill(1)).unwrap();
            assert_eq!(staged.lsn, Lsn::new(expected));
        }
        let frame = staging.take().unwrap();
        assert_eq!(
            (frame.records, frame.first_lsn, frame.last_lsn()),
            (3, Lsn::new(1), Lsn::new(3))
        );
        assert!(staging.take().is_none());
        assert_eq!(staging.stage(&record(100), |_| ()).unwrap().lsn, Lsn::new(4));
    }

    #[test]
    fn no_record_is_taken_without_log_space_that_exists() {
        let mut staging = staging(4096, 0);
        assert!(matches!(staging.has_room(5000, Claim::Kept), Err(Refusal::NoRoom)));
        staging.stage(&record(1000), |_| ()).unwrap();
        // Together they would need a second block, which the log does not have.
        assert!(matches!(staging.stage(&record(3500), |_| ()), Err(Refusal::NoRoom)));
        assert!(staging.wants_commit(), "the committer is told to make room");
        staging.take().unwrap();
        assert_eq!(staging.space.current, 0);
        assert!(matches!(staging.stage(&record(10), |_| ()), Err(Refusal::NoRoom)));
        staging.space.spares = 1;
        staging.stage(&record(10), |_| ()).unwrap();
        staging.take().unwrap();
        assert_eq!((staging.space.spares, staging.space.current), (0, (64 << 10) - 4096));
    }

    #[test]
    fn a_full_disk_is_told_once_and_then_tried_again() {
        let mut staging = staging(0, 0);
        staging.no_space = Some(Error::Closed);
        assert!(matches!(staging.has_room(10, Claim::Kept), Err(Refusal::Failed(Error::Closed))));
        assert!(matches!(staging.has_room(10, Claim::Kept), Err(Refusal::NoRoom)));
    }

    #[test]
    fn a_record_larger_than_the_buffer_gets_a_frame_of_its_own() {
        let mut staging = staging(8 << 20, 0);
        staging.stage(&record(10), |_| ()).unwrap();
        assert!(matches!(staging.stage(&record(2 << 20), |_| ()), Err(Refusal::NoRoom)));
        staging.take().unwrap();
        staging.stage(&record(2 << 20), |bytes| bytes.fill(7)).unwrap();
        let frame = staging.take().unwrap();
        assert_eq!(frame.used, FRAME_HEADER_BYTES + (2 << 20));
        assert!(frame.buffer[FRAME_HEADER_BYTES..frame.used].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn from_the_first_large_frame_on_two_windows_go_round() {
        let mut staging = staging(8 << 20, 0);
        let mut made_of_windows = Vec::new();
        for bytes in [10, LARGE_BYTES, 10, LARGE_BYTES, 2 << 20, 10] {
            staging.stage(&record(bytes), |bytes| bytes.fill(7)).unwrap();
            let Frame { buffer, used, .. } = staging.take().unwrap();
            assert!(buffer[FRAME_HEADER_BYTES..used].iter().all(|byte| *byte == 7));
            made_of_windows.push(buffer.is_window());
            let lent = buffer.lend(frame_bytes(used - FRAME_HEADER_BYTES));
            staging.recycle(LogBuffer::returned(lent).unwrap());
            assert!(staging.frame.buffer.is_standard());
        }
        // The one of two megabytes has a buffer of its own.
        assert_eq!(made_of_windows, [false, false, true, true, false, true]);
    }

    #[test]
    fn vectors_are_refused_while_log_is_kept_for_deletes() {
        let mut staging = staging(64 << 10, 1);
        staging.deletes_only = Some(Error::Closed);
        let refused = staging.has_room(10, Claim::Common);
        assert!(matches!(refused, Err(Refusal::Failed(Error::Closed))));
        staging.stage(&record(3000), |_| ()).unwrap();
        staging.deletes_only = None;
        assert!(staging.has_room(10, Claim::Common).is_ok());
    }

    #[test]
    fn the_end_of_the_last_segment_is_kept_for_deletes() {
        let mut staging = staging(20 << 10, 0);
        let common = || Record { claim: Claim::Common, ..record(3000) };
        staging.stage(&common(), |_| ()).unwrap();
        staging.take().unwrap();
        assert_eq!(staging.space.current, 16 << 10, "a quarter of a segment is left");
        assert!(matches!(staging.stage(&common(), |_| ()), Err(Refusal::NoRoom)));
        staging.stage(&record(3000), |_| ()).unwrap();
        staging.take().unwrap();
        staging.space.spares = 1;
        staging.stage(&common(), |_| ()).unwrap();
        staging.take().unwrap();
        assert_eq!((staging.space.spares, staging.space.current), (1, 8 << 10));
    }
}
