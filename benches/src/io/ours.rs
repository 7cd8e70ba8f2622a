//! Our I/O layer through its trait, as six kinds of callers use it.
//!
//! - One task: submits a batch, sleeps, takes all that has arrived, and submits as many again.
//! - Many tasks: each awaits one operation after the other, all on one thread: what `fio`'s one
//!   thread does with its queue. On two threads: the same tasks, half of them on each.
//! - Driven: one task, or many, but transfers run on a ring of their own thread (`drive`).
//! - Completions: each one, on the I/O thread, submits the next operation; no hand-off at all.

use std::{
    mem,
    sync::{Arc, Mutex, mpsc},
    task::{Poll, Waker},
};

use hdrhistogram::Histogram;
use nephrite_io::{
    BackendChoice, Completed, Disk, DiskOptions, FileHandle, IoBuffer, IoError, OpenOptions,
    Operation, Request, block_on, drive,
    memory::{AlignedBuf, HUGE_PAGE_BYTES},
    open_disk, wake_later,
};

use super::job::{Access, Contender, Goal, Job, Latencies, Measured, Meter, Offsets, histogram};
use crate::{Outcome, clock::Stopwatch, tasks};

/// Who submits; see the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    OneTask,
    OneDriven,
    ManyTasks,
    ManyDriven,
    ManyOnTwoThreads,
    Completions,
}

/// Which memory buffers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Pages,
    HugePages,
}

/// A backend of ours with a kind of caller.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) name: &'static str,
    pub(super) backend: BackendChoice,
    pub(super) caller: Caller,
    pub(super) memory: Memory,
}

/// Threads of the positional pool, at most; at least two.
const POSITIONAL_THREADS_MAX: usize = 64;

impl Contender for Ours {
    fn name(&self) -> &str {
        self.name
    }

    fn takes(&self, job: &Job) -> bool {
        // Small reads into huge pages would measure how the system finds huge pages.
        let random = job.access == Access::RandomRead;
        random == (self.memory == Memory::Pages)
            || !random && self.caller == Caller::OneTask && self.backend == BackendChoice::Uring
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        let threads = u32::try_from(job.depth.clamp(2, POSITIONAL_THREADS_MAX))?;
        let options = DiskOptions::new().backend(self.backend).positional_threads(threads);
        let disk = open_disk(options, job.path.parent().ok_or("a file is in a directory")?)?;
        let measured = run_on(&disk, self.caller, self.memory, job);
        block_on(disk.shutdown())?;
        measured
    }

    fn goal(&self, job: &Job) -> Option<Goal> {
        let random = job.access == Access::RandomRead;
        let asked =
            self.backend == BackendChoice::Uring && (random || self.memory == Memory::HugePages);
        // One read at a time crosses to the ring thread and back; it cannot hide that.
        let hands_over = random
            && job.depth == 1
            && !matches!(self.caller, Caller::OneDriven | Caller::ManyDriven);
        let rate_min = if hands_over { 0.8 } else { 0.95 };
        let cpu_max = (random && 32 <= job.depth).then_some(1.3);
        asked.then_some(Goal { rate_min, cpu_max })
    }
}

fn run_on(disk: &Arc<dyn Disk>, caller: Caller, memory: Memory, job: &Job) -> Outcome<Measured> {
    let open = if job.writes() { OpenOptions::read_write() } else { OpenOptions::read_only() };
    let file = block_on(disk.open(&job.path, open))?;
    if !file.is_direct() {
        return Err(format!("{} cannot be opened for direct I/O", job.path.display()).into());
    }
    let buffers: Vec<IoBuffer> =
        (0..job.depth).map(|_| buffer(memory, job)).collect::<Outcome<_>>()?;
    let meter = Meter::start();
    let target = Target { disk: Arc::clone(disk), file, write: job.writes() };
    let latencies = match caller {
        Caller::OneTask => block_on(one_task(&target, job.offsets(), buffers))?,
        Caller::OneDriven => drive(&**disk, one_task(&target, job.offsets(), buffers))?,
        Caller::ManyTasks | Caller::ManyDriven | Caller::ManyOnTwoThreads => {
            many_tasks(&target, &job.offsets(), buffers, caller)?
        }
        Caller::Completions => completions(target, job.offsets(), buffers)?,
    };
    Ok(meter.finish(&latencies))
}

fn buffer(memory: Memory, job: &Job) -> Outcome<IoBuffer> {
    let len = job.block_bytes;
    Ok(match memory {
        Memory::Pages => AlignedBuf::zeroed(len)?.into(),
        Memory::HugePages => {
            let buffer = AlignedBuf::zeroed(len.next_multiple_of(HUGE_PAGE_BYTES))?;
            IoBuffer::Part { buffer, len }
        }
    })
}

/// What operations go to.
#[derive(Clone, Debug)]
struct Target {
    disk: Arc<dyn Disk>,
    file: FileHandle,
    write: bool,
}

impl Target {
    fn operation(&self, offset: u64, buffer: IoBuffer) -> Operation {
        match self.write {
            true => Operation::Write { offset, buffer },
            false => Operation::Read { offset, buffer },
        }
    }

