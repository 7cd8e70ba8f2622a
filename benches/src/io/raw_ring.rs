//! The bare `io_uring` crate in a loop: what a program that does nothing but this file gets.
//!
//! One thread, one ring, no registered files or buffers: all that is done is reaped, and as many
//! operations are submitted again with the system call that waits for the next one. Or, as `fio`
//! does it unless told otherwise, every operation is submitted by a call of its own: the kernel
//! holds back what comes in a batch until the batch is complete.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    mem,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, squeue, types};
use nephrite_io::memory::{AlignedBuf, HUGE_PAGE_BYTES};
use rustix::fs::OFlags;

use super::job::{Access, Contender, Job, Measured, Meter, Offsets, histogram};
use crate::{Outcome, clock::Stopwatch};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct RawRing {
    pub(super) call_each: bool,
}

impl Contender for RawRing {
    fn name(&self) -> &str {
        if self.call_each { "io-uring crate, a call each" } else { "io-uring crate, batches" }
    }

    fn takes(&self, job: &Job) -> bool {
        !self.call_each || 1 < job.depth && job.access == Access::RandomRead
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        let file = open_direct(job)?;
        let mut ring = ring(u32::try_from(job.depth)?)?;
        let mut transfers = Transfers::new(&file, job)?;
        transfers.call_each = self.call_each;
        let meter = Meter::start();
        let latencies = transfers.run(&mut ring, &job.offsets())?;
        Ok(meter.finish(&latencies))
    }
}

/// The file of a job, past the system's cache.
pub(super) fn open_direct(job: &Job) -> Outcome<File> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    Ok(OpenOptions::new().read(true).write(job.writes()).custom_flags(flags).open(&job.path)?)
}

/// A ring with the flags for one thread, where the kernel knows them.
pub(super) fn ring(entries: u32) -> Outcome<IoUring> {
    let modern = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
    Ok(match modern {
        Ok(ring) => ring,
        Err(_) => IoUring::new(entries)?, // an older kernel, if this succeeds
    })
}

/// A buffer and when it was handed to the kernel.
struct Slot {
    buffer: AlignedBuf,
    started: Stopwatch,
}

impl Slot {
    fn new(job: &Job) -> Outcome<Self> {
        let len = match job.access {
            Access::RandomRead => job.block_bytes,
            _ => job.block_bytes.next_multiple_of(HUGE_PAGE_BYTES),
        };
        Ok(Self { buffer: AlignedBuf::zeroed(len)?, started: Stopwatch::start() })
    }
}

/// Operations on a file, each with a slot of its own.
pub(super) struct Transfers<'a> {
    file: &'a File,
    write: bool,
    block_bytes: u32,
    slots: Vec<Slot>,
    in_flight: usize,
    call_each: bool,
}

impl<'a> Transfers<'a> {
    pub(super) fn new(file: &'a File, job: &Job) -> Outcome<Self> {
        Ok(Self {
            file,
            write: job.writes(),
            block_bytes: u32::try_from(job.block_bytes)?,
            slots: (0..job.depth).map(|_| Slot::new(job)).collect::<Outcome<_>>()?,
            in_flight: 0,
            call_each: false,
        })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn run(&mut self, ring: &mut IoUring, offsets: &Offsets) -> Outcome<Histogram<u64>> {
        let mut idle: Vec<usize> = (0..self.slots.len()).collect();
        let (mut latencies, mut done) = (histogram(), Vec::with_capacity(idle.len()));
        loop {
            while let Some(slot) = idle.pop() {
                let Some(offset) = offsets.next() else { break };
                self.submit(ring, slot, offset)?;
            }
            if self.in_flight == 0 {
                return Ok(latencies);
            }
            self.wait(ring, &mut done)?;
            for slot in done.drain(..) {
                latencies.record(self.slots[slot].started.nanoseconds())?;
                idle.push(slot);
            }
        }
    }

    /// Submits what is queued and waits until something is done: appends its slots.
    pub(super) fn wait(&mut self, ring: &mut IoUring, done: &mut Vec<usize>) -> Outcome<()> {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            submitted => submitted?,
        };
        for completion in ring.completion() {
            self.in_flight -= 1;
            if u32::try_from(completion.result()) != Ok(self.block_bytes) {
                return Err(format!("a transfer gave {}", completion.result()).into());
            }
            done.push(usize::try_from(completion.user_data())?);
        }
        Ok(())
    }

    /// Queues one; or submits it, with a call each.
    pub(super) fn submit(&mut self, ring: &mut IoUring, slot: usize, offset: u64) -> Outcome<()> {
        let entry = self.entry(slot, offset);
        self.slots[slot].started = Stopwatch::start();
        self.in_flight += 1;
        // SAFETY: the file outlives `self`, and the slot's buffer outlives the operation: `drop`
        // leaks the buffers if any is in flight. Nobody touches a buffer before its completion.
        unsafe { ring.submission().push(&entry) }?;
        if self.call_each {
            ring.submit()?;
        }
        Ok(())
    }

    fn entry(&mut self, slot: usize, offset: u64) -> squeue::Entry {
        let (file, len) = (types::Fd(self.file.as_raw_fd()), self.block_bytes);
        let buffer = self.slots[slot].buffer.as_mut_ptr();
        let entry = match self.write {
            true => opcode::Write::new(file, buffer, len).offset(offset).build(),
            false => opcode::Read::new(file, buffer, len).offset(offset).build(),
        };
        entry.user_data(slot as u64)
    }
}

impl Drop for Transfers<'_> {
    /// The kernel may still write to the buffers if a loop ended early: those are leaked.
    fn drop(&mut self) {
        if 0 < self.in_flight {
            mem::forget(mem::take(&mut self.slots));
        }
    }
}
