//! Recording what is read, into a file of its own: `Config::record_trace`.
//!
//! Readers put each read into a buffer of the cache that never makes them wait; a task empties it
//! twenty times a second into blocks of the trace. What the buffer cannot hold meanwhile is dropped
//! and counted in the next block.
//!
//! The trace is complete when the store has been closed. A trace that cannot be written ends; the
//! close of the store then returns the error, and nothing else is harmed.
//! Cancel safety: the task runs to its end. Tested in `tests/it/trace.rs`.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nephrite_format::{
    StoreId,
    trace::{READS_PER_BLOCK, TraceRead, block_offset, decode_header, encode_block, encode_header},
};
use nephrite_io::{Disk, FileHandle, IoBuffer, OpenOptions};
use nephrite_pager::{PageRead, TraceRecorder};

use crate::{core::Core, error::Error, jobs::Reply, log_file::aligned};

/// Reads that are held between two writes: six megabytes.
const READS_HELD: usize = 256 << 10;

/// How often the buffer is emptied.
const INTERVAL: Duration = Duration::from_millis(50);

/// Blocks of one write.
const BLOCKS_AT_ONCE: usize = 64;

/// The trace of one open store.
#[derive(Debug)]
pub(crate) struct Tracing {
    pub(crate) recorder: Arc<TraceRecorder>,
    disk: Arc<dyn Disk>,
    file: FileHandle,
    store: StoreId,
    /// How the trace ended; the close waits for it before it ends the disk.
    pub(crate) ended: Reply<()>,
}

impl Tracing {
    /// Begins a trace, in place of the trace that the file held before; what is no trace is left
    /// alone.
    pub(crate) async fn create(
        disk: &Arc<dyn Disk>,
        path: &Path,
        store: StoreId,
    ) -> Result<Self, Error> {
        let file = disk.open(path, OpenOptions::read_write().create()).await?;
        check_replaceable(disk, &file, path).await?;
        disk.set_len(&file, 0).await?;
        let header = blocks(&[encode_header(store)])?;
        nephrite_io::write(&**disk, &file, 0, header).await?;
        let recorder = Arc::new(TraceRecorder::new(READS_HELD));
        Ok(Self { recorder, disk: Arc::clone(disk), file, store, ended: Reply::default() })
    }

    /// Empties the buffer until the store closes.
    pub(crate) async fn run(self: Arc<Self>, core: Arc<Core>) {
        let outcome = self.record(&core).await;
        self.ended.set(outcome);
    }

    async fn record(&self, core: &Core) -> Result<(), Error> {
        let (mut reads, mut dropped, mut written) = (Vec::new(), 0, 0);
        loop {
            // Asked before the buffer is emptied: what was read before the close is in it.
            let last = core.closing.load(Ordering::Acquire);
            dropped += self.recorder.take(&mut reads);
            let whole = reads.len() - reads.len() % READS_PER_BLOCK;
            let ready = if last { reads.len() } else { whole };
            for part in reads[..ready].chunks(READS_PER_BLOCK * BLOCKS_AT_ONCE) {
                written = self.write(part, &mut dropped, written).await?;
            }
            reads.drain(..ready);
            if last {
                if dropped != 0 {
                    self.write(&[], &mut dropped, written).await?;
                }
                return Ok(nephrite_io::sync(&*self.disk, &self.file).await?);
            }
            core.runtime.sleep(INTERVAL).await;
        }
    }

    /// Writes some blocks behind `written` others; returns how many there are then.
    async fn write(
        &self,
        reads: &[PageRead],
        dropped: &mut u64,
        written: u64,
    ) -> Result<u64, Error> {
        let reads: Vec<TraceRead> = reads.iter().map(stored).collect();
        let (mut encoded, mut index) = (Vec::new(), written);
        let parts = reads.chunks(READS_PER_BLOCK).chain(reads.is_empty().then_some(&[][..]));
        for part in parts {
            let told = u32::try_from(*dropped).unwrap_or(u32::MAX);
            *dropped -= u64::from(told);
            encoded.push(encode_block(self.store, block_offset(index), part, told));
            index += 1;
        }
        let buffer = blocks(&encoded)?;
        nephrite_io::write(&*self.disk, &self.file, block_offset(written), buffer).await?;
        Ok(index)
    }
}

/// Refuses a file that holds something else: a mistyped path must not cost a user's data.
async fn check_replaceable(
    disk: &Arc<dyn Disk>,
    file: &FileHandle,
    path: &Path,
) -> Result<(), Error> {
    let header = block_offset(0);
    let found = match disk.file_len(file).await? {
        0 => return Ok(()),
        len if len < header => None,
        _ => {
            let page = aligned(usize::try_from(header).expect("a header is a few kilobytes"))?;
            Some(nephrite_io::read(&**disk, file, 0, IoBuffer::Owned(page)).await?)
        }
    };
    let name = path.display().to_string();
    match found {
        Some(page) if decode_header(page.as_slice(), &name).is_ok() => Ok(()),
        _ => Err(Error::InvalidConfig {
            field: "record_trace",
            reason: format!("{name} exists and holds no trace; name another file, or remove it"),
        }),
    }
}

fn blocks(encoded: &[Vec<u8>]) -> Result<IoBuffer, Error> {
    let mut buffer = aligned(encoded.iter().map(Vec::len).sum())?;
    let mut rest = &mut *buffer;
    for block in encoded {
        let (place, behind) = rest.split_at_mut(block.len());
        place.copy_from_slice(block);
        rest = behind;
    }
    Ok(IoBuffer::Owned(buffer))
}

fn stored(read: &PageRead) -> TraceRead {
    let PageRead { file, page, start, length, page_units } = *read;
    TraceRead { file, page, start, length, page_units }
}
