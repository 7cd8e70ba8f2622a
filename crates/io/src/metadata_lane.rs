//! The few threads that run operations on names and lengths, apart from those that move data, so
//! that neither kind waits for the other. A thread that would only wait runs its own ([`at_once`]).
//!
//! [`at_once`]: crate::at_once

use std::path::Path;

use crate::completion::oneshot;
use crate::disk::IoFuture;
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::pool::{Job, Pool, PoolLimits, Refusal};
use crate::threads::works_at_once;

/// Most threads at a time; a directory sync may hold one for as long as a journal commit.
const THREADS_MAX: usize = 4;

/// How many operations may wait for a thread before callers wait.
const QUEUE_MAX: usize = 1024;

#[derive(Clone)]
pub(crate) struct MetadataLane {
    pool: Pool<MetadataJob>,
}

pub(crate) struct MetadataJob(Box<dyn FnOnce() + Send>);

impl Job for MetadataJob {
    fn is_limited(&self) -> bool {
        false
    }

    fn run(self) {
        (self.0)();
    }
}

impl MetadataLane {
    pub(crate) fn new() -> Self {
        let name = "nephrite-meta";
        let limits = PoolLimits { name, threads_max: THREADS_MAX, queue_max: QUEUE_MAX };
        Self { pool: Pool::new(limits) }
    }

    /// Runs a blocking call on a thread of the lane. It runs even if the future is dropped.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        operation: IoOperation,
        path: &Path,
        call: impl FnOnce(&Path) -> Result<T, IoError> + Send + 'static,
    ) -> IoFuture<T> {
        if works_at_once() {
            let outcome = match self.pool.is_closed() {
                true => Err(IoError::closed(operation, path)),
                false => call(path),
            };
            return Box::pin(std::future::ready(outcome));
        }
        let (sender, receiver) = oneshot();
        let owned = path.to_owned();
        let job = MetadataJob(Box::new(move || {
            // Who asked may have lost interest: then the outcome (an open file, a lock) goes here.
            drop(sender.send(call(&owned)));
        }));
        let path = path.to_owned();
        match self.pool.submit(job) {
            Ok(_) => Box::pin(async move {
                receiver.await.unwrap_or_else(|| Err(IoError::closed(operation, &path)))
            }),
            Err((_, refusal)) => {
                let error = refused(operation, &path, refusal);
                Box::pin(async move { Err(error) })
            }
        }
    }

    pub(crate) fn pool(&self) -> &Pool<MetadataJob> {
        &self.pool
    }
}

fn refused(operation: IoOperation, path: &Path, refusal: Refusal) -> IoError {
    match refusal {
        Refusal::Closed => IoError::closed(operation, path),
        Refusal::NoThread(error) => IoError::refused(
            operation,
            path,
            IoErrorKind::Other,
            format!("no I/O thread could be started: {error}"),
        ),
    }
}
