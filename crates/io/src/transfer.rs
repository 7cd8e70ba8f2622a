//! The life of one transfer between issue and outcome, the same for every backend.
//!
//! A [`Transfer`] knows what is done and what to ask for next. Each result of the operating system
//! goes into [`Transfer::advance`], the one place that decides about short counts, interruptions
//! and ends of files.
//!
//! Guarantee: `Done` only after every byte was transferred. Under direct I/O what is asked for next
//! starts at an aligned offset again, so some bytes may be transferred twice; a result that brings
//! no new byte ends the transfer, so it always ends. A sync is issued again only after EINTR, which
//! reports nothing about the data; any other failure is final, since the kernel tells it once.
//! A durable write issues its sync only after the last of its bytes was written: entries that are
//! in flight together have no order, and links break at a short write.
//! Tested below with synthetic results.

use std::io;

use crate::error::IoOperation;
use crate::planted::planted;
use crate::request::Class;
use crate::stats::Counters;

/// How often in a row an operation is issued again after EINTR or EAGAIN without progress.
const RETRY_LIMIT: u32 = 128;

/// The most bytes of one system call or ring entry: 256 pages of 4 KiB, which is what one block
/// request of Linux takes from scattered memory. More would be split, which a ring does on its
/// worker threads; less would make a large transfer a row of round trips, since the pieces of one
/// request follow each other. `examples/readbench` with `block=` above and below this shows it.
pub(crate) const TRANSFER_BYTES_MAX: usize = 1024 * 1024;

// One call of Linux moves at most 2 GiB less one page, and says so by a short count.
const _: () = assert!(TRANSFER_BYTES_MAX <= 0x7FFF_F000);

/// What to ask the operating system for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write,
    /// A write that returns once its bytes are durable (`RWF_DSYNC`).
    WriteThrough,
    Sync,
}

impl Action {
    pub(crate) fn operation(self) -> IoOperation {
        match self {
            Self::Read => IoOperation::Read,
            Self::Write | Self::WriteThrough => IoOperation::Write,
            Self::Sync => IoOperation::Sync,
        }
    }
}

/// Progress of one operation.
#[derive(Debug)]
pub(crate) struct Transfer {
    action: Action,
    /// Whether a sync follows once all bytes are written.
    sync_follows: bool,
    offset: u64,
    len: usize,
    alignment: usize,
    /// Where the next piece starts, relative to `offset`; aligned.
    start: usize,
    /// How many bytes are known to be transferred.
    done: usize,
    retries: u32,
    cancelled: bool,
}

/// What to do after a result.
#[derive(Debug)]
pub(crate) enum Step {
    /// All bytes are transferred.
    Done,
    /// Issue [`Transfer::next`] again.
    Again,
    /// The operation failed for good.
    Failed(io::Error),
}

/// The piece to ask for: `buffer[start..start + len]` at file offset `offset`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) offset: u64,
}

impl Transfer {
    pub(crate) fn new(class: Class, offset: u64, len: usize, alignment: u32) -> Self {
        let action = match class {
            Class::Read => Action::Read,
            Class::Write => Action::Write,
            Class::Sync => Action::Sync,
        };
        Self {
            action,
            sync_follows: false,
            offset,
            len,
            alignment: alignment as usize,
            start: 0,
            done: 0,
            retries: 0,
            cancelled: false,
        }
    }

    /// A write that is durable at its end: in the write itself where `in_write`, else by a sync
    /// that is issued once every byte is written.
    pub(crate) fn write_synced(offset: u64, len: usize, alignment: u32, in_write: bool) -> Self {
        let transfer = Self::new(Class::Sync, offset, len, alignment);
        match (len, in_write) {
            (0, _) => transfer,
            (_, true) => Self { action: Action::WriteThrough, ..transfer },
            (_, false) => Self { action: Action::Write, sync_follows: true, ..transfer },
        }
    }

