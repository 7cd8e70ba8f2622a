//! The plain file with an index, read and updated through `tokio::fs`.
//!
//! Every reader or writer is a task with a file of its own, since a seek moves the place of all who
//! share one; tokio hands each call to a thread that blocks. Loads and scans are those of the plain
//! file. As little is promised: no checksums, and a crash may leave half an update.

use std::{
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hdrhistogram::Histogram;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    runtime::Runtime,
};

use super::{
    flat::{self, Flat},
    rival::{DIGITS, Kind, Rival, Shape, Wait},
};
use crate::{Outcome, clock::Stopwatch};

pub(super) const KIND: Kind = Kind {
    name: "tokio::fs + index",
    persists: true,
    open: Some(|path, shape| Ok(Box::new(open(path, shape)?))),
};

struct TokioFs {
    flat: Arc<Flat>,
    runtime: Runtime,
    path: PathBuf,
    shape: Shape,
    /// For calls that are not from workers.
    file: Mutex<Handle>,
}

fn open(path: &Path, shape: &Shape) -> Outcome<TokioFs> {
    let flat = Arc::new(flat::open(path, shape, false)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let path = path.join("vectors");
    let file = Mutex::new(runtime.block_on(Handle::open(&path, &flat, shape))?);
    Ok(TokioFs { flat, runtime, path, shape: *shape, file })
}

/// One file, and a buffer for a vector.
struct Handle {
    file: File,
    flat: Arc<Flat>,
    shape: Shape,
    vector: Vec<u8>,
}

impl Handle {
    async fn open(path: &Path, flat: &Arc<Flat>, shape: &Shape) -> Outcome<Self> {
        let file = File::options().read(true).write(true).open(path).await?;
        Ok(Self { file, flat: Arc::clone(flat), shape: *shape, vector: Vec::new() })
    }

    async fn seek(&mut self, id: u64) -> Outcome<()> {
        let slot = self.flat.slot(id)?.ok_or("a stored vector is missing")?;
        let start = slot * self.shape.vector_bytes() as u64;
        self.file.seek(SeekFrom::Start(start)).await?;
        Ok(())
    }

    async fn get(&mut self, id: u64) -> Outcome<()> {
        self.seek(id).await?;
        self.vector.resize(self.shape.vector_bytes(), 0);
        self.file.read_exact(&mut self.vector).await?;
        self.shape.touch(id, &self.vector)
    }

    async fn put(&mut self, id: u64, vector: &[f32]) -> Outcome<()> {
        self.seek(id).await?;
        self.file.write_all(bytemuck::cast_slice(vector)).await?;
        // tokio's files hold writes back.
        self.file.flush().await?;
        Ok(self.file.sync_data().await?)
    }
}

/// What a worker does.
#[derive(Clone, Copy)]
enum Work {
    Get,
    Put,
}

impl TokioFs {
    fn by_tasks(&self, plans: &[Vec<u64>], work: Work) -> Outcome<Histogram<u64>> {
        self.runtime.block_on(async {
            let mut running = Vec::new();
            for plan in plans {
                let handle = Handle::open(&self.path, &self.flat, &self.shape).await?;
                running.push(tokio::spawn(task(handle, plan.clone(), work)));
            }
            let mut latencies = Histogram::new(DIGITS)?;
            for task in running {
                latencies.add(task.await??)?;
            }
            Ok(latencies)
        })
    }
}

async fn task(mut handle: Handle, plan: Vec<u64>, work: Work) -> Outcome<Histogram<u64>> {
    let mut latencies = Histogram::new(DIGITS)?;
    let mut vector = Vec::new();
    for id in plan {
        if let Work::Put = work {
            vector.clear();
            handle.shape.make(id, &mut vector);
        }
        let watch = Stopwatch::start();
        match work {
            Work::Get => handle.get(id).await?,
            Work::Put => handle.put(id, &vector).await?,
        }
        latencies.record(watch.nanoseconds())?;
    }
    Ok(latencies)
}

impl Rival for TokioFs {
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()> {
        self.flat.put(ids, vectors, wait)
    }

    fn get(&self, id: u64) -> Outcome<()> {
        self.get_many(&[id])
    }

    fn get_many(&self, ids: &[u64]) -> Outcome<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.runtime.block_on(async {
            for id in ids {
                file.get(*id).await?;
            }
            Ok(())
        })
    }

    fn scan(&self) -> Outcome<u64> {
        self.flat.scan()
    }

    fn sync(&self) -> Outcome<()> {
        self.flat.sync()
    }

    fn get_by_workers(&self, plans: &[Vec<u64>]) -> Outcome<Histogram<u64>> {
        self.by_tasks(plans, Work::Get)
    }

    fn put_by_workers(&self, plans: &[Vec<u64>], _: &Shape) -> Outcome<Histogram<u64>> {
        self.by_tasks(plans, Work::Put)
    }
}
