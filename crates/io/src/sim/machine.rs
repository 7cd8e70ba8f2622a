//! The simulated machine under one or more disks: storage, clock, faults, and the queue of what is
//! in flight.
//!
//! Every operation waits in the queue for a random time, so operations that are in flight together
//! end in any order. When its time has come it runs one system call. For a transfer the result goes
//! into the same `Transfer` that every backend uses, which decides whether the call is repeated.
//! Lock rule: the machine's mutex is a leaf; what tells of an outcome runs outside of it.

mod calls;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::crash::{CrashState, Pending};
use super::fault::{Errno, Fault, FaultPlan};
use super::image::{Change, NodeId};
use super::random::SimRandom;
use super::storage::{Storage, Token};
use super::trace::Trace;
use crate::error::IoOperation;
use crate::stats::Counters;
use crate::ticket::Accepted;
use crate::transfer::Action;

const SECTOR: u64 = 512;

/// Virtual time, which a disk and a scheduler may share. It only moves when somebody moves it.
#[derive(Debug, Clone, Default)]
pub struct SimClock {
    nanos: Arc<AtomicU64>,
}

impl SimClock {
    /// Time since the beginning of the simulation.
    #[must_use]
    pub fn now(&self) -> Duration {
        // Relaxed: a number on its own, moved by the one thread that drives the simulation.
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// Moves time forward to this moment, never back.
    pub fn advance_to(&self, moment: Duration) {
        let nanos = u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_max(nanos, Ordering::Relaxed); // as above
    }
}

/// What stands behind a handle of a simulated file.
#[derive(Debug)]
pub(crate) struct SimFile {
    pub(super) node: NodeId,
    pub(super) machine: u64,
    pub(super) _token: Token,
}

impl SimFile {
    /// Machine and number of the file: the same as long as it is the same file.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.machine, self.node)
    }
}

/// Tells whoever waits; runs without any lock held.
pub(super) type Tell = Box<dyn FnOnce() + Send>;
/// Runs a metadata operation, or fails it with an injected error.
pub(super) type Run =
    Box<dyn FnOnce(&mut Machine, Option<io::Error>) -> (Result<u64, String>, Tell) + Send>;

/// An operation on names or lengths.
pub(super) struct Metadata {
    pub(super) operation: IoOperation,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) changes: Changes,
    /// What was pending when it was asked for.
    pub(super) covered: u64,
    pub(super) run: Run,
}

/// Whether an operation changes what a crash may leave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    Never,
    Always,
    IfMissing,
}

pub(super) enum Work {
    Transfer { accepted: Accepted, counters: Arc<Counters>, covered: u64 },
    Metadata(Metadata),
}

struct InFlight {
    work: Work,
    slowed: bool,
}

/// How one step of a simulation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a driver must decide on each")]
pub enum Stepped {
    /// One system call was served.
    Served,
    /// Nothing is in flight.
    Idle,
    /// The machine has crashed: nothing is served any more.
    Crashed,
}

pub(super) struct Machine {
    pub(super) storage: Storage,
    pub(super) clock: SimClock,
    pub(super) random: SimRandom,
    pub(super) faults: FaultPlan,
    pub(super) trace: Trace,
    pub(super) identity: u64,
    pub(super) latency_max: Duration,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) driving: bool,
    pub(super) calls: u64,
    pub(super) changes: u64,
    pub(super) faults_struck: u64,
    /// Of those who wait until nothing is in flight.
    pub(super) idle_wakers: Vec<Waker>,
    queue: BTreeMap<(Duration, u64, u64), InFlight>,
    queued: u64,
}

pub(super) struct MachineOptions {
    pub(super) clock: SimClock,
    pub(super) random: SimRandom,
    pub(super) faults: FaultPlan,
    pub(super) keep_events: bool,
    pub(super) latency_max: Duration,
    pub(super) crash_at: Option<u64>,
}

impl Machine {
    pub(super) fn new(storage: Storage, options: MachineOptions) -> Self {
        static IDENTITY: AtomicU64 = AtomicU64::new(0);
        let MachineOptions { clock, random, faults, keep_events, latency_max, crash_at } = options;
        Self {
            storage,
            clock,
            random,
            faults,
            trace: Trace::new(keep_events),
            identity: IDENTITY.fetch_add(1, Ordering::Relaxed), // only uniqueness matters
            latency_max,
            crash_at,
            crashed: false,
            driving: false,
            calls: 0,
            changes: 0,
            faults_struck: 0,
            idle_wakers: Vec::new(),
            queue: BTreeMap::new(),
            queued: 0,
        }
    }

    pub(super) fn enqueue(&mut self, work: Work) {
        self.put(InFlight { work, slowed: false }, Duration::ZERO);
    }

