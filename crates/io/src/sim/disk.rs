//! [`SimDisk`]: the [`Disk`] of a simulated machine.
//!
//! Nothing happens by itself: whoever drives the simulation calls [`SimDisk::step`], and
//! completions are called from there. A disk with [`SimOptions::immediate`] drives itself inside
//! each call instead, for code that only knows how to wait.
//!
//! Guarantee: with the same seed, options and sequence of calls everything happens in the same
//! order with the same outcome. submitted = delivered + orphaned + in flight, and after a crash
//! nothing in flight is ever told.
//! Tested in `tests/it/sim*`, one named test for each fault.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::crash::CrashState;
use super::fault::FaultPlan;
use super::image::Image;
use super::machine::{
    Changes, Machine, MachineOptions, Metadata, SharedMachine, SimClock, SimFile, Stepped, Work,
    lock,
};
use super::options::SimOptions;
use super::random::SimRandom;
use super::storage::Storage;
use super::trace::TraceEvent;
use crate::completion::oneshot;
use crate::direct::DirectIo;
use crate::disk::{DirectoryEntry, Disk, FileLock, IoFuture};
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::file::{FileHandle, OpenOptions};
use crate::report::{BackendChoice, BackendReport};
use crate::request::Request;
use crate::stats::{Counters, IoStats};
use crate::ticket::Ticket;

/// See the module documentation. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    machine: SharedMachine,
    counters: Arc<Counters>,
    closed: AtomicBool,
    direct: Option<u32>,
    write_through: bool,
    immediate: bool,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        Self::with_image(options, Image::new())
    }

    /// A disk that holds an image, all of it durable.
    #[must_use]
    pub fn with_image(options: SimOptions, image: Image) -> Self {
        let storage = Storage::new(image, options.capacity);
        let machine = Machine::new(
            storage,
            MachineOptions {
                clock: options.clock,
                random: SimRandom::new(options.seed),
                faults: options.faults,
                keep_events: options.keep_events,
                latency_max: options.latency_max,
                crash_at: options.crash_after,
            },
        );
        Self {
            shared: Arc::new(Shared {
                machine: Arc::new(Mutex::new(machine)),
                counters: Arc::default(),
                closed: AtomicBool::new(false),
                direct: options.direct,
                write_through: options.write_through,
                immediate: options.immediate,
            }),
        }
    }

    /// Another disk of the same machine, as another process or a later open has it: what was
    /// written and not synced is still there to be read.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let Shared { machine, direct, write_through, immediate, .. } = &*self.shared;
        Self {
            shared: Arc::new(Shared {
                machine: Arc::clone(machine),
                counters: Arc::default(),
                closed: AtomicBool::new(false),
                direct: *direct,
                write_through: *write_through,
                immediate: *immediate,
            }),
        }
    }

    pub(super) fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        lock(&self.shared.machine)
    }

    /// Serves the system call that is due first, moving the clock to its time, and calls the
    /// completion of a request that ended with it.
    pub fn step(&self) -> Stepped {
        let (stepped, tell) = self.machine().step();
        if let Some(tell) = tell {
            tell();
        }
        let wakers = self.machine().take_idle_wakers();
        wakers.into_iter().for_each(Waker::wake);
        stepped
    }

    /// Serves everything, including what completions submit.
    pub fn run_until_idle(&self) {
        while self.step() == Stepped::Served {}
    }

    /// Runs a future, serving calls whenever it waits. None when it still waits although nothing
    /// is in flight, or when the machine has crashed.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return Some(value);
            }
            if self.step() != Stepped::Served {
                return None;
            }
        }
    }

    /// When the next call is due; none when nothing is in flight or the machine has crashed.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.machine().next_due()
    }

    /// The machine's clock.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.machine().clock.clone()
    }

    /// Replaces what is to go wrong from now on.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.machine().faults = plan;
    }

    /// System calls served so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// Those of them that can matter to a crash: writes, syncs, and changes of names and lengths.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.machine().changes
    }

    /// Calls that were made to go wrong so far.
    #[must_use]
    pub fn faults_struck(&self) -> u64 {
        self.machine().faults_struck
    }

    /// Whether a sync of a directory has failed and forgotten names of files. File systems do not
    /// survive that: they refuse further changes until the machine was off. A process may go on
    /// for a while; another one must not be started on this machine.
    #[must_use]
    pub fn has_lost_names(&self) -> bool {
        self.machine().storage.names_lost
    }

    /// Whether the machine has crashed.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.machine().crashed
    }

    /// Stops the machine, at once or where it has stopped already, and says what may be left.
    /// Nothing in flight is ever told of its end.
    #[must_use]
    pub fn crash(&self) -> CrashState {
        let mut machine = self.machine();
        let state = machine.crash_state();
        let abandoned = machine.abandon();
        drop(machine);
        drop(abandoned);
        state
    }

    /// What a crash now might leave; the machine goes on.
    #[must_use]
    pub fn crash_state(&self) -> CrashState {
        self.machine().crash_state()
    }

    /// Everything as processes see it now, durable or not.
    #[must_use]
    pub fn visible_image(&self) -> Image {
        self.machine().storage.live.clone()
    }

    /// The hash of everything that happened.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.machine().trace.hash()
    }

    /// Mixes a number into the hash: what a scheduler chose, what a caller saw.
    pub fn note(&self, number: u64) {
        self.machine().trace.note(number);
    }

    /// What happened, if the options said to keep it.
    #[must_use]
    pub fn events(&self) -> Vec<TraceEvent> {
        self.machine().trace.events()
    }

    /// Serves all that is in flight, unless a call further up does so already.
    fn drive(&self) {
        if !self.shared.immediate {
            return;
        }
        let mut machine = self.machine();
        if std::mem::replace(&mut machine.driving, true) {
            return;
        }
        loop {
            let (stepped, tell) = machine.step();
            if stepped != Stepped::Served {
                machine.driving = false;
                let wakers = machine.take_idle_wakers();
                drop(machine);
                wakers.into_iter().for_each(Waker::wake);
                return;
            }
            if let Some(tell) = tell {
                drop(machine);
                tell();
                machine = self.machine();
            }
        }
    }

    fn is_closed(&self) -> bool {
        // Acquire pairs with the Release in `shutdown`.
        self.shared.closed.load(Ordering::Acquire)
    }

    fn metadata<T: Send + 'static>(
        &self,
        operation: IoOperation,
        path: &Path,
        changes: Changes,
        len: u64,
        call: impl FnOnce(&mut Machine, &Path) -> Result<T, IoError> + Send + 'static,
    ) -> IoFuture<T> {
        let path: PathBuf = path.to_owned();
        if self.is_closed() {
            let error = IoError::closed(operation, &path);
            return Box::pin(async move { Err(error) });
        }
        let (sender, receiver) = oneshot();
        let place = path.clone();
        let run = Box::new(move |machine: &mut Machine, error: Option<std::io::Error>| {
            let result = match error {
                Some(source) => Err(IoError::new(operation, &place, source)),
                None => call(machine, &place),
            };
            let outcome = match &result {
                Ok(_) => Ok(0),
                Err(error) => Err(format!("{:?}", error.kind())),
            };
            // Who asked may have lost interest.
            let tell: super::machine::Tell = Box::new(move || drop(sender.send(result)));
            (outcome, tell)
        });
        let mut machine = self.machine();
        let covered = machine.storage.sequence();
        let metadata = Metadata { operation, path: path.clone(), len, changes, covered, run };
        machine.enqueue(Work::Metadata(metadata));
        drop(machine);
        self.drive();
        Box::pin(async move {
            let lost = || Err(IoError::closed(operation, &path));
            receiver.await.unwrap_or_else(lost)
        })
    }

    fn direct_of(&self, options: OpenOptions) -> Option<DirectIo> {
        let alignment = self.shared.direct.filter(|_| options.prefers_direct())?;
        Some(DirectIo { offset_alignment: alignment, memory_alignment: alignment })
    }
}

