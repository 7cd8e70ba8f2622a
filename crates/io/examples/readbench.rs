//! Measures reads through the disk trait: random or sequential, at a depth, on an existing file.
//!
//! ```text
//! cargo run --release -p nephrite-io --example readbench -- FILE [key=value ...]
//!   backend=auto|uring|positional  depth=32  block=4096  count=100000  rings=1
//!   pattern=random|sequential      write=no|yes (yes overwrites the file's contents)
//!   caller=completions|task|tasks|driven|driven-tasks
//!   memory=blocks|arena|registered
//! ```
//!
//! `depth` operations are kept in flight, by their own completions (each one submits the next), or
//! by one task that submits as many again as have arrived, or by as many tasks on one thread;
//! `driven` is the same on a ring of that thread. Prints one line with operations per
//! second, bandwidth, mean latency, and what the disk counted. Under `perf stat -e
//! task-clock,context-switches,raw_syscalls:sys_enter` the counts per operation show what a busy
//! machine cannot hide.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use nephrite_io::memory::{AlignedBuf, Arena};
use nephrite_io::{
    BackendChoice, Completed, Disk, DiskOptions, FileHandle, IoBuffer, OpenOptions, Operation,
    Request, block_on, drive, open_disk, read, wake_later, write,
};

type Failure = Box<dyn std::error::Error>;

#[derive(Debug)]
struct Arguments {
    file: PathBuf,
    backend: BackendChoice,
    depth: u64,
    block: usize,
    count: u64,
    sequential: bool,
    rings: u32,
    write: bool,
    caller: String,
    memory: String,
}

fn main() -> Result<(), Failure> {
    let arguments = arguments()?;
    let directory = arguments.file.parent().ok_or("the file has no directory")?;
    let options = DiskOptions::new().backend(arguments.backend).ring_threads(arguments.rings);
    let disk = open_disk(options.registered_buffers(arguments.memory == "registered"), directory)?;
    println!("{}", disk.report());
    let open = match arguments.write {
        true => OpenOptions::read_write(),
        false => OpenOptions::read_only(),
    };
    let file = block_on(disk.open(&arguments.file, open))?;
    let blocks = block_on(disk.file_len(&file))? / arguments.block as u64;
    if blocks == 0 {
        return Err("the file is smaller than a block".into());
    }
    measure(&arguments, disk, file, blocks)
}

