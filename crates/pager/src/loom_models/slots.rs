//! Two readers of a slot while its record goes and another one comes.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::check;
use crate::frame::{FrameNo, Owner};
use crate::frame_array::FrameArray;
use crate::slots::Slots;

const SIZE: usize = 0;

/// One block of one slot, and what stands for the bytes of the slot.
struct Model {
    slots: Slots,
    bytes: UnsafeCell<u64>,
}

// SAFETY: what the model is there to check: loom fails it when two accesses to `bytes` conflict.
unsafe impl Sync for Model {}
// SAFETY: plain data.
unsafe impl Send for Model {}

fn record(number: u32) -> Owner {
    Owner::new(1, number)
}

impl Model {
    fn holding(number: u32) -> Self {
        let slots = Slots::new(1);
        slots.make(0, FrameArray::on_heap(1));
        slots.settle(0, 0);
        slots.spread(SIZE, &[0]);
        let model = Self { slots, bytes: UnsafeCell::new(0) };
        model.fill(number);
        model
    }

    fn slot(&self) -> FrameNo {
        self.slots.all().next().expect("one slot").0
    }

    /// Writes a record into the slot, which the caller owns.
    fn fill(&self, number: u32) {
        self.slots.fill(self.slot(), record(number), || {
            // SAFETY: the slot is loading and ours.
            self.bytes.with_mut(|bytes| unsafe { *bytes = u64::from(number) });
        });
    }

    fn replace(&self, number: u32) {
        if self.slots.entry(self.slot()).state.claim().is_some() {
            self.fill(number);
        }
    }

    fn read(&self, number: u32) {
        let Some(pinned) = self.slots.pin(SIZE, record(number)) else { return };
        if pinned.is_ok() {
            // SAFETY: pinned, resident, our record.
            let seen = self.bytes.with(|bytes| unsafe { *bytes });
            assert_eq!(seen, u64::from(number), "a foreign record");
        }
        let (Ok(slot) | Err(slot)) = pinned;
        self.slots.entry(slot).state.unpin().expect("nobody waits");
    }
}

#[test]
fn a_reader_sees_the_record_it_asked_for_or_none() {
    check(|| {
        let model = Arc::new(Model::holding(7));
        let readers: Vec<_> = [7, 8]
            .into_iter()
            .map(|number| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.read(number))
            })
            .collect();

        model.replace(8);

        for reader in readers {
            reader.join().unwrap();
        }
        let state = &model.slots.entry(model.slot()).state;
        assert_eq!(state.peek().pins(), 0);
    });
}

#[test]
fn a_block_is_emptied_only_when_nobody_reads_it() {
    check(|| {
        let model = Arc::new(Model::holding(7));
        let other = Arc::clone(&model);
        let reader = thread::spawn(move || other.read(7));

        if model.slots.empty(0) {
            // The extent is given to frames, and written.
            // SAFETY: nobody reads a slot that is free.
            model.bytes.with_mut(|bytes| unsafe { *bytes = 0 });
        }

        reader.join().unwrap();
    });
}