    fn request(
        &self,
        offset: u64,
        buffer: IoBuffer,
        on_complete: impl FnOnce(Completed) + Send + 'static,
    ) -> Request {
        Request {
            file: self.file.clone(),
            operation: self.operation(offset, buffer),
            on_complete: Box::new(on_complete),
        }
    }
}

/// A completion, and when its operation began.
type Arrived = (Stopwatch, Completed);

/// Completions that one task waits for.
#[derive(Debug, Default)]
struct Arrivals {
    inner: Mutex<(Vec<Arrived>, Option<Waker>)>,
}

impl Arrivals {
    fn push(&self, started: Stopwatch, completed: Completed) {
        let waker = {
            let mut inner = self.inner.lock().expect("no holder of this lock panics");
            inner.0.push((started, completed));
            inner.1.take()
        };
        if let Some(waker) = waker {
            wake_later(waker);
        }
    }

    /// All that has arrived, at least one.
    async fn take(&self) -> Vec<Arrived> {
        std::future::poll_fn(|context| {
            let mut inner = self.inner.lock().expect("no holder of this lock panics");
            if inner.0.is_empty() {
                inner.1 = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(mem::take(&mut inner.0))
        })
        .await
    }
}

async fn one_task(
    target: &Target,
    offsets: Offsets,
    mut buffers: Vec<IoBuffer>,
) -> Outcome<Histogram<u64>> {
    let arrivals = Arc::new(Arrivals::default());
    let mut latencies = histogram();
    let mut in_flight = 0;
    loop {
        let started = Stopwatch::start();
        let mut batch = Vec::with_capacity(buffers.len());
        for buffer in buffers.drain(..) {
            let Some(offset) = offsets.next() else { break };
            let arrivals = Arc::clone(&arrivals);
            let arrived = move |completed| arrivals.push(started, completed);
            batch.push(target.request(offset, buffer, arrived));
        }
        in_flight += batch.len();
        if in_flight == 0 {
            return Ok(latencies);
        }
        if !batch.is_empty() {
            target.disk.submit(batch);
        }
        for (started, completed) in arrivals.take().await {
            latencies.record(started.nanoseconds())?;
            completed.result?;
            buffers.push(completed.buffer.ok_or("a transfer gives its buffer back")?);
            in_flight -= 1;
        }
    }
}

fn many_tasks(
    target: &Target,
    offsets: &Offsets,
    buffers: Vec<IoBuffer>,
    caller: Caller,
) -> Outcome<Histogram<u64>> {
    let (disk, file) = (&*target.disk, &target.file);
    let latencies = &Latencies::new();
    let all = buffers.into_iter().enumerate().map(|(number, mut buffer)| async move {
        while let Some(offset) = offsets.next() {
            let started = Stopwatch::start();
            buffer = match target.write {
                true => nephrite_io::write(disk, file, offset, buffer).await?,
                false => nephrite_io::read(disk, file, offset, buffer).await?,
            };
            latencies.record(number, started)?;
        }
        Ok(())
    });
    let all = all.collect();
    match caller {
        Caller::ManyDriven => drive(disk, tasks::together(all))?,
        Caller::ManyOnTwoThreads => tasks::run(all)?,
        _ => block_on(tasks::together(all))?,
    };
    latencies.all()
}

/// What a chain of completions shares.
struct Chain {
    target: Target,
    offsets: Offsets,
    latencies: Mutex<Histogram<u64>>,
    done: mpsc::Sender<Result<(), IoError>>,
}

impl Chain {
    fn step(self: Arc<Self>, buffer: IoBuffer) {
        let Some(offset) = self.offsets.next() else { return self.retire(Ok(())) };
        let started = Stopwatch::start();
        let chain = Arc::clone(&self);
        let next = move |completed| chain.completed(started, completed);
        let request = self.target.request(offset, buffer, next);
        self.target.disk.submit(vec![request]);
    }

    fn completed(self: Arc<Self>, started: Stopwatch, completed: Completed) {
        let mut latencies = self.latencies.lock().expect("no holder of this lock panics");
        let recorded = latencies.record(started.nanoseconds());
        drop(latencies);
        recorded.expect("a histogram that grows takes every value");
        match (completed.result, completed.buffer) {
            (Ok(()), Some(buffer)) => self.step(buffer),
            (result, _) => self.retire(result),
        }
    }

    fn retire(&self, result: Result<(), IoError>) {
        // The receiver has gone only if an earlier error ended the run.
        let _ = self.done.send(result);
    }
}

fn completions(
    target: Target,
    offsets: Offsets,
    buffers: Vec<IoBuffer>,
) -> Outcome<Histogram<u64>> {
    let (done, finished) = mpsc::channel();
    let chain = Arc::new(Chain { target, offsets, latencies: Mutex::new(histogram()), done });
    let depth = buffers.len();
    buffers.into_iter().for_each(|buffer| Arc::clone(&chain).step(buffer));
    for _ in 0..depth {
        finished.recv()??;
    }
    let latencies = chain.latencies.lock().map_err(|_| "a completion panicked")?;
    Ok(latencies.clone())
}
