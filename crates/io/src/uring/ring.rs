//! The ring itself, and all unsafe code of this backend: entries in, completions out.
//!
//! Guarantee: what is pushed names only memory and files that a [`Flight`] in the table owns, and
//! the driver keeps a flight until its completion was reaped or for ever (see `driver`, lost
//! rings). Built, used and dropped on one thread.
//! Entries that the kernel has not consumed are known by token, so that they can be taken back when
//! the kernel refuses to be entered.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use super::event::Event;
use super::fixed::{FixedBuffers, Offer, SLOTS};
use super::flight::Flight;
use super::kernel::{Kernel, Reaped};
use super::setup::{self, RingFacts};
use super::table::WAKE_TOKEN;
use crate::request::IoBuffer;
use crate::transfer::{Action, Piece};

pub(super) struct Ring {
    /// Leaked unless released: see [`Kernel::release`].
    ring: ManuallyDrop<IoUring>,
    facts: RingFacts,
    flags: EnterFlags,
    /// Whether a kernel thread takes entries by itself.
    polled: bool,
    /// Where the kernel puts the eventfd's value; its address is in the ring while armed.
    wake_value: NonNull<[u8; 8]>,
    wake_armed: bool,
    unsubmitted: VecDeque<u64>,
    /// What is registered with the ring; leaked with it.
    fixed: ManuallyDrop<FixedBuffers>,
    has_slots: bool,
}

impl Ring {
    pub(super) fn build(entries: u32) -> Result<Self, String> {
        Self::wrap(setup::build(entries)?)
    }

    /// The same with a kernel thread that polls for submissions, where that is allowed.
    pub(super) fn build_polled(entries: u32, idle: Duration) -> Result<Self, String> {
        Self::wrap(setup::build_polled(entries, idle)?)
    }

    /// One for direct transfers only, whose completions are polled for.
    pub(super) fn build_polling(entries: u32) -> Result<Self, String> {
        Self::wrap(setup::build_polling(entries)?)
    }

    /// The same without waiting for lockable memory that others are about to give back.
    pub(super) fn build_at_once(entries: u32) -> Result<Self, String> {
        Self::wrap(setup::build_at_once(entries)?)
    }

    fn wrap((ring, facts): (IoUring, RingFacts)) -> Result<Self, String> {
        // Deferred completions are posted only by an enter that asks for events.
        let mut flags = EnterFlags::GETEVENTS;
        if ring.params().is_feature_no_iowait() {
            // A sleeping ring thread is idle, not a processor waiting for a disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let wake_value = NonNull::from(Box::leak(Box::new([0; 8])));
        let (ring, unsubmitted) = (ManuallyDrop::new(ring), VecDeque::new());
        let polled = ring.params().is_setup_sqpoll();
        let (wake_armed, has_slots) = (false, false);
        let fixed = ManuallyDrop::new(FixedBuffers::default());
        Ok(Self {
            ring,
            facts,
            flags,
            polled,
            wake_value,
            wake_armed,
            unsubmitted,
            fixed,
            has_slots,
        })
    }

    pub(super) fn facts(&self) -> &RingFacts {
        &self.facts
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// What wakes the kernel thread that polls, if there is one and it sleeps.
    fn wake_up(&mut self) -> EnterFlags {
        if !self.polled {
            return EnterFlags::empty();
        }
        // The new tail must be out before the look at the flag: the kernel thread announces its
        // sleep, then looks at the tail once more.
        fence(Ordering::SeqCst);
        match self.ring.submission().need_wakeup() {
            true => EnterFlags::SQ_WAKEUP,
            false => EnterFlags::empty(),
        }
    }

    /// Makes room for registered buffers, once.
    fn make_slots(&mut self) -> io::Result<()> {
        if !self.has_slots {
            self.ring.submitter().register_buffers_sparse(u32::from(SLOTS))?;
            self.has_slots = true;
        }
        Ok(())
    }

    fn register_one(&mut self, offer: &Arc<Offer>) -> Result<(), String> {
        let mut done = Vec::new();
        for (slot, range) in self.fixed.plan(offer)? {
            let start = offer.arena().start().as_ptr().wrapping_add(range.start);
            if let Err(error) = self.lock_slot(slot, start, range.len()) {
                // All of an arena or nothing: a part would only take from what others may lock.
                done.into_iter().for_each(|slot| self.unregister(slot));
                return Err(explain_registration(&error, offer.arena().len()));
            }
            self.fixed.fill(offer, (slot, range));
            done.push(slot);
        }
        Ok(())
    }

    /// Fills a slot. A cache that was closed just now, or a ring, may still have its memory locked.
    fn lock_slot(&self, slot: u16, start: *mut u8, len: usize) -> io::Result<()> {
        let first = self.set_slot(slot, start, len);
        let bytes = self.fixed.bytes() + len as u64;
        setup::with_memory_to_come(bytes, first, || self.set_slot(slot, start, len))
    }

    fn unregister(&mut self, slot: u16) {
        // The kernel refuses this only for a slot that does not exist. If it did, the arena would
        // have to stay, so the extent would too.
        if self.set_slot(slot, std::ptr::null_mut(), 0).is_ok() {
            self.fixed.clear(slot);
        }
    }

    fn set_slot(&self, slot: u16, start: *mut u8, len: usize) -> io::Result<()> {
        let buffer = libc::iovec { iov_base: start.cast(), iov_len: len };
        let (slot, submitter) = (u32::from(slot), self.ring.submitter());
        // SAFETY: the bytes are those of an arena that `fixed` keeps until the slot is emptied or
        // the ring is closed, and for ever if the ring is leaked; or none.
        unsafe { submitter.register_buffers_update(slot, &[buffer], None) }.map(drop)
    }

    fn queued(&mut self) -> u32 {
        u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX)
    }

    fn push_entry(&mut self, entry: squeue::Entry, token: u64) -> bool {
        let entry = entry.user_data(token);
        // SAFETY: the entry names the wake value, which lives as long as the ring (leaked with it),
        // or memory and a file of a flight, which the table keeps until its completion (`push`).
        let pushed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        if pushed {
            self.unsubmitted.push_back(token);
        }
        pushed
    }
}

impl Kernel for Ring {
    fn entries(&self) -> u32 {
        self.facts.entries
    }

