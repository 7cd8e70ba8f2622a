//! One operation in flight, and what its raw results mean.
//!
//! Guarantee: a negative result is turned into an errno with its sign taken off, every count is
//! compared with what was asked for (in `transfer`), and errors that mean "this ring may not do
//! that" are told apart from errors of the file.
//! Tested below with synthetic results.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::planted::planted;
use crate::request::IoBuffer;
use crate::stats::Counters;
use crate::ticket::{Accepted, Ticket};
use crate::transfer::{Step, Transfer};

pub(super) struct Flight {
    pub(super) ticket: Ticket,
    pub(super) buffer: Option<IoBuffer>,
    pub(super) transfer: Transfer,
    /// Whether its last piece was named by a registered buffer.
    pub(super) registered: bool,
}

/// What to do with a flight after a completion.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It has ended.
    Finished(io::Result<()>),
    /// Push its next piece.
    Resume,
    /// The ring may be forbidden to do this: let a positional thread do it and tell.
    HandOver(io::Error),
}

impl Flight {
    pub(super) fn new(accepted: Accepted) -> Self {
        let Accepted { ticket, buffer, transfer } = accepted;
        Self { ticket, buffer, transfer, registered: false }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.ticket.file.os().as_raw_fd()
    }

    /// Takes in a raw completion result.
    pub(super) fn complete(&mut self, result: i32, counters: &Counters) -> Verdict {
        let result = match usize::try_from(result) {
            Ok(count) => Ok(count),
            Err(_) if planted("sign_kept") => Err(io::Error::from_raw_os_error(result)),
            Err(_) => Err(io::Error::from_raw_os_error(result.saturating_neg())),
        };
        match result {
            Err(error) if is_restriction(&error) => Verdict::HandOver(error),
            result => match self.transfer.advance(result, counters) {
                Step::Done => Verdict::Finished(Ok(())),
                Step::Again => Verdict::Resume,
                Step::Failed(error) => Verdict::Finished(Err(error)),
            },
        }
    }
}

/// Errors by which filters and sandboxes refuse ring operations. EINVAL and EIO are not among them:
/// they are about the file or the request.
pub(super) fn is_restriction(error: &io::Error) -> bool {
    const RESTRICTIONS: [i32; 4] = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP];
    let listed = |number| RESTRICTIONS.contains(&number) || planted("every_error_degrades");
    error.raw_os_error().is_some_and(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileHandle, OpenOptions};
    use crate::memory::AlignedBuf;
    use crate::request::{Operation, Request};

    fn flight(operation: impl FnOnce(IoBuffer) -> Operation) -> (Flight, Counters) {
        let counters = Counters::default();
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions::read_write().create().direct(false);
        let file = FileHandle::open(&directory.path().join("file"), options).unwrap();
        let buffer = IoBuffer::Owned(AlignedBuf::zeroed(8192).unwrap());
        let on_complete = Box::new(|_| ());
        let request = Request { file, operation: operation(buffer), on_complete };
        let accepted = Ticket::accept(request, &counters).unwrap();
        (Flight::new(accepted), counters)
    }

    fn read() -> (Flight, Counters) {
        flight(|buffer| Operation::Read { offset: 0, buffer })
    }

    fn errno(verdict: Verdict) -> Option<i32> {
        match verdict {
            Verdict::Finished(Err(error)) | Verdict::HandOver(error) => error.raw_os_error(),
            other => panic!("{other:?} where an error was expected"),
        }
    }

    #[test]
    fn a_negative_result_is_an_errno_without_its_sign() {
        let (mut flight, counters) = read();

        let verdict = flight.complete(-libc::EIO, &counters);

        assert!(matches!(verdict, Verdict::Finished(Err(_))));
        assert_eq!(errno(verdict), Some(libc::EIO));
    }

    #[test]
    fn a_short_result_resumes_and_a_full_one_finishes() {
        let (mut flight, counters) = read();

        assert!(matches!(flight.complete(4096, &counters), Verdict::Resume));
        assert_eq!(flight.transfer.next().offset, 4096);
        assert!(matches!(flight.complete(4096, &counters), Verdict::Finished(Ok(()))));
    }

    #[test]
    fn no_bytes_are_the_end_of_the_file() {
        let (mut flight, counters) = read();

        let verdict = flight.complete(0, &counters);

        let Verdict::Finished(Err(error)) = verdict else { panic!("{verdict:?}") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn interruptions_and_one_cancellation_resume() {
        let (mut flight, counters) = flight(|buffer| Operation::Write { offset: 0, buffer });

        for number in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
            assert!(matches!(flight.complete(-number, &counters), Verdict::Resume), "{number}");
        }
        assert_eq!(errno(flight.complete(-libc::ECANCELED, &counters)), Some(libc::ECANCELED));
        assert_eq!(counters.retries.value(), 3);
    }

    #[test]
    fn a_failed_sync_finishes() {
        let (mut flight, counters) = flight(|_| Operation::Sync);

        assert!(matches!(flight.complete(0, &counters), Verdict::Finished(Ok(()))));
        assert_eq!(errno(flight.complete(-libc::EIO, &counters)), Some(libc::EIO));
        assert_eq!(counters.retries.value(), 0);
    }

    #[test]
    fn restrictions_are_handed_over_and_faults_are_not() {
        for number in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP] {
            let (mut flight, counters) = read();
            assert!(matches!(flight.complete(-number, &counters), Verdict::HandOver(_)));
        }
        for number in [libc::EINVAL, libc::EIO, libc::ENOSPC, libc::EBADF] {
            let (mut flight, counters) = read();
            assert!(matches!(flight.complete(-number, &counters), Verdict::Finished(Err(_))));
        }
    }

    #[test]
    fn the_smallest_integer_is_an_error_and_no_overflow() {
        let (mut flight, counters) = read();

        assert!(matches!(flight.complete(i32::MIN, &counters), Verdict::Finished(Err(_))));
    }
}