fn measure(
    arguments: &Arguments,
    disk: Arc<dyn Disk>,
    file: FileHandle,
    blocks: u64,
) -> Result<(), Failure> {
    let (finished, outcomes) = mpsc::channel();
    let run = Arc::new(Run {
        disk,
        file,
        blocks,
        block: arguments.block as u64,
        sequential: arguments.sequential,
        write: arguments.write,
        count: arguments.count,
        issued: AtomicU64::new(0),
        finished,
        arrivals: ["task", "driven"].contains(&&*arguments.caller).then(Mutex::default),
    });
    let buffers = buffers(arguments, &*run.disk)?;
    let before = run.disk.stats();
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    let start = Instant::now();
    match &*arguments.caller {
        "tasks" => block_on(tasks(&run, buffers))?,
        "driven-tasks" => drive(&*run.disk, tasks(&run, buffers))?,
        "driven" => drive(&*run.disk, one_task(&run, buffers))?,
        "task" => block_on(one_task(&run, buffers))?,
        _ => {
            let first = buffers.into_iter().map(|buffer| run.request(buffer));
            run.disk.submit(first.collect());
            for outcome in outcomes.iter().take(usize::try_from(arguments.count)?) {
                outcome?;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let after = run.disk.stats();
    let rate = arguments.count as f64 / seconds;
    println!(
        "{rate:.0} operations/s, {:.1} MB/s, mean latency {:.1} us, {:.2} operations per enter, \
         {:.2} per wake of the ring thread, direct {}",
        rate * arguments.block as f64 / 1e6,
        1e6 * arguments.depth as f64 / rate,
        arguments.count as f64 / (after.ring_enters - before.ring_enters).max(1) as f64,
        arguments.count as f64 / (after.ring_wakes - before.ring_wakes).max(1) as f64,
        run.file.is_direct(),
    );
    Ok(())
}

/// As many as operations are kept in flight.
fn buffers(arguments: &Arguments, disk: &dyn Disk) -> Result<Vec<IoBuffer>, Failure> {
    let count = usize::try_from(arguments.depth.min(arguments.count))?;
    let block = arguments.block;
    if arguments.memory == "blocks" {
        return (0..count).map(|_| Ok(AlignedBuf::zeroed(block)?.into())).collect();
    }
    let arena = Arena::new(count * block)?;
    disk.register_arena(&arena);
    // SAFETY: the windows do not overlap, each is made once, and no slice of the arena is taken.
    let window = |index| IoBuffer::Region(unsafe { arena.region(index * block, block) });
    Ok((0..count).map(window).collect())
}

/// Completions that the task has not seen yet, and whom to wake.
type Arrivals = Mutex<(Vec<Completed>, Option<Waker>)>;

fn lock(arrivals: &Arrivals) -> MutexGuard<'_, (Vec<Completed>, Option<Waker>)> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes all that has arrived and submits as many again, until all have arrived.
async fn one_task(run: &Arc<Run>, buffers: Vec<IoBuffer>) -> Result<(), Failure> {
    let arrivals = run.arrivals.as_ref().ok_or("completions go elsewhere")?;
    run.disk.submit(buffers.into_iter().map(|buffer| run.request(buffer)).collect());
    let mut missing = run.count;
    while 0 < missing {
        let arrived = std::future::poll_fn(|context| {
            let mut arrivals = lock(arrivals);
            if arrivals.0.is_empty() {
                arrivals.1 = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(std::mem::take(&mut arrivals.0))
        });
        let arrived = arrived.await;
        missing -= arrived.len() as u64;
        let mut batch = Vec::with_capacity(arrived.len());
        for completed in arrived {
            completed.result?;
            let buffer = completed.buffer.ok_or("a transfer gives its buffer back")?;
            if run.issued.load(Ordering::Relaxed) < run.count {
                batch.push(run.request(buffer));
            }
        }
        run.disk.submit(batch);
    }
    Ok(())
}

/// The tasks of one thread that are to be polled, and whom to wake when there are some.
#[derive(Default)]
struct Ready(Mutex<(Vec<usize>, Option<Waker>)>);

struct TaskWaker(usize, Arc<Ready>);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.1.0.lock().unwrap_or_else(PoisonError::into_inner);
        ready.0.push(self.0);
        let waker = ready.1.take();
        drop(ready);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// A task per buffer, each with one operation in flight, on the thread that polls.
async fn tasks(run: &Arc<Run>, buffers: Vec<IoBuffer>) -> Result<(), Failure> {
    let ready = Arc::new(Ready::default());
    let wakers: Vec<Waker> = (0..buffers.len())
        .map(|index| Arc::new(TaskWaker(index, Arc::clone(&ready))).into())
        .collect();
    let mut tasks: Vec<_> = buffers
        .into_iter()
        .map(|mut buffer| {
            Box::pin(async move {
                while let Some(offset) = run.next_offset() {
                    buffer = match run.write {
                        true => write(&*run.disk, &run.file, offset, buffer).await?,
                        false => read(&*run.disk, &run.file, offset, buffer).await?,
                    };
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    wakers.iter().for_each(Waker::wake_by_ref);
    let mut left = tasks.len();
    std::future::poll_fn(|context| {
        let mut locked = ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !locked.0.is_empty() {
            let runnable = std::mem::take(&mut locked.0);
            drop(locked);
            for index in runnable {
                let mut context = Context::from_waker(&wakers[index]);
                if let Poll::Ready(outcome) = tasks[index].as_mut().poll(&mut context) {
                    outcome?;
                    left -= 1;
                }
            }
            locked = ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        }
        if left == 0 {
            return Poll::Ready(Ok(()));
        }
        locked.1 = Some(context.waker().clone());
        Poll::Pending
    })
    .await
}

/// One measurement: what every completion needs to submit the next operation.
struct Run {
    disk: Arc<dyn Disk>,
    file: FileHandle,
    blocks: u64,
    block: u64,
    sequential: bool,
    write: bool,
    count: u64,
    issued: AtomicU64,
    finished: mpsc::Sender<Result<(), nephrite_io::IoError>>,
    /// Where a task fetches completions, if one does.
    arrivals: Option<Arrivals>,
}

impl Run {
    fn offset(&self, index: u64) -> u64 {
        let block = if self.sequential { index } else { scatter(index) } % self.blocks;
        block * self.block
    }

    fn next_offset(&self) -> Option<u64> {
        let index = self.issued.fetch_add(1, Ordering::Relaxed);
        (index < self.count).then(|| self.offset(index))
    }

    fn request(self: &Arc<Self>, buffer: IoBuffer) -> Request {
        let offset = self.offset(self.issued.fetch_add(1, Ordering::Relaxed));
        let operation = match self.write {
            true => Operation::Write { offset, buffer },
            false => Operation::Read { offset, buffer },
        };
        let run = Arc::clone(self);
        let on_complete = Box::new(move |completed: Completed| run.next(completed));
        Request { file: self.file.clone(), operation, on_complete }
    }

    fn next(self: Arc<Self>, completed: Completed) {
        if let Some(arrivals) = &self.arrivals {
            let mut arrivals = lock(arrivals);
            arrivals.0.push(completed);
            let waker = arrivals.1.take();
            drop(arrivals);
            return waker.into_iter().for_each(wake_later);
        }
        if let Some(buffer) = completed.buffer
            && self.issued.load(Ordering::Relaxed) < self.count
        {
            self.disk.submit(vec![self.request(buffer)]);
        }
        // The receiver is gone once it has counted enough outcomes.
        let _ = self.finished.send(completed.result);
    }
}

/// A fixed pseudo-random order (the finaliser of splitmix64).
fn scatter(index: u64) -> u64 {
    let mut mixed = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

fn arguments() -> Result<Arguments, Failure> {
    let mut words = std::env::args().skip(1);
    let file = words.next().ok_or("usage: readbench FILE [key=value ...]")?;
    let mut arguments = Arguments {
        file: std::path::absolute(file)?,
        backend: BackendChoice::Auto,
        depth: 32,
        block: 4096,
        count: 100_000,
        sequential: false,
        rings: 1,
        write: false,
        caller: "completions".to_owned(),
        memory: "blocks".to_owned(),
    };
    for word in words {
        let (key, value) = word.split_once('=').ok_or("arguments are key=value")?;
        match key {
            "backend" => arguments.backend = BackendChoice::from_str(value)?,
            "depth" => arguments.depth = value.parse()?,
            "block" => arguments.block = value.parse()?,
            "count" => arguments.count = value.parse()?,
            "pattern" => arguments.sequential = value == "sequential",
            "rings" => arguments.rings = value.parse()?,
            "caller" => arguments.caller = value.to_owned(),
            "memory" => arguments.memory = value.to_owned(),
            "write" => arguments.write = value == "yes",
            _ => return Err(format!("`{key}` is no argument").into()),
        }
    }
    Ok(arguments)
}