fn failed(operation: IoOperation, path: &Path) -> impl Fn(std::io::Error) -> IoError {
    move |source| IoError::new(operation, path, source)
}

impl Disk for SimDisk {
    fn submit(&self, batch: Vec<Request>) {
        let counters = &self.shared.counters;
        counters.submitted.add(batch.len() as u64);
        for request in batch {
            if self.is_closed() {
                Ticket::reject(request, counters, |operation, file| {
                    IoError::closed(operation, file.path())
                });
            } else if let Some(accepted) = Ticket::accept(request, counters) {
                let mut machine = self.machine();
                assert_eq!(
                    accepted.ticket.file.sim().machine,
                    machine.identity,
                    "a file belongs to the machine that opened it"
                );
                let covered = machine.storage.sequence();
                let counters = Arc::clone(counters);
                machine.enqueue(Work::Transfer { accepted, counters, covered });
            }
        }
        self.drive();
    }

    fn open(&self, path: &Path, options: OpenOptions) -> IoFuture<FileHandle> {
        let direct = self.direct_of(options);
        let through = self.shared.write_through;
        let changes = if options.creates() { Changes::IfMissing } else { Changes::Never };
        self.metadata(IoOperation::Open, path, changes, 0, move |machine, path| {
            let opened = machine.storage.open(path, options.creates(), options.must_be_new());
            let node = opened.map_err(failed(IoOperation::Open, path))?;
            let (token, machine) = (machine.storage.handle(node), machine.identity);
            let file = SimFile { node, machine, _token: token };
            Ok(FileHandle::simulated(file, path, options, direct, through && direct.is_some()))
        })
    }