    fn register(&mut self, offers: &[Arc<Offer>]) -> Result<(), String> {
        self.make_slots().map_err(|error| {
            format!("the kernel gives its rings no slots for registered buffers: {error}")
        })?;
        for slot in self.fixed.outdated(offers) {
            self.unregister(slot);
        }
        let outcomes: Vec<_> = offers.iter().map(|offer| self.register_one(offer)).collect();
        outcomes.into_iter().collect()
    }

    fn polls_completions(&self) -> bool {
        self.ring.params().is_setup_iopoll()
    }

    fn registered_bytes(&self) -> u64 {
        self.fixed.bytes()
    }

    fn push(&mut self, token: u64, flight: &mut Flight) -> bool {
        let descriptor = Fd(flight.descriptor());
        let piece = flight.transfer.next();
        let slot = self.fixed.find(flight, &piece);
        flight.registered = slot.is_some() && flight.transfer.action() != Action::Sync;
        let entry = match (flight.transfer.action(), slot) {
            (Action::Read, slot) => {
                let (start, len) = (read_address(flight.buffer.as_mut(), &piece), length(&piece));
                match slot {
                    Some(slot) => opcode::ReadFixed::new(descriptor, start, len, slot)
                        .offset(piece.offset)
                        .build(),
                    None => opcode::Read::new(descriptor, start, len).offset(piece.offset).build(),
                }
            }
            (action @ (Action::Write | Action::WriteThrough), slot) => {
                let (start, len) = (write_address(flight.buffer.as_ref(), &piece), length(&piece));
                let flags = if action == Action::Write { 0 } else { libc::RWF_DSYNC };
                match slot {
                    Some(slot) => opcode::WriteFixed::new(descriptor, start, len, slot)
                        .offset(piece.offset)
                        .rw_flags(flags)
                        .build(),
                    None => opcode::Write::new(descriptor, start, len)
                        .offset(piece.offset)
                        .rw_flags(flags)
                        .build(),
                }
            }
            (Action::Sync, _) => opcode::Fsync::new(descriptor).flags(FsyncFlags::DATASYNC).build(),
        };
        // What could not go on at once must not be tried at once again: the workers wait for it.
        let entry = match flight.transfer.is_retry() {
            true => entry.flags(squeue::Flags::ASYNC),
            false => entry,
        };
        self.push_entry(entry, token)
    }

