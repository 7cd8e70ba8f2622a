//! The `io_uring` backend: a few long-lived threads, each with a ring that only it touches.
//!
//! ```text
//! submit -> intake (bounded lanes: reads, writes, syncs) -> backlog -> table + ring -> completion
//!             ^ any thread            | the ring's own thread only                          |
//!             +------------------------ an `on_complete` may submit again <-----------------+
//! ```
//!
//! Guarantees:
//! - The table owns buffer, file and completion of an operation until the kernel's last word on it.
//! - In flight never exceeds the submission entries, and the completion queue is twice as long, so
//!   it cannot overflow.
//! - Reads, writes and syncs have budgets of their own (`budget`): a flush cannot starve reads.
//! - An idle ring's thread sleeps; whoever submits wakes it, unless it is awake (`wake`).
//! - Where the kernel starts to refuse rings (a filter installed later, a sandbox that only lets
//!   them be set up), requests go to the positional threads and the report says so.
//!
//! Does not: link operations. Order (data, then sync) is the caller's, by awaiting.
//! Unsafe code is in `ring.rs` (system calls) only.

mod budget;
mod caller;
mod callers;
mod driver;
mod event;
mod fixed;
mod flight;
mod gate;
mod intake;
mod kernel;
mod latch;
mod notify;
mod patience;
mod polled;
mod ring;
mod setup;
mod table;
mod wake;

#[cfg(test)]
#[cfg(loom)]
mod loom_models;
// Miri cannot poll an eventfd.
#[cfg(test)]
#[cfg(not(any(loom, miri)))]
mod tests;

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::batch::Batch;
use crate::completion::{block_on, oneshot};
use crate::error::IoError;
use crate::file::FileHandle;
use crate::memory::Arena;
use crate::options::DiskOptions;
use crate::positional::Positional;
use crate::priority::take_turns_of;
use crate::request::IoBuffer;
use crate::stats::Counters;
use crate::threads;
use crate::ticket::Ticket;

use caller::CallerCore;
pub(crate) use caller::Hosted;
use callers::Callers;
use driver::{Driver, DriverContext};
use fixed::Offers;
use intake::Intake;
use latch::EndLatch;
use polled::Polled;
use ring::Ring;
use setup::RingFacts;
use wake::Wake;

/// Of a ring's thread on a processor that others want. It works for some microseconds whenever it
/// wakes up, and the device has nothing to do while it waits: so the shortest that there are.
const TURNS: Duration = Duration::from_micros(100);

/// All rings of a disk.
pub(crate) struct Rings {
    shards: Vec<Shard>,
    /// For direct transfers, where completions were to be polled for.
    polled: Option<Polled>,
    next: AtomicUsize,
    degraded: Arc<OnceLock<String>>,
    positional: Arc<Positional>,
    counters: Arc<Counters>,
    ends: Arc<EndLatch>,
    callers: Arc<Callers>,
    offers: Arc<Offers>,
    facts: RingFacts,
}

/// Leave to use rings of the calling thread.
#[derive(Clone)]
pub(crate) struct CallerAccess {
    callers: Arc<Callers>,
}

