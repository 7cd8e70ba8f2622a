//! Waking a ring's thread, and only when it sleeps.
//!
//! ```text
//! submitter: publish work; fence; state = AWAKE, and if it slept: wake it
//! thread:    state = ASLEEP; fence; look for work; none: sleep; state = AWAKE
//! ```
//!
//! Ordering: publish-then-look on both sides needs a SeqCst fence between a store and a load of
//! different locations; with it, either the thread sees the work or the submitter sees it asleep.
//! Weaker orderings lose a wake-up. The state is only ever exchanged, never stored: of many
//! submitters one pays for the system call, and a late exchange cannot come to stand behind a newer
//! announcement.
//! With something in flight the thread waits in the kernel, on an event that its ring reads. With
//! nothing in flight it parks, which costs less than an event and its read; so it does without a
//! ring (see `driver`, lost rings).
//! Checked by the loom models `intake` and `driver`, with each fence left out as a planted bug.

use std::io;
use std::sync::OnceLock;

use super::event::Event;
use crate::planted::planted;
use crate::sync::{AtomicU8, Ordering, Thread, fence, thread};

const AWAKE: u8 = 0;
const IN_RING: u8 = 1;
const PARKED: u8 = 2;

pub(super) struct Wake {
    state: AtomicU8,
    event: Event,
    thread: OnceLock<Thread>,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let (state, thread) = (AtomicU8::new(AWAKE), OnceLock::new());
        Ok(Self { state, event: Event::new()?, thread })
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    /// After work was published. Whether the thread slept and had to be woken.
    pub(super) fn wake(&self) -> bool {
        if !planted("wake_unfenced") {
            fence(Ordering::SeqCst);
        }
        // Relaxed: the fence orders it after the publication; see above.
        if self.state.load(Ordering::Relaxed) == AWAKE {
            return false;
        }
        match self.state.swap(AWAKE, Ordering::AcqRel) {
            IN_RING => self.event.signal(),
            PARKED => self.thread.get().expect("set before the thread parks").unpark(),
            _ => return false,
        }
        true
    }

    /// For the thread: announces sleep in the ring. It must look for work again after this.
    pub(super) fn announce_ring(&self) {
        self.announce(IN_RING);
    }

    /// For the thread: sleeps without a ring unless `has_work`.
    pub(super) fn park_unless(&self, has_work: impl Fn() -> bool) {
        self.thread.get_or_init(thread::current);
        self.announce(PARKED);
        let has_work = || !planted("park_unchecked") && has_work();
        while !has_work() && self.state.load(Ordering::Acquire) == PARKED {
            thread::park();
        }
        self.awake();
    }

    /// For the thread: takes the announcement back.
    pub(super) fn awake(&self) {
        // Relaxed: a submitter that still sees the old value only wakes in vain.
        self.state.swap(AWAKE, Ordering::Relaxed);
    }

    fn announce(&self, state: u8) {
        // Release: whoever finds the thread parked also finds its handle (Acquire in `wake`). The
        // fence orders it before the look for work.
        self.state.swap(state, Ordering::Release);
        if !planted("announce_unfenced") {
            fence(Ordering::SeqCst);
        }
    }
}
