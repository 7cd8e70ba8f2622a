//! One accepted request without its buffer: who it is for, and how its outcome is told.
//!
//! Guarantee: every way out counts the outcome, poisons the file where a write or sync failed, lets
//! go of the file, and calls the completion once, in this order. Both backends end every request
//! here.
//! A sync that went well may be told later, by another sync of its file (see `syncs`).

use std::io;
use std::sync::Arc;

use crate::completion::deliver;
use crate::error::{IoError, IoOperation};
use crate::file::FileHandle;
use crate::planted::planted;
use crate::request::{Class, Completed, IoBuffer, OnComplete, Operation, Request};
use crate::stats::Counters;
use crate::syncs::Tell;
use crate::transfer::{Action, Transfer};

pub(crate) struct Ticket {
    pub(crate) file: FileHandle,
    class: Class,
    /// Whether this is a write that is to be durable at its end.
    synced: bool,
    name: IoOperation,
    offset: u64,
    len: u64,
    on_complete: OnComplete,
    /// Of a sync that may be issued: its number among those of the file.
    sync_number: Option<u64>,
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
        let (mut ticket, buffer) = Self::split(request);
        if let Err(error) = checked {
            ticket.refuse(counters, error, buffer);
            return None;
        }
        let len = buffer.as_ref().map_or(0, IoBuffer::len);
        let (offset, alignment) = (ticket.offset, ticket.file.alignment());
        let transfer = match ticket.synced {
            true => Transfer::write_synced(offset, len, alignment, ticket.file.writes_through()),
            false => Transfer::new(ticket.class, offset, len, alignment),
        };
        if transfer.is_empty() {
            ticket.succeed(counters, transfer.action(), buffer);
            return None;
        }
        ticket.sync_number = (ticket.class == Class::Sync).then(|| ticket.file.syncs().begin());
        Some(Accepted { ticket, buffer, transfer })
    }

    /// Ends a request that was never looked at.
    pub(crate) fn reject(
        request: Request,
        counters: &Counters,
        why: impl FnOnce(IoOperation, &FileHandle) -> IoError,
    ) {
        let (ticket, buffer) = Self::split(request);
        let error = why(ticket.name, &ticket.file).at(ticket.offset, ticket.len);
        ticket.refuse(counters, error, buffer);
    }

    fn split(request: Request) -> (Self, Option<IoBuffer>) {
        let Request { file, operation, on_complete } = request;
        let (offset, len) = operation.range();
        let (class, name) = (operation.class(), operation.name());
        let synced = matches!(operation, Operation::WriteSynced { .. });
        let ticket =
            Self { file, class, synced, name, offset, len, on_complete, sync_number: None };
        (ticket, operation.into_buffer())
    }

    /// Whose budget it counts against, from beginning to end.
    #[cfg(target_os = "linux")]
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// The request as it was, for another backend to start over.
    #[cfg(target_os = "linux")]
    pub(crate) fn into_request(mut self, buffer: Option<IoBuffer>) -> Request {
        self.end_sync();
        let offset = self.offset;
        let operation = match (self.class, buffer) {
            (Class::Read, Some(buffer)) => Operation::Read { offset, buffer },
            (Class::Write, Some(buffer)) => Operation::Write { offset, buffer },
            (Class::Sync, Some(buffer)) => Operation::WriteSynced { offset, buffer },
            (Class::Sync, None) => Operation::Sync,
            (Class::Read | Class::Write, None) => unreachable!("a transfer has a buffer"),
        };
        Request { file: self.file, operation, on_complete: self.on_complete }
    }

    /// The way out after the operating system was asked; `last` is what it was asked for last.
    pub(crate) fn finish(
        mut self,
        counters: &Arc<Counters>,
        last: Action,
        result: io::Result<()>,
        buffer: Option<IoBuffer>,
    ) {
        match result {
            Ok(()) => match self.sync_number.take() {
                Some(number) => {
                    let (file, counters) = (self.file.clone(), Arc::clone(counters));
                    let tell = Box::new(move || self.succeed(&counters, last, buffer));
                    end_sync(file, number, Some(tell));
                }
                None => self.succeed(counters, last, buffer),
            },
            Err(source) => {
                let error = self.error(last, source);
                if self.class != Class::Read && !planted("failure_forgotten") {
                    self.file.poison(&error);
                }
                self.end_sync();
                self.refuse(counters, error, buffer);
            }
        }
    }

    fn succeed(self, counters: &Counters, last: Action, buffer: Option<IoBuffer>) {
        if let Some(error) = self.disproof() {
            return self.refuse(counters, error, buffer);
        }
        self.count(counters, last);
        self.tell(counters, Completed { result: Ok(()), buffer });
    }

    /// Who hears of the end may remove the file, or count who has it open: this operation no
    /// longer has. Where a name stays until the last handle is closed, as on some systems after a
    /// removal, it would stay for as long as this thread is kept from running.
    fn tell(self, counters: &Counters, completed: Completed) {
        let Self { file, on_complete, .. } = self;
        drop(file);
        deliver(counters, on_complete, completed);
    }

    /// If this is a sync, it runs no more; tells of those that waited for it.
    fn end_sync(&mut self) {
        if let Some(number) = self.sync_number.take() {
            end_sync(self.file.clone(), number, None);
        }
    }

    /// Why a sync that went well proves nothing: another one beside it has failed.
    fn disproof(&self) -> Option<IoError> {
        let first = self.file.poisoned().filter(|_| self.class == Class::Sync)?;
        Some(IoError::poisoned(self.name, &first))
    }

    /// The way out without asking the operating system: the file is as it was.
    pub(crate) fn refuse(self, counters: &Counters, error: IoError, buffer: Option<IoBuffer>) {
        counters.errors.add(1);
        self.tell(counters, Completed { result: Err(error), buffer });
    }

    fn count(&self, counters: &Counters, last: Action) {
        if last == Action::Sync {
            counters.syncs.add(1);
        }
        if self.class == Class::Read {
            counters.reads.add(1);
            counters.bytes_read.add(self.len);
        } else if self.class == Class::Write || self.synced {
            counters.writes.add(1);
            counters.bytes_written.add(self.len);
        }
        if self.synced {
            counters.synced_writes.add(1);
            counters.synced_writes_through.add(u64::from(last == Action::WriteThrough));
        }
    }

    fn error(&self, last: Action, source: io::Error) -> IoError {
        let error = IoError::new(last.operation(), self.file.path(), source);
        match last {
            Action::Sync if !self.synced => error,
            _ => error.at(self.offset, self.len),
        }
    }
}

/// Lets go of the file before it tells, as every ticket does.
fn end_sync(file: FileHandle, number: u64, tell: Option<Tell>) {
    let told = file.syncs().end(number, tell);
    drop(file);
    told.into_iter().for_each(|tell| tell());
}