    /// Whether nothing has to be issued at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.action != Action::Sync && self.len == 0
    }

    /// What [`Transfer::next`] is to be issued as.
    pub(crate) fn action(&self) -> Action {
        self.action
    }

    /// Whether the last results were EAGAIN: a ring should force its worker threads then.
    pub(crate) fn is_retry(&self) -> bool {
        self.retries > 0
    }

    pub(crate) fn next(&self) -> Piece {
        let len = (self.len - self.start).min(TRANSFER_BYTES_MAX);
        Piece { start: self.start, len, offset: self.offset + self.start as u64 }
    }

    /// Takes in the result of the last piece: a byte count, or an error.
    pub(crate) fn advance(&mut self, result: io::Result<usize>, counters: &Counters) -> Step {
        match result {
            Ok(_) if self.action == Action::Sync => Step::Done,
            Ok(count) => self.moved(count, counters),
            Err(error) => self.failed(error, counters),
        }
    }

    fn moved(&mut self, count: usize, counters: &Counters) -> Step {
        let asked = self.next().len;
        if asked < count {
            return Step::Failed(io::Error::other(format!(
                "the system transferred {count} bytes where {asked} were asked for"
            )));
        }
        let reached = self.start + count;
        if reached <= self.done {
            return Step::Failed(self.stuck());
        }
        self.done = reached;
        self.retries = 0;
        if self.done == self.len || planted("short_count_ignored") {
            return self.all_moved();
        }
        if count < asked {
            counters.short_counts.add(1);
        }
        let beyond_alignment = self.done % self.alignment;
        self.start = match planted("resumed_unaligned") {
            true => self.done,
            false => self.done - beyond_alignment,
        };
        Step::Again
    }

    fn all_moved(&mut self) -> Step {
        if !std::mem::take(&mut self.sync_follows) || planted("durable_write_unsynced") {
            return Step::Done;
        }
        self.action = Action::Sync;
        Step::Again
    }

    /// No new byte: a read is at the end of the file, a write cannot go on.
    fn stuck(&self) -> io::Error {
        match self.action {
            Action::Read => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends after {} of these bytes", self.done),
            ),
            Action::Write | Action::WriteThrough | Action::Sync => io::Error::new(
                io::ErrorKind::WriteZero,
                format!("the system stopped accepting data after {} bytes", self.done),
            ),
        }
    }

    fn failed(&mut self, error: io::Error, counters: &Counters) -> Step {
        let is_transfer = self.action != Action::Sync || planted("sync_retried");
        let again = match error.kind() {
            io::ErrorKind::Interrupted => self.may_retry(),
            io::ErrorKind::WouldBlock => is_transfer && self.may_retry(),
            _ if is_cancelled(&error) => {
                is_transfer
                    && !std::mem::replace(&mut self.cancelled, true)
                    && !planted("cancellation_surfaces")
            }
            _ => false,
        };
        if !again {
            return Step::Failed(error);
        }
        counters.retries.add(1);
        Step::Again
    }

    fn may_retry(&mut self) -> bool {
        self.retries += 1;
        self.retries <= RETRY_LIMIT || planted("retries_unbounded")
    }
}

/// The kernel cancels operations of a ring when its thread is told to exit or gets certain signals.
/// We never cancel any, so a cancelled transfer is simply issued once more.
#[cfg(unix)]
fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