    fn file_len(&self, file: &FileHandle) -> IoFuture<u64> {
        let handle = file.clone();
        let operation = IoOperation::Length;
        self.metadata(operation, file.path(), Changes::Never, 0, move |machine, path| {
            let content = machine.storage.content(handle.sim().node);
            Ok(content.map_err(failed(operation, path))?.len())
        })
    }

    fn set_len(&self, file: &FileHandle, len: u64) -> IoFuture<()> {
        let handle = file.clone();
        let operation = IoOperation::SetLength;
        self.metadata(operation, file.path(), Changes::Always, len, move |machine, path| {
            handle.check_writable(operation)?;
            let changed = machine.storage.set_len(handle.sim().node, len);
            changed.map_err(failed(operation, path))
        })
    }

    fn list_dir(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>> {
        let operation = IoOperation::ListDirectory;
        self.metadata(operation, path, Changes::Never, 0, move |machine, path| {
            let storage = &machine.storage;
            let directory = storage.directory(path).map_err(failed(operation, path))?;
            let entries = storage.live.entries(directory).into_iter().flatten();
            let entries = entries.map(|(name, node)| {
                let content = storage.live.content(*node);
                DirectoryEntry {
                    name: name.clone(),
                    is_directory: content.is_none(),
                    bytes: content.map_or(0, |content| content.len()),
                }
            });
            let mut entries: Vec<_> = entries.collect();
            // In no order that anyone may rely on.
            for at in (1..entries.len()).rev() {
                entries.swap(at, machine.random.index(at + 1));
            }
            Ok(entries)
        })
    }

    fn create_dir(&self, path: &Path) -> IoFuture<()> {
        let operation = IoOperation::CreateDirectory;
        self.metadata(operation, path, Changes::IfMissing, 0, move |machine, path| {
            machine.storage.create_dir(path).map_err(failed(operation, path))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        let to = to.to_owned();
        let operation = IoOperation::Rename;
        self.metadata(operation, from, Changes::Always, 0, move |machine, from| {
            machine.storage.rename(from, &to).map_err(failed(operation, from))
        })
    }

    fn remove_file(&self, path: &Path) -> IoFuture<()> {
        let operation = IoOperation::RemoveFile;
        self.metadata(operation, path, Changes::Always, 0, move |machine, path| {
            machine.storage.remove(path).map_err(failed(operation, path))
        })
    }

    fn sync_dir(&self, path: &Path) -> IoFuture<()> {
        let covered = self.machine().storage.sequence();
        let operation = IoOperation::SyncDirectory;
        self.metadata(operation, path, Changes::Always, 0, move |machine, path| {
            let node = machine.storage.directory(path).map_err(failed(operation, path))?;
            machine.storage.sync(node, covered);
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> IoFuture<FileLock> {
        let operation = IoOperation::Lock;
        self.metadata(operation, path, Changes::IfMissing, 0, move |machine, path| {
            let opened = machine.storage.open(path, true, false);
            let node = opened.map_err(failed(operation, path))?;
            let Some(token) = machine.storage.lock(node) else {
                let reason = "another process, or this one, has locked it";
                return Err(IoError::refused(operation, path, IoErrorKind::Locked, reason));
            };
            Ok(FileLock::simulated(path, token))
        })
    }

    /// Known at once: a look at the room changes nothing, and no schedule.
    fn free_bytes(&self, _directory: &Path) -> IoFuture<Option<u64>> {
        Box::pin(std::future::ready(Ok(self.free())))
    }

    fn report(&self) -> BackendReport {
        let through = self.shared.write_through;
        BackendReport {
            caller_rings: 0,
            caller_refusal: None,
            polling_refusal: None,
            completions_polled: false,
            completion_refusal: None,
            device_polls: None,
            requested: BackendChoice::Simulated,
            chosen: BackendChoice::Simulated,
            reason: "the machine is simulated".to_owned(),
            degraded: None,
            kernel: None,
            ring_flags: Vec::new(),
            ring_entries: 0,
            ring_threads: 0,
            positional_threads: 0,
            direct: self.shared.direct.is_some(),
            alignment: self.shared.direct.unwrap_or(1),
            device: None,
            write_cache: Some(if through { "write through" } else { "write back" }.to_owned()),
            writes_through: through,
            ..BackendReport::default()
        }
    }

    fn stats(&self) -> IoStats {
        self.shared.counters.picture()
    }

    fn shutdown(&self) -> IoFuture<()> {
        // Release pairs with the Acquire in `is_closed`.
        self.shared.closed.store(true, Ordering::Release);
        let machine = Arc::clone(&self.shared.machine);
        Box::pin(std::future::poll_fn(move |context| {
            let mut machine = lock(&machine);
            if machine.is_idle() || machine.crashed {
                return Poll::Ready(Ok(()));
            }
            machine.idle_wakers.push(context.waker().clone());
            Poll::Pending
        }))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimDisk").field("calls", &self.calls()).finish_non_exhaustive()
    }
}
