//! A kernel whose results, order and refusals are written down by the test.
//!
//! Like the real one it holds addresses and descriptors, not owners: what it does to memory that
//! somebody freed too early, it really does. Operations are performed when they complete.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::transfer::Action;
use crate::uring::event::Event;
use crate::uring::flight::Flight;
use crate::uring::intake::Intake;
use crate::uring::kernel::{Kernel, Reaped};
use crate::uring::table::WAKE_TOKEN;

/// What happens to the next operation that completes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// Nothing unusual.
    Perform,
    /// Transfers at most so many bytes.
    Short(usize),
    /// Does nothing and posts this result: a negative errno, usually.
    Post(i32),
    /// Performs, and posts the completion a second time, later.
    PostTwice,
}

/// What the test and the kernel share.
#[derive(Clone)]
pub(super) struct Script {
    intake: Arc<Intake>,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    acts: VecDeque<Act>,
    /// Errnos for the next enters, and whether they consume the queue before they fail.
    refusals: VecDeque<(i32, bool)>,
    /// The errno of all later ones.
    lasting: Option<i32>,
    /// For how long those that might sleep for a limited time might.
    limits: Vec<Duration>,
    held: bool,
    reversed: bool,
    /// How many operations the kernel has.
    taken: usize,
    taken_max: usize,
    enters: usize,
    /// How many operations were handed over, each time when there were any.
    handed_over: Vec<usize>,
    /// Each performed piece: file offset and length, both 0 for a sync.
    pieces: Vec<(u64, usize)>,
}

impl Script {
    pub(super) fn new(intake: Arc<Intake>) -> Self {
        Self { intake, shared: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    pub(super) fn act(&self, acts: impl IntoIterator<Item = Act>) {
        self.state().acts.extend(acts);
    }

    /// Makes the next enter fail, before or after it took what was queued.
    pub(super) fn refuse(&self, number: i32, consuming: bool) {
        self.state().refusals.push_back((number, consuming));
    }

    /// Makes every later enter fail, before it took anything.
    pub(super) fn refuse_for_good(&self, number: i32) {
        self.state().lasting = Some(number);
    }

    /// The limits that enters came with, of those that had one.
    pub(super) fn limits(&self) -> Vec<Duration> {
        self.state().limits.clone()
    }

    /// Completes nothing from now on.
    pub(super) fn hold(&self) {
        self.state().held = true;
    }

    /// Completes again, the last taken first where `reversed`.
    pub(super) fn release(&self, reversed: bool) {
        let mut state = self.state();
        (state.held, state.reversed) = (false, reversed);
        drop(state);
        self.shared.1.notify_all();
        self.intake.wake().event().signal();
    }

    /// Waits until the kernel has this many operations.
    pub(super) fn wait_until_taken(&self, count: usize) {
        let (state, changed) = &*self.shared;
        drop(changed.wait_while(state.lock().unwrap(), |state| state.taken < count).unwrap());
    }

    /// Waits until every refusal that was asked for has been given.
    pub(super) fn wait_until_refused(&self) {
        let (state, changed) = &*self.shared;
        let waiting = |state: &mut State| !state.refusals.is_empty();
        drop(changed.wait_while(state.lock().unwrap(), waiting).unwrap());
    }

    pub(super) fn taken_max(&self) -> usize {
        self.state().taken_max
    }

    pub(super) fn enters(&self) -> usize {
        self.state().enters
    }

    pub(super) fn handed_over(&self) -> Vec<usize> {
        self.state().handed_over.clone()
    }

    pub(super) fn pieces(&self) -> Vec<(u64, usize)> {
        self.state().pieces.clone()
    }
}

pub(super) struct ScriptedKernel {
    entries: u32,
    script: Script,
    queued: VecDeque<Entry>,
    taken: Vec<Entry>,
    late: Vec<Reaped>,
    completed: Vec<Reaped>,
    wake: Armed,
    polls: bool,
}

#[derive(PartialEq, Eq)]
enum Armed {
    No,
    Queued,
    Taken,
}

struct Entry {
    token: u64,
    action: Action,
    descriptor: RawFd,
    /// Where the kernel reads or writes; null for a sync.
    address: *mut u8,
    len: usize,
    offset: u64,
}

// SAFETY: the address is used only while the driver keeps its owner, on the driver's thread.
unsafe impl Send for Entry {}

impl ScriptedKernel {
    pub(super) fn new(entries: u32, script: Script) -> Self {
        let (queued, taken) = (VecDeque::new(), Vec::new());
        let (late, completed) = (Vec::new(), Vec::new());
        Self { entries, script, queued, taken, late, completed, wake: Armed::No, polls: false }
    }

    /// One that completes only inside `enter`, and takes no read of an event.
    pub(super) fn polled(entries: u32, script: Script) -> Self {
        Self { polls: true, ..Self::new(entries, script) }
    }

    /// Takes what is queued.
    fn take(&mut self) {
        if self.wake == Armed::Queued {
            self.wake = Armed::Taken;
        }
        let handed_over = self.queued.len();
        self.taken.extend(self.queued.drain(..));
        let mut state = self.script.state();
        state.handed_over.extend((0 < handed_over).then_some(handed_over));
        state.taken = self.taken.len();
        state.taken_max = state.taken_max.max(self.taken.len());
        drop(state);
        self.script.shared.1.notify_all();
    }

    /// Completes what is taken, unless it is held.
    fn complete(&mut self) {
        let script = self.script.clone();
        let mut state = script.state();
        if state.held {
            return;
        }
        if !self.taken.is_empty() {
            // A late one meets the operations after its own.
            self.completed.append(&mut self.late);
        }
        if state.reversed {
            self.taken.reverse();
        }
        for entry in self.taken.drain(..) {
            let act = state.acts.pop_front().unwrap_or(Act::Perform);
            let reaped = Reaped { token: entry.token, result: entry.perform(act, &mut state) };
            self.completed.push(reaped);
            if matches!(act, Act::PostTwice) {
                self.late.push(reaped);
            }
        }
        state.taken = 0;
    }

    /// Sleeps until the event is signalled; an error when the time was up first.
    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.polls {
            let (state, changed) = &*self.script.shared;
            drop(changed.wait_while(state.lock().unwrap(), |state| state.held).unwrap());
            return Ok(());
        }
        assert!(self.wake == Armed::Taken, "the thread sleeps and nothing can wake it");
        let event = self.script.intake.wake().event();
        let timeout = timeout.map_or(-1, |timeout| i32::try_from(timeout.as_millis()).unwrap());
        let descriptor = event.descriptor().as_raw_fd();
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which lives during the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, timeout) };
        if ready == 0 {
            return Err(io::Error::from_raw_os_error(libc::ETIME));
        }
        let mut value = [0u8; 8];
        // SAFETY: eight writable bytes, as an eventfd wants.
        let count = unsafe { libc::read(descriptor, value.as_mut_ptr().cast(), 8) };
        assert_eq!(count, 8);
        self.completed.push(Reaped { token: WAKE_TOKEN, result: 8 });
        self.wake = Armed::No;
        Ok(())
    }
}

