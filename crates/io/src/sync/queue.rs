//! A bounded queue for the model checker, which cannot look into `crossbeam-queue`.
//!
//! It promises less than the original, so what is correct over it is correct over the original: a
//! pushed value is seen only through the Release and Acquire of its own slot, `is_empty` overlooks
//! a push that has not ended, a push may be refused while a pop has not ended, and values come out
//! in no particular order. No lock is shared between a push and a look at another slot, since that
//! would order what the original does not.

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const FULL: u8 = 1;
const BUSY: u8 = 2;

pub(crate) struct ArrayQueue<T> {
    slots: Vec<Slot<T>>,
}

struct Slot<T> {
    state: AtomicU8,
    /// Touched by whoever made the state busy, so never waited for.
    value: Mutex<Option<T>>,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let slot = |_| Slot { state: AtomicU8::new(EMPTY), value: Mutex::new(None) };
        Self { slots: (0..capacity).map(slot).collect() }
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let Some(slot) = self.slots.iter().find(|slot| slot.occupy(EMPTY)) else {
            return Err(value);
        };
        *crate::sync::lock(&slot.value) = Some(value);
        slot.state.store(FULL, Ordering::Release);
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let slot = self.slots.iter().find(|slot| slot.occupy(FULL))?;
        let value = crate::sync::lock(&slot.value).take();
        slot.state.store(EMPTY, Ordering::Release);
        value
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.state.load(Ordering::Acquire) != FULL)
    }
}

impl<T> Slot<T> {
    fn occupy(&self, from: u8) -> bool {
        self.state.compare_exchange(from, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}