struct Shard {
    intake: Arc<Intake>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Rings {
    /// Starts the threads and their rings.
    ///
    /// # Errors
    ///
    /// Why there is no ring, with the cure, as a clause.
    pub(crate) fn start(
        options: &DiskOptions,
        directory: &Path,
        counters: &Arc<Counters>,
        positional: &Arc<Positional>,
    ) -> Result<Self, String> {
        let degraded = Arc::new(OnceLock::new());
        let ends = Arc::new(EndLatch::new());
        let offers = Arc::new(Offers::default());
        let context_of = |intake, degraded: &Arc<OnceLock<String>>| DriverContext {
            intake,
            counters: Arc::clone(counters),
            positional: Arc::clone(positional),
            degraded: Arc::clone(degraded),
            ends: Arc::clone(&ends),
            drain_timeout: options.drain_timeout,
            offers: Arc::clone(&offers),
        };
        let kind = options.submission_polling.map_or(RingKind::Plain, RingKind::Submitted);
        let mut shards = Vec::new();
        let mut facts = None;
        for index in 0..options.ring_threads {
            let started = start_shard(index.to_string(), options, kind, |intake| {
                context_of(intake, &degraded)
            });
            match started {
                Ok((shard, shard_facts)) => {
                    shards.push(shard);
                    facts.get_or_insert(shard_facts);
                }
                // Locked memory ran out after the first ring: fewer rings still work.
                Err(_) if !shards.is_empty() => break,
                Err(reason) => return Err(reason),
            }
        }
        let facts = facts.expect("at least one ring was started or an error returned");
        let polled = options.completion_polling.then(|| {
            Polled::start(options, directory, |intake, refusal| context_of(intake, &refusal))
        });
        let callers = Callers::new(options, counters, positional, &degraded, &ends);
        let callers = Arc::new(callers);
        let (positional, counters) = (Arc::clone(positional), Arc::clone(counters));
        let next = AtomicUsize::new(0);
        Ok(Self {
            shards,
            polled,
            next,
            degraded,
            positional,
            counters,
            ends,
            callers,
            offers,
            facts,
        })
    }

    /// Takes in requests that are counted as submitted already.
    pub(crate) fn submit(&self, batch: Batch) {
        let Err(batch) = CallerCore::offer(&self.callers, batch) else { return };
        if self.degraded.get().is_some() {
            self.counters.fallbacks.add(batch.as_slice().len() as u64);
            batch.into_iter().for_each(|request| self.positional.submit(request));
            return;
        }
        let batch = match &self.polled {
            None => batch,
            Some(polled) => self.submit_polled(polled, batch),
        };
        // Relaxed: only spreads batches over rings.
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        self.submit_to(&self.shards[index], batch);
    }

    /// Gives back what is not for the polled ring.
    fn submit_polled(&self, polled: &Polled, batch: Batch) -> Batch {
        let (fitting, rest): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|request| polled.shard_for(request).is_some());
        match polled.shard() {
            Some(shard) => self.submit_to(shard, fitting.into()),
            None => assert!(fitting.is_empty(), "without a polled ring nothing is for one"),
        }
        rest.into()
    }

    /// See [`crate::Disk::read_at_once`].
    pub(crate) fn read_at_once(
        &self,
        file: &FileHandle,
        offset: u64,
        buffer: &mut IoBuffer,
    ) -> bool {
        CallerCore::read_at_once(&self.callers, file, offset, buffer)
    }

    fn submit_to(&self, shard: &Shard, batch: Batch) {
        for request in shard.intake.submit(batch, &self.counters).into_iter().flatten() {
            Ticket::reject(request, &self.counters, |operation, file| {
                IoError::closed(operation, file.path())
            });
        }
    }

    /// Offers an arena to all rings.
    pub(crate) fn register(&self, arena: &Arc<Arena>) {
        self.offers.add(arena);
        // Those who sleep need not be asked by the first request. One who is just going to sleep
        // may overlook this, and then looks before it issues anything.
        self.all().for_each(|shard| shard.intake.rouse(&self.counters));
    }

    /// Bytes that are registered, each ring's counted.
    pub(crate) fn registered_bytes(&self) -> u64 {
        self.offers.bytes()
    }

    /// Why an arena could not be registered, the first time.
    pub(crate) fn registration_refusal(&self) -> Option<String> {
        self.offers.refusal()
    }