impl Entry {
    fn perform(&self, act: Act, state: &mut State) -> i32 {
        let len = match act {
            Act::Post(result) => return result,
            Act::Short(len) => len.min(self.len),
            Act::Perform | Act::PostTwice => self.len,
        };
        state.pieces.push((self.offset, self.len));
        let offset = i64::try_from(self.offset).unwrap();
        let (descriptor, address) = (self.descriptor, self.address.cast());
        let count = match self.action {
            // SAFETY: the driver keeps the buffer and the file until it has this completion.
            Action::Read => unsafe { libc::pread(descriptor, address, len, offset) },
            Action::Write | Action::WriteThrough => {
                // SAFETY: as above.
                unsafe { libc::pwrite(descriptor, address.cast_const(), len, offset) }
            }
            // SAFETY: the driver keeps the file until it has this completion.
            Action::Sync => unsafe { libc::fdatasync(descriptor) as isize },
        };
        match i32::try_from(count).unwrap() {
            -1 => -io::Error::last_os_error().raw_os_error().unwrap(),
            count => count,
        }
    }
}

impl Kernel for ScriptedKernel {
    fn entries(&self) -> u32 {
        self.entries
    }

    fn polls_completions(&self) -> bool {
        self.polls
    }

    fn push(&mut self, token: u64, flight: &mut Flight) -> bool {
        let (descriptor, piece) = (flight.descriptor(), flight.transfer.next());
        let action = flight.transfer.action();
        let start = match (action, flight.buffer.as_mut()) {
            (Action::Sync, _) => std::ptr::null_mut(),
            (Action::Read, Some(buffer)) => buffer.as_mut_slice().unwrap().as_mut_ptr(),
            (_, Some(buffer)) => buffer.as_slice().as_ptr().cast_mut(),
            (_, None) => panic!("a transfer has a buffer"),
        };
        let queued = self.queued.len() + usize::from(self.wake == Armed::Queued);
        if queued == self.entries as usize {
            return false;
        }
        let address = start.wrapping_add(piece.start);
        let (len, offset) = match action {
            Action::Sync => (0, 0),
            _ => (piece.len, piece.offset),
        };
        self.queued.push_back(Entry { token, action, descriptor, address, len, offset });
        true
    }

    fn arm_wake(&mut self, _event: &Event) {
        assert!(!self.polls, "such a ring takes no read of an event");
        if self.wake == Armed::No {
            self.wake = Armed::Queued;
        }
    }

    fn wake_fired(&mut self) {}

    fn is_wake_armed(&self) -> bool {
        self.wake != Armed::No
    }

    fn enter(&mut self, completions: u32, timeout: Option<Duration>) -> io::Result<()> {
        let mut state = self.script.state();
        state.enters += 1;
        state.limits.extend(timeout);
        let refusal = state.refusals.pop_front().or(state.lasting.map(|number| (number, false)));
        drop(state);
        self.script.shared.1.notify_all();
        if let Some((number, consuming)) = refusal {
            if consuming {
                self.take();
                self.complete();
            }
            return Err(io::Error::from_raw_os_error(number));
        }
        self.take();
        self.complete();
        while self.completed.len() < completions as usize {
            self.sleep(timeout)?;
            self.complete();
        }
        Ok(())
    }

    fn reap(&mut self, reaped: &mut Vec<Reaped>, most: usize) -> bool {
        let most = most.min(self.completed.len());
        reaped.extend(self.completed.drain(..most));
        true
    }

    fn has_completions(&mut self) -> bool {
        !self.completed.is_empty()
    }

    fn has_overflow(&mut self) -> bool {
        false
    }

    fn take_unsubmitted(&mut self) -> VecDeque<u64> {
        self.queued.drain(..).map(|entry| entry.token).collect()
    }

    fn release(self) {
        assert!(self.taken.is_empty() && self.wake == Armed::No, "released too early");
    }
}
