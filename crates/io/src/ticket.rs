//! One accepted request without its buffer: who it is for, and how its outcome is told.
//!
//! Guarantee: every way out counts the outcome, poisons the file where a write or sync failed, and
//! calls the completion once. Both backends end every request here.

use std::io;

use crate::completion::deliver;
use crate::error::IoError;
use crate::file::FileHandle;
use crate::request::{Class, Completed, IoBuffer, OnComplete, Request};

use crate::stats::Counters;
use crate::transfer::Transfer;

pub(crate) struct Ticket {
    pub(crate) file: FileHandle,
    class: Class,
    offset: u64,
    len: u64,
    on_complete: OnComplete,
}

/// A request that was checked and may be issued.
pub(crate) struct Accepted {
    pub(crate) ticket: Ticket,
    pub(crate) buffer: Option<IoBuffer>,
    pub(crate) transfer: Transfer,
}

impl Ticket {
    /// Checks a request; a wrong one, and one with nothing to transfer, ends here.
    pub(crate) fn accept(request: Request, counters: &Counters) -> Option<Accepted> {
        let checked = request.check();
        let (ticket, buffer) = Self::split(request);
        if let Err(error) = checked {
            ticket.refuse(counters, error, buffer);
            return None;
        }
        let len = buffer.as_ref().map_or(0, IoBuffer::len);
        let transfer = Transfer::new(ticket.class, ticket.offset, len, ticket.file.alignment());
        if transfer.is_empty() {
            ticket.finish(counters, Ok(()), buffer);
            return None;
        }
        Some(Accepted { ticket, buffer, transfer })
    }

    /// Ends a request that was never looked at.
    pub(crate) fn reject(
        request: Request,
        counters: &Counters,
        why: impl FnOnce(Class, &FileHandle) -> IoError,
    ) {
        let (ticket, buffer) = Self::split(request);
        let error = why(ticket.class, &ticket.file).at(ticket.offset, ticket.len);
        ticket.refuse(counters, error, buffer);
    }

    fn split(request: Request) -> (Self, Option<IoBuffer>) {
        let Request { file, operation, on_complete } = request;
        let (offset, len) = operation.range();
        let class = operation.class();
        (Self { file, class, offset, len, on_complete }, operation.into_buffer())
    }

    /// The request as it was, for another backend to start over.
    #[cfg(target_os = "linux")]
    pub(crate) fn into_request(self, buffer: Option<IoBuffer>) -> Request {
        use crate::request::Operation;

        let offset = self.offset;
        let operation = match (self.class, buffer) {
            (Class::Read, Some(buffer)) => Operation::Read { offset, buffer },
            (Class::Write, Some(buffer)) => Operation::Write { offset, buffer },
            (Class::Sync, _) => Operation::Sync,
            (Class::Read | Class::Write, None) => unreachable!("a transfer has a buffer"),
        };
        Request { file: self.file, operation, on_complete: self.on_complete }
    }

    /// The way out after the operating system was asked.
    pub(crate) fn finish(
        self,
        counters: &Counters,
        result: io::Result<()>,
        buffer: Option<IoBuffer>,
    ) {
        match result {
            Ok(()) => {
                let (operations, bytes) = match self.class {
                    Class::Read => (&counters.reads, Some(&counters.bytes_read)),
                    Class::Write => (&counters.writes, Some(&counters.bytes_written)),
                    Class::Sync => (&counters.syncs, None),
                };
                operations.add(1);
                if let Some(bytes) = bytes {
                    bytes.add(self.len);
                }
                deliver(counters, self.on_complete, Completed { result: Ok(()), buffer });
            }
            Err(source) => {
                let error = self.error(source);
                if self.class != Class::Read {
                    self.file.poison(&error);
                }
                self.refuse(counters, error, buffer);
            }
        }
    }

    /// The way out without asking the operating system: the file is as it was.
    pub(crate) fn refuse(self, counters: &Counters, error: IoError, buffer: Option<IoBuffer>) {
        counters.errors.add(1);
        deliver(counters, self.on_complete, Completed { result: Err(error), buffer });
    }

    fn error(&self, source: io::Error) -> IoError {
        let error = IoError::new(self.class.operation(), self.file.path(), source);
        match self.class {
            Class::Read | Class::Write => error.at(self.offset, self.len),
            Class::Sync => error,
        }
    }
}
