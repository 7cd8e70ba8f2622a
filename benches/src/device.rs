//! What the device gives: loops over the I/O trait without an engine above it.
//!
//! A [`Stream`] keeps a fixed number of transfers in flight: each completion, on the I/O thread,
//! submits the next one, so no hand-off between threads is part of the measurement.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use nephrite_io::{
    Completed, Disk, FileHandle, IoBuffer, IoError, OpenOptions, Operation, Request, block_on,
    memory::{AlignedBuf, HUGE_PAGE_BYTES},
};

use crate::{Outcome, clock::Stopwatch};

/// Size of the transfers that reach the sequential bandwidth.
const SEQUENTIAL_BYTES: usize = 1 << 20;
/// Sequential transfers in flight.
const SEQUENTIAL_DEPTH: usize = 8;

/// Transfers that keep `depth` buffers busy.
struct Stream {
    disk: Arc<dyn Disk>,
    file: FileHandle,
    next: AtomicU64,
    total: u64,
    operation: Box<dyn Fn(u64, IoBuffer) -> Operation + Send + Sync>,
    done: mpsc::Sender<Result<(), IoError>>,
}

impl Stream {
    /// Runs all transfers; `operation` makes the one with the given number.
    fn run(
        disk: &Arc<dyn Disk>,
        file: &FileHandle,
        total: u64,
        buffers: Vec<IoBuffer>,
        operation: impl Fn(u64, IoBuffer) -> Operation + Send + Sync + 'static,
    ) -> Outcome<()> {
        let (done, finished) = mpsc::channel();
        let stream = Arc::new(Self {
            disk: Arc::clone(disk),
            file: file.clone(),
            next: AtomicU64::new(0),
            total,
            operation: Box::new(operation),
            done,
        });
        let depth = buffers.len();
        buffers.into_iter().for_each(|buffer| stream.step(buffer));
        for _ in 0..depth {
            finished.recv()??;
        }
        Ok(())
    }

    /// Starts the next transfer with this buffer, or retires it.
    fn step(self: &Arc<Self>, buffer: IoBuffer) {
        let number = self.next.fetch_add(1, Ordering::Relaxed); // only uniqueness matters
        if self.total <= number {
            return self.retire(Ok(()));
        }
        let stream = Arc::clone(self);
        self.disk.submit(vec![Request {
            file: self.file.clone(),
            operation: (self.operation)(number, buffer),
            on_complete: Box::new(move |completed| stream.completed(completed)),
        }]);
    }

    fn completed(self: &Arc<Self>, completed: Completed) {
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

/// Writes `bytes` in order with direct I/O from huge-page buffers and syncs; seconds taken.
pub(crate) fn sequential_write(disk: &Arc<dyn Disk>, path: &Path, bytes: u64) -> Outcome<f64> {
    let file = block_on(disk.open(path, OpenOptions::read_write().create_new()))?;
    let buffers = (0..SEQUENTIAL_DEPTH).map(|_| huge_buffer()).collect::<Outcome<Vec<_>>>()?;
    let watch = Stopwatch::start();
    let step = SEQUENTIAL_BYTES as u64;
    Stream::run(disk, &file, bytes.div_ceil(step), buffers, move |number, buffer| {
        Operation::Write { offset: number * step, buffer }
    })?;
    block_on(nephrite_io::sync(&**disk, &file))?;
    Ok(watch.seconds())
}

/// One mebibyte on a huge page, with bytes that no device finds easy.
fn huge_buffer() -> Outcome<IoBuffer> {
    let mut buffer = AlignedBuf::zeroed(HUGE_PAGE_BYTES)?;
    let mut random = crate::rows::Random::new(3);
    buffer.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.next().to_le_bytes()));
    Ok(IoBuffer::Part { buffer, len: SEQUENTIAL_BYTES })
}

/// Random direct reads of one page each, `depth` in flight; seconds taken.
pub(crate) fn random_read(
    disk: &Arc<dyn Disk>,
    file: &FileHandle,
    page_bytes: usize,
    depth: usize,
    reads: u64,
    seed: u64,
) -> Outcome<f64> {
    let bytes = block_on(disk.file_len(file))?;
    let pages = usize::try_from(bytes)? / page_bytes;
    let buffers = (0..depth).map(|_| Ok(AlignedBuf::zeroed(page_bytes)?.into()));
    let buffers = buffers.collect::<Outcome<Vec<_>>>()?;
    let watch = Stopwatch::start();
    Stream::run(disk, file, reads, buffers, move |number, buffer| {
        let page = crate::rows::Random::new(seed.wrapping_add(number)).below(pages);
        Operation::Read { offset: (page * page_bytes) as u64, buffer }
    })?;
    Ok(watch.seconds())
}

/// Whether the blocks of a log exist before they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogBlocks {
    /// Written once in advance, as the engine's log does it.
    Written,
    /// The file grows with every write.
    Growing,
}

/// One block written and synced at a time, for `seconds`, by plain system calls of this thread;
/// writes per second. Past the system's cache where the blocks exist, as the engine's log is.
pub(crate) fn synced_appends(
    disk: &Arc<dyn Disk>,
    path: &Path,
    blocks: LogBlocks,
    seconds: f64,
) -> Outcome<f64> {
    const BLOCK: u64 = 4096;
    const BLOCKS: u64 = 16_384;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    if let LogBlocks::Written = blocks {
        sequential_write(disk, path, BLOCK * BLOCKS)?;
        #[cfg(target_os = "linux")]
        if disk.report().direct {
            let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
        }
    }
    let file = options.open(path)?;
    let buffer = AlignedBuf::zeroed(4096)?;
    let watch = Stopwatch::start();
    let mut writes = 0;
    while watch.seconds() < seconds {
        let offset = match blocks {
            LogBlocks::Written => writes % BLOCKS * BLOCK,
            LogBlocks::Growing => writes * BLOCK,
        };
        write_at(&file, &buffer, offset)?;
        file.sync_data()?;
        writes += 1;
    }
    Ok(writes as f64 / watch.seconds())
}

#[cfg(unix)]
fn write_at(file: &std::fs::File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &std::fs::File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
    if written < bytes.len() {
        return Err(std::io::ErrorKind::WriteZero.into());
    }
    Ok(())
}
