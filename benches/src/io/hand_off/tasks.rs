//! Callers that are tasks: each awaits one read after the other, half of them on each of two
//! executors. A cell for each holds its waker, and nothing else is between task and server.

use std::{
    mem,
    sync::Mutex,
    task::{Poll, Waker},
};

use hdrhistogram::Histogram;

use super::{Arrivals, Desk, lock};
use crate::{
    Outcome,
    clock::Stopwatch,
    io::job::{Job, Latencies},
    tasks,
};

/// One for each task.
pub(super) struct Cells(Vec<Mutex<Cell>>);

/// What one task waits for.
#[derive(Default)]
struct Cell {
    arrived: bool,
    waker: Option<Waker>,
}

impl Cells {
    pub(super) fn new(tasks: usize) -> Self {
        Self((0..tasks).map(|_| Mutex::default()).collect())
    }
}

impl Arrivals for Cells {
    /// All are told before any is woken, so that a thread that wakes up finds them all.
    fn tell(&self, done: &[usize]) {
        let told = done.iter().filter_map(|slot| {
            let mut cell = lock(&self.0[*slot]);
            cell.arrived = true;
            cell.waker.take()
        });
        told.collect::<Vec<_>>().into_iter().for_each(Waker::wake);
    }

    fn end(&self) {
        for cell in &self.0 {
            let waker = lock(cell).waker.take();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// Runs a task for each slot.
pub(super) fn call(desk: &Desk<Cells>, job: &Job) -> Outcome<Histogram<u64>> {
    let (offsets, latencies) = (&job.offsets(), &Latencies::new());
    let task = |slot| async move {
        while let Some(offset) = offsets.next() {
            let started = Stopwatch::start();
            desk.want([(slot, offset)]);
            arrival(desk, slot).await?;
            latencies.record(slot, started)?;
        }
        Ok(())
    };
    tasks::run((0..job.depth).map(task).collect())?;
    latencies.all()
}

async fn arrival(desk: &Desk<Cells>, slot: usize) -> Outcome<()> {
    std::future::poll_fn(|context| {
        let mut cell = lock(&desk.arrivals.0[slot]);
        if mem::take(&mut cell.arrived) {
            return Poll::Ready(Ok(()));
        }
        // Who ends says so first and looks for wakers afterwards, under this lock.
        if desk.has_ended() {
            return Poll::Ready(Err("the server has ended".into()));
        }
        cell.waker = Some(context.waker().clone());
        Poll::Pending
    })
    .await
}