    fn put(&mut self, in_flight: InFlight, extra: Duration) {
        let span = u64::try_from(self.latency_max.as_nanos()).unwrap_or(u64::MAX);
        let delay = Duration::from_nanos(self.random.below(span.saturating_add(1).max(1)));
        let due = self.clock.now() + delay + extra;
        let tie = self.random.next_u64();
        self.queued += 1;
        self.queue.insert((due, tie, self.queued), in_flight);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Those to wake, if nothing is in flight any more.
    pub(super) fn take_idle_wakers(&mut self) -> Vec<Waker> {
        if self.is_idle() || self.crashed {
            std::mem::take(&mut self.idle_wakers)
        } else {
            Vec::new()
        }
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        if self.crashed {
            return None;
        }
        self.queue.first_key_value().map(|((due, ..), _)| *due)
    }

    /// Serves the call that is due first. What is returned tells of its end, once unlocked.
    pub(super) fn step(&mut self) -> (Stepped, Option<Tell>) {
        if self.crashed {
            return (Stepped::Crashed, None);
        }
        let Some((key, in_flight)) = self.queue.pop_first() else { return (Stepped::Idle, None) };
        if self.is_change(&in_flight.work) {
            if self.crash_at == Some(self.changes) {
                self.queue.insert(key, in_flight);
                self.crashed = true;
                return (Stepped::Crashed, None);
            }
            self.changes += 1;
        }
        self.clock.advance_to(key.0);
        self.calls += 1;
        (Stepped::Served, self.serve(in_flight))
    }

    fn is_change(&self, work: &Work) -> bool {
        match work {
            Work::Transfer { accepted, .. } => accepted.transfer.action() != Action::Read,
            Work::Metadata(metadata) => match metadata.changes {
                Changes::Never => false,
                Changes::Always => true,
                Changes::IfMissing => self.storage.live.find(&metadata.path).is_none(),
            },
        }
    }

    fn serve(&mut self, in_flight: InFlight) -> Option<Tell> {
        let (operation, path) = in_flight.work.describe();
        let fault = if in_flight.slowed {
            None
        } else {
            self.faults.strike(operation, &path, &mut self.random)
        };
        self.faults_struck += u64::from(fault.is_some());
        if let Some(Fault::Slow(delay)) = fault {
            self.put(InFlight { slowed: true, ..in_flight }, delay);
            return None;
        }
        match in_flight.work {
            Work::Transfer { accepted, counters, covered } => {
                self.transfer(accepted, counters, covered, fault)
            }
            Work::Metadata(metadata) => Some(self.metadata(metadata, fault)),
        }
    }

    fn metadata(&mut self, metadata: Metadata, fault: Option<Fault>) -> Tell {
        let error = match fault {
            // The standard library repeats these calls when a signal came.
            Some(Fault::Error(errno)) if errno != Errno::Interrupted => Some(errno.error()),
            _ => None,
        };
        let error = self.fail_sync_dir(&metadata, fault).or(error);
        let Metadata { operation, path, len, run, .. } = metadata;
        let (outcome, tell) = run(self, error);
        self.record(operation, &path, 0, len, outcome, fault);
        tell
    }

    /// A sync of a directory that fails: each name that it was to cover became durable or never
    /// will.
    fn fail_sync_dir(&mut self, metadata: &Metadata, fault: Option<Fault>) -> Option<io::Error> {
        if metadata.operation != IoOperation::SyncDirectory {
            return None;
        }
        let directory = self.storage.directory(&metadata.path).ok()?;
        let random = &mut self.random;
        let errno = match fault? {
            Fault::Error(Errno::Interrupted) => return None,
            Fault::Error(errno) => {
                self.storage.fail_sync_dir(directory, metadata.covered, || random.chance(1, 2));
                errno
            }
            Fault::SyncForgets => {
                self.storage.fail_sync_dir(directory, metadata.covered, || false);
                Errno::Io
            }
            Fault::SyncKeeps => {
                self.storage.sync(directory, metadata.covered);
                Errno::Io
            }
            _ => return None,
        };
        Some(errno.error())
    }

    /// What a crash now may leave. Writes in flight may have reached the disk as well.
    pub(super) fn crash_state(&self) -> CrashState {
        let mut in_flight: Vec<(u64, Pending)> = Vec::new();
        for ((_, _, number), InFlight { work, .. }) in &self.queue {
            let Work::Transfer { accepted, .. } = work else { continue };
            let Some(buffer) = &accepted.buffer else { continue };
            if matches!(accepted.transfer.action(), Action::Write | Action::WriteThrough) {
                let piece = accepted.transfer.next();
                let bytes = Arc::from(&buffer.as_slice()[piece.start..]);
                let change = Change::Write { offset: piece.offset, bytes };
                let node = accepted.ticket.file.sim().node;
                in_flight.push((*number, Pending { sequence: u64::MAX, node, change }));
            }
        }
        in_flight.sort_by_key(|(number, _)| *number);
        self.storage.crash_state(in_flight.into_iter().map(|(_, pending)| pending).collect())
    }

    /// Everything in flight is given up untold; what it owns goes once the lock is released.
    pub(super) fn abandon(&mut self) -> Vec<Work> {
        self.crashed = true;
        std::mem::take(&mut self.queue).into_values().map(|in_flight| in_flight.work).collect()
    }
}

impl Work {
    fn describe(&self) -> (IoOperation, String) {
        match self {
            Self::Transfer { accepted, .. } => {
                (accepted.transfer.action().operation(), text(accepted.ticket.file.path()))
            }
            Self::Metadata(metadata) => (metadata.operation, text(&metadata.path)),
        }
    }
}

/// A machine that several threads may reach.
pub(super) type SharedMachine = Arc<Mutex<Machine>>;

/// A poisoned lock is a panic of the simulation itself, which its test has seen already.
pub(super) fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same text on every system.
fn text(path: &Path) -> String {
    super::image::names(path).fold(String::new(), |text, name| text + "/" + &name)
}
