//! A ring's thread over a kernel that does what a test tells it to.
//!
//! The thread, its intake, wake-up, table and budget are those that ship; only the ring is
//! replaced (see `kernel.rs`), so these tests also run where rings are forbidden. After each
//! scenario the invariant is checked: submitted = delivered + orphaned, nothing stray, nothing
//! overflowed.

mod drops;
mod kernel;
mod polled;
mod results;
mod rounds;
mod silence;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::driver::{Driver, DriverContext};
use super::intake::Intake;
use super::latch::EndLatch;
use super::wake::Wake;
use crate::completion::{block_on, note_orphaned, oneshot};
use crate::file::{FileHandle, OpenOptions};
use crate::memory::AlignedBuf;
use crate::positional::{Positional, SystemCalls};
use crate::request::{Completed, IoBuffer, Operation, Request};
use crate::stats::{Counters, IoStats};
use crate::threads;

use kernel::{Script, ScriptedKernel};

/// What a waiting caller holds.
type Outcome = Pin<Box<dyn Future<Output = Completed> + Send>>;

struct Bench {
    intake: Arc<Intake>,
    counters: Arc<Counters>,
    degraded: Arc<OnceLock<String>>,
    ends: Arc<EndLatch>,
    script: Script,
    thread: JoinHandle<()>,
    file: FileHandle,
    _directory: tempfile::TempDir,
}

const FILE_BYTES: u64 = 1 << 20;

impl Bench {
    fn new(entries: u32) -> Self {
        Self::with_drain_timeout(entries, Duration::from_secs(60))
    }

    /// Over a kernel whose completions are polled for.
    fn polled(entries: u32) -> Self {
        Self::over(entries, Duration::from_secs(60), ScriptedKernel::polled)
    }

    fn with_drain_timeout(entries: u32, drain_timeout: Duration) -> Self {
        Self::over(entries, drain_timeout, ScriptedKernel::new)
    }

    fn over(
        entries: u32,
        drain_timeout: Duration,
        kernel: impl FnOnce(u32, Script) -> ScriptedKernel,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions::read_write().create().direct(false);
        let file = FileHandle::open(&directory.path().join("file"), options).unwrap();
        file.os().set_len(FILE_BYTES).unwrap();
        let context = context(drain_timeout);
        let (intake, counters) = (Arc::clone(&context.intake), Arc::clone(&context.counters));
        let (degraded, ends) = (Arc::clone(&context.degraded), Arc::clone(&context.ends));
        let script = Script::new(Arc::clone(&intake));
        let kernel = kernel(entries, script.clone());
        let driver = Driver::new(context, kernel);
        let thread = threads::spawn("scripted".to_owned(), move || driver.run()).unwrap();
        Self { intake, counters, degraded, ends, script, thread, file, _directory: directory }
    }

    fn submit_batch(&self, operations: Vec<Operation>) -> Vec<Outcome> {
        self.counters.submitted.add(operations.len() as u64);
        let (requests, outcomes): (Vec<_>, _) =
            operations.into_iter().map(|operation| request(&self.file, operation)).unzip();
        let refused = self.intake.submit(requests, &self.counters);
        assert!(refused.is_none(), "the bench is open");
        outcomes
    }

    fn submit(&self, operation: Operation) -> Outcome {
        self.submit_batch(vec![operation]).pop().unwrap()
    }

    fn read(&self, offset: u64, len: usize) -> Outcome {
        self.submit(Operation::Read { offset, buffer: filled(len, 0xEE) })
    }

    fn write(&self, offset: u64, len: usize, byte: u8) -> Outcome {
        self.submit(Operation::Write { offset, buffer: filled(len, byte) })
    }

    /// Ends the thread; gives back how many operations it left behind, and the counters.
    fn end(self) -> (usize, IoStats) {
        self.intake.close(&self.counters);
        let stuck = block_on(self.ends.watch()).unwrap();
        self.thread.join().unwrap();
        let stats = self.counters.picture();
        assert_eq!(stats.submitted, stats.delivered + stats.orphaned, "{stats:?}");
        assert_eq!(stats.ring_overflows, 0, "{stats:?}");
        (stuck, stats)
    }
}

fn context(drain_timeout: Duration) -> DriverContext {
    let counters = Arc::new(Counters::default());
    let positional = Positional::new(2, Arc::clone(&counters), Box::new(SystemCalls));
    DriverContext {
        intake: Arc::new(Intake::new(Wake::new().unwrap())),
        counters,
        positional: Arc::new(positional),
        degraded: Arc::default(),
        ends: Arc::new(EndLatch::new()),
        drain_timeout,
        offers: Arc::default(),
    }
}

fn request(file: &FileHandle, operation: Operation) -> (Request, Outcome) {
    let (sender, receiver) = oneshot();
    let on_complete = Box::new(move |completed| {
        if sender.send(completed).is_err() {
            note_orphaned();
        }
    });
    let outcome = Box::pin(async { receiver.await.expect("every request ends") });
    (Request { file: file.clone(), operation, on_complete }, outcome)
}

fn filled(len: usize, byte: u8) -> IoBuffer {
    let mut buffer = AlignedBuf::zeroed(len).unwrap();
    buffer.fill(byte);
    IoBuffer::Owned(buffer)
}

/// The bytes of a successful read.
fn bytes(outcome: Outcome) -> Vec<u8> {
    let completed = block_on(outcome);
    completed.result.unwrap();
    completed.buffer.unwrap().as_slice().to_vec()
}

/// The errno of a failed operation.
fn errno(outcome: Outcome) -> Option<i32> {
    block_on(outcome).result.unwrap_err().raw_os_error()
}