    fn arm_wake(&mut self, event: &Event) {
        if self.wake_armed {
            return;
        }
        let (start, len) = (self.wake_value.as_ptr().cast::<u8>(), 8);
        let entry = opcode::Read::new(Fd(event.descriptor().as_raw_fd()), start, len).build();
        self.wake_armed = self.push_entry(entry, WAKE_TOKEN);
    }

    fn wake_fired(&mut self) {
        self.wake_armed = false;
    }

    fn is_wake_armed(&self) -> bool {
        self.wake_armed
    }

    fn enter(&mut self, completions: u32, timeout: Option<Duration>) -> io::Result<()> {
        let queued = self.queued();
        let base = self.flags | self.wake_up();
        let outcome = match timeout {
            // SAFETY: no argument structure; the entries name memory that the table owns.
            None => unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(
                    queued,
                    completions,
                    base.bits(),
                    None,
                )
            },
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timespec);
                let flags = base | EnterFlags::EXT_ARG;
                let submitter = self.ring.submitter();
                // SAFETY: the argument structure and the time in it outlive the call; the entries
                // name memory that the table owns.
                unsafe { submitter.enter(queued, completions, flags.bits(), Some(&arguments)) }
            }
        };
        let left = usize::try_from(self.queued()).unwrap_or(usize::MAX);
        while left < self.unsubmitted.len() {
            self.unsubmitted.pop_front();
        }
        outcome.map(drop)
    }

    fn reap(&mut self, reaped: &mut Vec<Reaped>, most: usize) -> bool {
        let completions = self.ring.completion();
        let none_lost = completions.overflow() == 0;
        reaped.extend(completions.take(most).map(|completion| Reaped {
            token: completion.user_data(),
            result: completion.result(),
        }));
        none_lost
    }

    fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    fn needs_enters(&self) -> bool {
        !self.polled
    }

    fn has_overflow(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    fn take_unsubmitted(&mut self) -> VecDeque<u64> {
        let unsubmitted = std::mem::take(&mut self.unsubmitted);
        // A kernel thread that polls may still take entries from the queue.
        if self.polled { VecDeque::new() } else { unsubmitted }
    }

    fn release(mut self) {
        assert!(!self.wake_armed, "a ring is released only after its last completion");
        // At once: what goes with the ring stays locked until the kernel's own teardown.
        self.fixed.outdated(&[]).into_iter().for_each(|slot| self.unregister(slot));
        drop(ManuallyDrop::into_inner(self.ring));
        drop(ManuallyDrop::into_inner(self.fixed));
        // SAFETY: the pointer came from `Box::leak` in `build`, nothing else owns it, and no read
        // into it is queued or in flight any more.
        drop(unsafe { Box::from_raw(self.wake_value.as_ptr()) });
    }
}

fn explain_registration(error: &io::Error, bytes: usize) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => format!(
            "the memory lock limit does not allow {bytes} bytes to be registered (ENOMEM); raise \
             it (`ulimit -l`, LimitMEMLOCK) above the cache's size"
        ),
        _ => format!("the kernel refuses to register {bytes} bytes: {error}"),
    }
}

fn length(piece: &Piece) -> u32 {
    u32::try_from(piece.len).expect("a piece is at most TRANSFER_BYTES_MAX long")
}

fn read_address(buffer: Option<&mut IoBuffer>, piece: &Piece) -> *mut u8 {
    let bytes = buffer.and_then(IoBuffer::as_mut_slice);
    let bytes = bytes.expect("a checked read has a writable buffer");
    bytes[piece.start..piece.start + piece.len].as_mut_ptr()
}

fn write_address(buffer: Option<&IoBuffer>, piece: &Piece) -> *const u8 {
    let bytes = buffer.expect("a write has a buffer").as_slice();
    bytes[piece.start..piece.start + piece.len].as_ptr()
}

/// A new eventfd. It blocks when empty: a ring reads it, and waits for a value as one waits for
/// data; a nonblocking one would answer EAGAIN.
#[cfg_attr(loom, expect(dead_code, reason = "the models have an event of their own"))]
pub(super) fn event_descriptor() -> io::Result<File> {
    // SAFETY: the call takes no pointers.
    let descriptor: RawFd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, open, and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}
