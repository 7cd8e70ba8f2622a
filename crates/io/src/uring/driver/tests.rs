//! The driver's answers to completions that a healthy kernel does not give.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use super::super::wake::Wake;
use super::*;
use crate::completion::{block_on, oneshot};
use crate::error::IoErrorKind;
use crate::file::{FileHandle, OpenOptions};
use crate::memory::AlignedBuf;
use crate::positional::SystemCalls;
use crate::request::{Completed, IoBuffer, Operation};

/// A driver on the test's own thread, whose ring is never entered.
struct Bench {
    driver: Driver,
    file: FileHandle,
    _directory: tempfile::TempDir,
}

type Outcome = Pin<Box<dyn Future<Output = Completed>>>;

/// None where this machine is said to have no rings (see `tests/it/support.rs`).
fn bench() -> Option<Bench> {
    if std::env::var_os("NEPHRITE_TEST_WITHOUT_URING").is_some() {
        println!("\nSKIPPED: no rings");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = open(&directory.path().join("file"));
    file.os().set_len(65_536).unwrap();
    let counters = Arc::new(Counters::default());
    let positional = Positional::new(2, Arc::clone(&counters), Box::new(SystemCalls));
    let context = DriverContext {
        intake: Arc::new(Intake::new(Wake::new().unwrap())),
        counters,
        positional: Arc::new(positional),
        degraded: Arc::default(),
        ends: Arc::new(EndLatch::new()),
        drain_timeout: Duration::from_secs(1),
        offers: Arc::default(),
    };
    let driver = Driver::new(context, Ring::build(32).unwrap());
    Some(Bench { driver, file, _directory: directory })
}

fn open(path: &Path) -> FileHandle {
    FileHandle::open(path, OpenOptions::read_write().create().direct(false)).unwrap()
}

impl Bench {
    /// Puts an operation into the ring. The first one gets index 0, and so on.
    fn issue(&mut self, operation: Operation) -> Outcome {
        let (sender, receiver) = oneshot();
        let on_complete = Box::new(move |completed| drop(sender.send(completed)));
        let request = Request { file: self.file.clone(), operation, on_complete };
        self.driver.backlog[request.operation.class() as usize].push_back(request);
        self.driver.issue();
        Box::pin(async { receiver.await.expect("every request ends") })
    }

    fn read(&mut self, offset: u64) -> Outcome {
        self.issue(Operation::Read { offset, buffer: buffer() })
    }

    fn degraded(&self) -> Option<&String> {
        self.driver.context.degraded.get()
    }
}

fn buffer() -> IoBuffer {
    IoBuffer::Owned(AlignedBuf::zeroed(4096).unwrap())
}

#[test]
fn a_refused_operation_that_a_system_call_performs_degrades_the_disk() {
    let Some(mut bench) = bench() else { return };
    let outcome = bench.read(0);

    bench.driver.complete(0, -libc::EPERM);

    let completed = block_on(outcome);
    assert!(completed.result.is_ok() && completed.buffer.is_some());
    let reason = bench.degraded().expect("the disk is degraded");
    assert!(reason.contains("refuses a read that a system call performs"), "{reason}");
    assert_eq!(bench.driver.budget.in_flight(), 0);
}

#[test]
fn a_refusal_that_a_system_call_shares_is_the_files_own_failure() {
    let Some(mut bench) = bench() else { return };
    let outcome = bench.read(1 << 30);

    bench.driver.complete(0, -libc::EACCES);

    let error = block_on(outcome).result.unwrap_err();
    assert_eq!((error.kind(), bench.degraded()), (IoErrorKind::UnexpectedEof, None));
}

#[test]
fn a_short_completion_is_resumed_in_its_slot() {
    let Some(mut bench) = bench() else { return };
    let outcome = bench.read(0);

    bench.driver.complete(0, 4000);
    bench.driver.issue();
    assert_eq!((bench.driver.table.len(), bench.driver.resumed.len()), (1, 0));
    bench.driver.complete(0, 96);

    assert!(block_on(outcome).result.is_ok());
    assert_eq!(bench.driver.context.counters.short_counts.value(), 1);
}

#[test]
fn completions_of_unknown_tokens_are_counted_and_ignored() {
    let Some(mut bench) = bench() else { return };
    let _outcome = bench.read(0);
    let stale = bench.driver.table.token(0) ^ (1 << 33);

    bench.driver.reaped.push(Reaped { token: stale, result: 4096 });
    bench.driver.tell();

    assert_eq!(bench.driver.context.counters.ring_strays.value(), 1);
    assert_eq!(bench.driver.table.len(), 1);
}

#[test]
fn a_lost_ring_fails_what_the_kernel_has_and_hands_over_the_rest() {
    let Some(mut bench) = bench() else { return };
    let in_kernel = bench.issue(Operation::Write { offset: 0, buffer: buffer() });
    // As if the kernel had consumed this one.
    bench.driver.ring.take_unsubmitted();
    let unseen = bench.read(4096);

    bench.driver.lose("the test says so".to_owned());

    let failed = block_on(in_kernel);
    let error = failed.result.unwrap_err();
    assert!(error.to_string().contains("the test says so"), "{error}");
    assert!(failed.buffer.is_none(), "the kernel may still use it");
    assert!(bench.file.poisoned().is_some());
    assert!(block_on(unseen).result.is_ok());
    assert_eq!(bench.degraded().map(String::as_str), Some("the test says so"));
    assert_eq!(bench.driver.context.counters.leaked.value(), 1);
}

#[test]
fn a_poisoned_file_refuses_writes_that_were_queued_before() {
    let Some(mut bench) = bench() else { return };
    let first = bench.issue(Operation::Sync);
    bench.driver.complete(0, -libc::EIO);

    let second = bench.issue(Operation::Write { offset: 0, buffer: buffer() });

    assert_eq!(block_on(first).result.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(block_on(second).result.unwrap_err().kind(), IoErrorKind::Poisoned);
}