#[cfg(not(unix))]
fn is_cancelled(_error: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn errno(number: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(number))
    }

    fn failure(step: Step) -> io::Error {
        match step {
            Step::Failed(error) => error,
            other => panic!("{other:?} where a failure was expected"),
        }
    }

    #[test]
    fn a_full_count_is_done() {
        let counters = Counters::default();
        let mut transfer = Transfer::new(Class::Read, 8192, 4096, 512);

        assert_eq!(transfer.next(), Piece { start: 0, len: 4096, offset: 8192 });
        assert!(matches!(transfer.advance(Ok(4096), &counters), Step::Done));
        assert_eq!(counters.short_counts.value(), 0);
    }

    #[test]
    fn a_short_count_goes_on_where_it_stopped() {
        let counters = Counters::default();
        let mut transfer = Transfer::new(Class::Write, 100, 50, 1);

        assert!(matches!(transfer.advance(Ok(20), &counters), Step::Again));
        assert_eq!(transfer.next(), Piece { start: 20, len: 30, offset: 120 });
        assert!(matches!(transfer.advance(Ok(30), &counters), Step::Done));
        assert_eq!(counters.short_counts.value(), 1);
    }

    #[test]
    fn under_direct_io_a_short_count_goes_on_at_an_aligned_offset() {
        let counters = Counters::default();
        let mut transfer = Transfer::new(Class::Read, 4096, 8192, 512);

        assert!(matches!(transfer.advance(Ok(1000), &counters), Step::Again));
        assert_eq!(transfer.next(), Piece { start: 512, len: 7680, offset: 4608 });
        assert!(matches!(transfer.advance(Ok(7680), &counters), Step::Done));
    }

    #[test]
    fn an_unaligned_end_of_file_is_recognised() {
        let counters = Counters::default();
        let mut transfer = Transfer::new(Class::Read, 0, 8192, 4096);

        assert!(matches!(transfer.advance(Ok(5000), &counters), Step::Again));
        let error = failure(transfer.advance(Ok(904), &counters));

        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), "the file ends after 5000 of these bytes");
    }

    #[test]
    fn zero_bytes_end_a_read_and_a_write_with_an_error() {
        let counters = Counters::default();
        let mut read = Transfer::new(Class::Read, 0, 8, 1);
        let mut write = Transfer::new(Class::Write, 0, 8, 1);

        assert_eq!(failure(read.advance(Ok(0), &counters)).kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(failure(write.advance(Ok(0), &counters)).kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn a_count_larger_than_asked_for_is_an_error() {
        let mut read = Transfer::new(Class::Read, 0, 8, 1);

        let error = failure(read.advance(Ok(9), &Counters::default()));

        assert!(error.to_string().contains("9 bytes where 8 were asked for"));
    }

    #[cfg(unix)]
    #[test]
    fn interruptions_are_retried_up_to_the_limit() {
        for number in [libc::EINTR, libc::EAGAIN] {
            let counters = Counters::default();
            let mut read = Transfer::new(Class::Read, 0, 8, 1);

            for _ in 0..RETRY_LIMIT {
                assert!(matches!(read.advance(errno(number), &counters), Step::Again));
            }

            let error = failure(read.advance(errno(number), &counters));
            assert_eq!(error.raw_os_error(), Some(number));
            assert_eq!(counters.retries.value(), u64::from(RETRY_LIMIT));
        }
    }

    #[cfg(unix)]
    #[test]
    fn progress_renews_the_retries() {
        let counters = Counters::default();
        let mut read = Transfer::new(Class::Read, 0, 8, 1);

        for _ in 0..RETRY_LIMIT {
            assert!(matches!(read.advance(errno(libc::EINTR), &counters), Step::Again));
        }
        assert!(matches!(read.advance(Ok(1), &counters), Step::Again));

        assert!(matches!(read.advance(errno(libc::EINTR), &counters), Step::Again));
        assert_eq!(read.next(), Piece { start: 1, len: 7, offset: 1 });
    }

    #[cfg(unix)]
    #[test]
    fn a_stray_cancellation_is_retried_once() {
        let counters = Counters::default();
        let mut write = Transfer::new(Class::Write, 0, 8, 1);

        assert!(matches!(write.advance(errno(libc::ECANCELED), &counters), Step::Again));
        let error = failure(write.advance(errno(libc::ECANCELED), &counters));

        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    }

    #[cfg(unix)]
    #[test]
    fn a_failed_sync_is_final() {
        let counters = Counters::default();
        for number in [libc::EIO, libc::EAGAIN, libc::ECANCELED, libc::ENOSPC] {
            let mut sync = Transfer::new(Class::Sync, 0, 0, 1);

            let error = failure(sync.advance(errno(number), &counters));

            assert_eq!(error.raw_os_error(), Some(number));
        }
        assert_eq!(counters.retries.value(), 0);
    }

    #[test]
    fn the_sync_of_a_durable_write_follows_its_last_byte() {
        let counters = Counters::default();
        let mut write = Transfer::write_synced(0, 8192, 4096, false);

        assert_eq!(write.action(), Action::Write);
        assert!(matches!(write.advance(Ok(4096), &counters), Step::Again));
        assert_eq!(write.action(), Action::Write, "bytes are missing");
        assert!(matches!(write.advance(Ok(4096), &counters), Step::Again));
        assert_eq!(write.action(), Action::Sync);
        assert!(matches!(write.advance(Ok(0), &counters), Step::Done));
    }

    #[test]
    fn a_durable_write_through_ends_with_its_last_byte() {
        let counters = Counters::default();
        let mut write = Transfer::write_synced(0, 8192, 4096, true);

        assert_eq!(write.action(), Action::WriteThrough);
        assert!(matches!(write.advance(Ok(4096), &counters), Step::Again));
        assert_eq!(write.action(), Action::WriteThrough);
        assert!(matches!(write.advance(Ok(4096), &counters), Step::Done));
    }

    #[test]
    fn a_durable_write_of_no_bytes_is_a_sync() {
        for in_write in [false, true] {
            let write = Transfer::write_synced(0, 0, 1, in_write);

            assert_eq!((write.action(), write.is_empty()), (Action::Sync, false));
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_sync_half_of_a_durable_write_fails_for_good() {
        let counters = Counters::default();
        let mut write = Transfer::write_synced(0, 8, 1, false);

        assert!(matches!(write.advance(errno(libc::ECANCELED), &counters), Step::Again));
        assert!(matches!(write.advance(Ok(8), &counters), Step::Again));
        let error = failure(write.advance(errno(libc::EAGAIN), &counters));

        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        assert_eq!(write.action().operation(), IoOperation::Sync);
    }

    #[test]
    fn large_transfers_are_cut_into_pieces() {
        let counters = Counters::default();
        let mut write = Transfer::new(Class::Write, 0, TRANSFER_BYTES_MAX + 4096, 4096);

        assert_eq!(write.next().len, TRANSFER_BYTES_MAX);
        assert!(matches!(write.advance(Ok(TRANSFER_BYTES_MAX), &counters), Step::Again));
        assert_eq!(write.next(), Piece { start: 1_048_576, len: 4096, offset: 1_048_576 });
        assert!(matches!(write.advance(Ok(4096), &counters), Step::Done));
        assert_eq!(counters.short_counts.value(), 0);
    }
}
