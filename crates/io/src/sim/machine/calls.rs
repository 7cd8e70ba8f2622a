//! The system calls of transfers on the simulated machine: one call of a read, a write or a sync,
//! with the fault that the plan has for it.
//!
//! The outcome goes into the [`Transfer`] of the operation, which decides whether the call is
//! repeated, as it does for every backend.
//! Tested in `tests/it/sim`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Machine, SECTOR, Tell, Work, text};
use crate::error::IoOperation;
use crate::file::FileHandle;
use crate::request::IoBuffer;
use crate::sim::fault::{Errno, Fault};
use crate::sim::image::NodeId;
use crate::sim::random::SimRandom;
use crate::sim::trace::TraceEvent;
use crate::stats::Counters;
use crate::ticket::Accepted;
use crate::transfer::{Action, Step, Transfer};

impl Machine {
    pub(super) fn transfer(
        &mut self,
        accepted: Accepted,
        counters: Arc<Counters>,
        covered: u64,
        fault: Option<Fault>,
    ) -> Option<Tell> {
        let Accepted { ticket, mut buffer, mut transfer } = accepted;
        let piece = transfer.next();
        let action = transfer.action();
        let operation = action.operation();
        let result = self.call(&ticket.file, &transfer, buffer.as_mut(), covered, fault);
        let outcome = match &result {
            Ok(count) => Ok(*count as u64),
            Err(error) => Err(error.to_string()),
        };
        let path = ticket.file.path().to_owned();
        self.record(operation, &path, piece.offset, piece.len as u64, outcome, fault);
        let ended = match transfer.advance(result, &counters) {
            Step::Again => {
                let sync_begins = action != Action::Sync && transfer.action() == Action::Sync;
                let covered = if sync_begins { self.storage.sequence() } else { covered };
                let accepted = Accepted { ticket, buffer, transfer };
                self.enqueue(Work::Transfer { accepted, counters, covered });
                return None;
            }
            Step::Done => Ok(()),
            Step::Failed(error) => Err(error),
        };
        let last = transfer.action();
        Some(Box::new(move || ticket.finish(&counters, last, ended, buffer)))
    }

    pub(super) fn record(
        &mut self,
        operation: IoOperation,
        path: &Path,
        offset: u64,
        len: u64,
        outcome: Result<u64, String>,
        fault: Option<Fault>,
    ) {
        let (time, path) = (self.clock.now(), text(path));
        self.trace.add(TraceEvent { time, operation, path, offset, len, outcome, fault });
    }

    /// One system call of a transfer.
    fn call(
        &mut self,
        file: &FileHandle,
        transfer: &Transfer,
        buffer: Option<&mut IoBuffer>,
        covered: u64,
        fault: Option<Fault>,
    ) -> io::Result<usize> {
        let node = file.sim().node;
        let piece = transfer.next();
        let range = piece.start..piece.start + piece.len;
        let Some(buffer) = buffer.filter(|_| transfer.action() != Action::Sync) else {
            return self.sync(node, covered, fault).map(|()| 0);
        };
        check_alignment(file, piece.offset, buffer, &range)?;
        // The device transfers whole units of a direct file, so that is where it stops early.
        let unit = file.alignment() as usize;
        if transfer.action() == Action::Read {
            let bytes = buffer.as_mut_slice().expect("a checked read has a buffer to fill");
            return self.read(node, piece.offset, &mut bytes[range], unit, fault);
        }
        let overwrites = self.storage.overwrites(node, piece.offset, range.len());
        let written = self.write(node, piece.offset, &buffer.as_slice()[range], unit, fault)?;
        let through = transfer.action() == Action::WriteThrough;
        if through || file.writes_through() && overwrites {
            self.storage.sync(node, self.storage.sequence());
        }
        Ok(written)
    }