    /// Refuses further requests. The future resolves once all threads have ended, to the number of
    /// operations that the kernel never gave back.
    pub(crate) fn close(self: &Arc<Self>) -> impl Future<Output = usize> + Send + 'static {
        self.refuse();
        let (receiver, rings) = (self.ends.watch(), Arc::clone(self));
        async move {
            let stuck = receiver.await.unwrap_or(0);
            rings.join();
            stuck
        }
    }

    /// Refuses further requests and waits a bounded time for the threads.
    pub(crate) fn end_within(&self, timeout: Duration) {
        self.refuse();
        if !threads::is_io_thread() && self.ends.wait(timeout) {
            self.join();
        }
    }

    fn all(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().chain(self.polled.as_ref().and_then(Polled::shard))
    }

    fn refuse(&self) {
        self.all().for_each(|shard| shard.intake.close(&self.counters));
        self.callers.close();
    }

    fn join(&self) {
        for shard in self.all() {
            if let Some(handle) = shard.take_handle() {
                threads::join(handle);
            }
        }
    }

    /// Why requests go to the positional threads, if they do.
    pub(crate) fn degraded(&self) -> Option<String> {
        self.degraded.get().cloned()
    }

    /// Leave to use rings of the calling thread; none when the disk is closed or has lost a ring.
    pub(crate) fn caller_access(&self) -> Option<CallerAccess> {
        let usable = self.degraded.get().is_none() && !self.callers.is_closed();
        usable.then(|| CallerAccess { callers: Arc::clone(&self.callers) })
    }

    /// Why threads have no rings of their own, if building one has failed.
    pub(crate) fn caller_refusal(&self) -> Option<String> {
        self.callers.refusal()
    }

    /// Setup flags by name.
    pub(crate) fn flags(&self) -> Vec<String> {
        self.facts.flags.iter().map(|flag| (*flag).to_owned()).collect()
    }

    /// Why no kernel thread polls for submissions although one was asked for.
    pub(crate) fn polling_refusal(&self) -> Option<String> {
        self.facts.polling_refusal.clone()
    }

    /// Whether completions of direct transfers are polled for.
    pub(crate) fn polls_completions(&self) -> bool {
        self.polled.is_some() && self.completion_refusal().is_none()
    }

    /// Why they are not, although that was asked for.
    pub(crate) fn completion_refusal(&self) -> Option<String> {
        self.polled.as_ref().and_then(Polled::refusal)
    }

    /// Submission entries per ring.
    pub(crate) fn entries(&self) -> u32 {
        self.facts.entries
    }

    /// How many rings there are.
    pub(crate) fn threads(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }
}

impl CallerAccess {
    /// Runs a future to its end, on the thread's own ring if it can have one.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        match CallerCore::of_thread(&self.callers) {
            Some(core) => core.run(future),
            None => {
                self.callers.counters.caller_parks.add(1);
                block_on(future)
            }
        }
    }

    /// A ring for a host that drives it.
    pub(crate) fn host(&self) -> Result<Hosted, String> {
        self.callers.build_for_host().map(Hosted::new)
    }
}

impl Shard {
    fn take_handle(&self) -> Option<JoinHandle<()>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How a ring is set up.
#[derive(Clone, Copy)]
enum RingKind {
    Plain,
    /// A kernel thread polls for submissions, until it has found none for so long.
    Submitted(Duration),
    /// Its own thread polls for completions.
    Polled,
}

/// Starts a thread that builds its own ring, and waits until it has one.
fn start_shard(
    name: String,
    options: &DiskOptions,
    kind: RingKind,
    context: impl FnOnce(Arc<Intake>) -> DriverContext,
) -> Result<(Shard, RingFacts), String> {
    let wake = Wake::new().map_err(|error| setup::explain(&error))?;
    let intake = Arc::new(Intake::new(wake));
    let context = context(Arc::clone(&intake));
    let (sender, receiver) = oneshot();
    let entries = options.ring_entries;
    let handle = threads::spawn(format!("nephrite-ring-{name}"), move || {
        let built = match kind {
            RingKind::Plain => Ring::build(entries),
            RingKind::Submitted(idle) => Ring::build_polled(entries, idle),
            RingKind::Polled => Ring::build_polling(entries),
        };
        match built {
            Ok(ring) => {
                take_turns_of(TURNS);
                let facts = ring.facts().clone();
                let driver = Driver::new(context, ring);
                // The starter waits for this; without it there is nobody to serve.
                if sender.send(Ok(facts)).is_ok() {
                    driver.run();
                }
            }
            Err(reason) => drop(sender.send(Err(reason))),
        }
    });
    let handle =
        handle.map_err(|error| format!("no thread for a ring could be started: {error}"))?;
    match block_on(receiver) {
        Some(Ok(facts)) => Ok((Shard { intake, handle: Mutex::new(Some(handle)) }, facts)),
        Some(Err(reason)) => {
            threads::join(handle);
            Err(reason)
        }
        None => Err("the ring thread ended before it had a ring".to_owned()),
    }
}
