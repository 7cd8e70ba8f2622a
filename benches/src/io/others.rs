//! Other ways to read a file from Rust: tokio-uring, `tokio::fs`, and a memory map.
//!
//! tokio-uring reads past the system's cache as we do. The other two cannot (`tokio::fs` offers no
//! aligned buffers), so the cache is emptied before and after them and no block is read twice:
//! what they show is the device through the cache, without its help.

use std::{
    fs::{self, File},
    hint::black_box,
    io::SeekFrom,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
};

use hdrhistogram::Histogram;
use memmap2::{Advice as MapAdvice, Mmap};
use rustix::fs::{Advice, OFlags, fadvise};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_uring::buf::BoundedBuf;

use super::job::{Access, Contender, Job, Latencies, Measured, Meter, Offsets, histogram};
use crate::{Outcome, clock::Stopwatch};

/// Alignment of direct reads.
const BLOCK_BYTES: usize = 4096;

/// As many tasks as the depth on tokio-uring's current-thread runtime.
#[derive(Debug)]
pub(super) struct TokioUring;

impl Contender for TokioUring {
    fn name(&self) -> &str {
        "tokio-uring"
    }

    fn takes(&self, _: &Job) -> bool {
        true
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        let job = job.clone();
        tokio_uring::builder().entries(256).start(async move {
            let mut open = tokio_uring::fs::OpenOptions::new();
            let flags = OFlags::DIRECT.bits().cast_signed();
            open.read(true).write(job.writes()).custom_flags(flags);
            let file = std::rc::Rc::new(open.open(&job.path).await?);
            let meter = Meter::start();
            let offsets = std::rc::Rc::new(job.offsets());
            let latencies = std::rc::Rc::new(Latencies::new());
            let running: Vec<_> = (0..job.depth)
                .map(|_| {
                    let (file, offsets) = (file.clone(), offsets.clone());
                    let (latencies, len, write) =
                        (latencies.clone(), job.block_bytes, job.writes());
                    tokio_uring::spawn(async move {
                        transfer(&file, &offsets, &latencies, len, write).await
                    })
                })
                .collect();
            for task in running {
                task.await??;
            }
            let latencies = latencies.all()?;
            Ok(meter.finish(&latencies))
        })
    }
}

/// One task of tokio-uring.
async fn transfer(
    file: &tokio_uring::fs::File,
    offsets: &Offsets,
    latencies: &Latencies,
    len: usize,
    write: bool,
) -> Outcome<()> {
    let mut memory = vec![0_u8; len + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    while let Some(offset) = offsets.next() {
        let started = Stopwatch::start();
        let window = memory.slice(start..start + len);
        let (result, window) = match write {
            true => file.write_at(window, offset).submit().await,
            false => file.read_at(window, offset).await,
        };
        if result? != len {
            return Err(format!("a transfer at {offset} was short").into());
        }
        memory = window.into_inner();
        latencies.record(0, started)?; // all on one thread
    }
    Ok(())
}

/// As many tasks as the depth on tokio's multi-thread runtime, each with a file of its own.
#[derive(Debug)]
pub(super) struct TokioFs;

impl Contender for TokioFs {
    fn name(&self) -> &str {
        "tokio::fs (through the cache)"
    }

    fn takes(&self, job: &Job) -> bool {
        job.access == Access::RandomRead
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
        evict(&job.path)?;
        let meter = Meter::start();
        let shared = std::sync::Arc::new((job.offsets().once(), Latencies::new()));
        runtime.block_on(async {
            let mut running = Vec::new();
            for number in 0..job.depth {
                let file = File::open(&job.path)?;
                fadvise(&file, 0, None, Advice::Random)?;
                let reads = seek_and_read(file.into(), shared.clone(), number, job.block_bytes);
                running.push(tokio::spawn(reads));
            }
            for task in running {
                task.await??;
            }
            Outcome::Ok(())
        })?;
        let latencies = shared.1.all()?;
        let measured = meter.finish(&latencies);
        evict(&job.path)?;
        Ok(measured)
    }
}

async fn seek_and_read(
    mut file: tokio::fs::File,
    shared: std::sync::Arc<(Offsets, Latencies)>,
    number: usize,
    len: usize,
) -> Outcome<()> {
    let (offsets, latencies) = &*shared;
    let mut buffer = vec![0_u8; len];
    while let Some(offset) = offsets.next() {
        let started = Stopwatch::start();
        file.seek(SeekFrom::Start(offset)).await?;
        file.read_exact(&mut buffer).await?;
        latencies.record(number, started)?;
    }
    Ok(())
}

/// As many threads as the depth, each touching one page after the other.
#[derive(Debug)]
pub(super) struct MemoryMap;

impl Contender for MemoryMap {
    fn name(&self) -> &str {
        "mmap, a thread per read (cache)"
    }

    fn takes(&self, job: &Job) -> bool {
        job.access == Access::RandomRead
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        evict(&job.path)?;
        let file = File::open(&job.path)?;
        // SAFETY: the file lies in this run's own directory, and nobody changes it meanwhile.
        let map = unsafe { Mmap::map(&file) }?;
        map.advise(MapAdvice::Random)?;
        let meter = Meter::start();
        let offsets = job.offsets().once();
        let mut latencies = histogram();
        let of_threads: Vec<_> = thread::scope(|scope| {
            let threads = (0..job.depth).map(|_| scope.spawn(|| touch(&map, &offsets)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for of_thread in of_threads {
            latencies.add(of_thread.map_err(|_| "a thread of the map panicked")??)?;
        }
        let measured = meter.finish(&latencies);
        drop(map);
        evict(&job.path)?;
        Ok(measured)
    }
}

fn touch(map: &Mmap, offsets: &Offsets) -> Outcome<Histogram<u64>> {
    let mut latencies = histogram();
    while let Some(offset) = offsets.next() {
        let started = Stopwatch::start();
        black_box(map[usize::try_from(offset)?]);
        latencies.record(started.nanoseconds())?;
    }
    Ok(latencies)
}

/// Drops what the system's cache holds of a file.
fn evict(path: &Path) -> Outcome<()> {
    let file = fs::OpenOptions::new().read(true).custom_flags(0).open(path)?;
    file.sync_data()?; // dirty pages are not dropped
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}