    fn read(
        &mut self,
        node: NodeId,
        offset: u64,
        bytes: &mut [u8],
        unit: usize,
        fault: Option<Fault>,
    ) -> io::Result<usize> {
        match fault {
            Some(Fault::Error(errno)) => return Err(errno.error()),
            Some(Fault::LatentSector) => {
                let sectors = (bytes.len() as u64).div_ceil(SECTOR).max(1);
                let sector = offset / SECTOR + self.random.below(sectors);
                self.storage.make_unreadable(node, sector);
            }
            _ => {}
        }
        let len = if fault == Some(Fault::Short) {
            self.shortened(bytes.len(), unit)
        } else {
            bytes.len()
        };
        let count = self.storage.read(node, offset, &mut bytes[..len])?;
        if fault == Some(Fault::FlippedBit) && 0 < count {
            flip(&mut bytes[..count], &mut self.random);
        }
        Ok(count)
    }

    fn write(
        &mut self,
        node: NodeId,
        offset: u64,
        bytes: &[u8],
        unit: usize,
        fault: Option<Fault>,
    ) -> io::Result<usize> {
        self.trace.note_bytes(bytes);
        match fault {
            Some(Fault::Error(errno)) => {
                self.write_some(node, offset, bytes, errno)?;
                Err(errno.error())
            }
            Some(Fault::Short) => {
                let len = self.shortened(bytes.len(), unit);
                self.storage.write(node, offset, &bytes[..len])
            }
            Some(Fault::Zero) => Ok(0),
            Some(Fault::Lost) => Ok(bytes.len()),
            Some(Fault::Misdirected(sectors)) => {
                self.storage.write(node, offset + u64::from(sectors) * SECTOR, bytes)
            }
            Some(Fault::WrongFile) => match self.storage.other_file(node, &mut self.random) {
                Some(other) => self.storage.write(other, offset, bytes),
                None => Ok(bytes.len()),
            },
            Some(Fault::FlippedBit) => {
                let mut wrong = bytes.to_vec();
                flip(&mut wrong, &mut self.random);
                self.storage.write(node, offset, &wrong)
            }
            _ => self.storage.write(node, offset, bytes),
        }
    }

    /// A write that fails with EIO may have reached some sectors all the same.
    fn write_some(
        &mut self,
        node: NodeId,
        offset: u64,
        bytes: &[u8],
        errno: Errno,
    ) -> io::Result<()> {
        if errno == Errno::Io && self.random.chance(1, 2) {
            let len = self.random.index(bytes.len() + 1) / 512 * 512;
            if 0 < len {
                self.storage.write(node, offset, &bytes[..len])?;
            }
        }
        Ok(())
    }

    fn sync(&mut self, node: NodeId, covered: u64, fault: Option<Fault>) -> io::Result<()> {
        let errno = match fault {
            Some(Fault::Error(Errno::Interrupted)) => return Err(Errno::Interrupted.error()),
            Some(Fault::Error(errno)) => {
                let random = &mut self.random;
                self.storage.fail_sync(node, covered, || random.chance(1, 2));
                errno
            }
            Some(Fault::SyncForgets) => {
                self.storage.fail_sync(node, covered, || false);
                Errno::Io
            }
            Some(Fault::SyncKeeps) => {
                self.storage.sync(node, covered);
                Errno::Io
            }
            _ => {
                self.storage.sync(node, covered);
                return Ok(());
            }
        };
        Err(errno.error())
    }

    fn shortened(&mut self, len: usize, unit: usize) -> usize {
        let units = len / unit;
        if units < 2 { len } else { (1 + self.random.index(units - 1)) * unit }
    }
}

/// The kernel refuses unaligned direct transfers.
fn check_alignment(
    file: &FileHandle,
    offset: u64,
    buffer: &IoBuffer,
    range: &std::ops::Range<usize>,
) -> io::Result<()> {
    let alignment = file.alignment() as usize;
    let address = buffer.as_slice().as_ptr().addr() + range.start;
    let aligned = offset.is_multiple_of(alignment as u64)
        && range.len().is_multiple_of(alignment)
        && address.is_multiple_of(file.memory_alignment());
    if aligned { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn flip(bytes: &mut [u8], random: &mut SimRandom) {
    if !bytes.is_empty() {
        bytes[random.index(bytes.len())] ^= 1 << random.below(8);
    }
}
