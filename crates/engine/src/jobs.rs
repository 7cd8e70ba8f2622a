//! Jobs: what callers ask of the flush task, and how they learn the answer.
//!
//! Guarantees: at most [`JOBS_MAX`] jobs wait, further callers wait for room, so callers that come
//! and go leave no growing queue behind. A flush that waits already is shared by everyone who asks
//! for it. Jobs run in the order in which they came.
//! Cancel safety: a caller only waits for the answer; dropped before its job found room it has
//! asked for nothing, later the job runs all the same.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
};

use event_listener::Event;
use nephrite_format::manifest::DatabaseMeta;

use crate::{
    core::{Core, DatabaseCore, Entry},
    error::Error,
};

/// Most jobs that wait at a time.
const JOBS_MAX: usize = 256;

/// What the flush task is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    Create {
        meta: DatabaseMeta,
        reply: Arc<Reply<Arc<Entry>>>,
    },
    Drop {
        name: String,
        reply: Arc<Reply<()>>,
    },
    Flush {
        database: Arc<DatabaseCore>,
        reply: Arc<Reply<()>>,
    },
    FlushAll {
        reply: Arc<Reply<()>>,
    },
    /// Make room for deletes on a full disk.
    Relieve {
        reply: Arc<Reply<()>>,
    },
    /// Make the reserve whole, so that vectors are taken again.
    Restore {
        reply: Arc<Reply<()>>,
    },
    /// Flush everything and end the engine.
    Close,
}

/// The answer to a job.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    answer: OnceLock<Result<T, Error>>,
    ready: Event,
}

impl<T> Default for Reply<T> {
    fn default() -> Self {
        Self { answer: OnceLock::new(), ready: Event::new() }
    }
}

impl<T: Clone> Reply<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn set(&self, answer: Result<T, Error>) {
        let first = self.answer.set(answer).is_ok();
        assert!(first, "a job is answered once");
        self.ready.notify(usize::MAX);
    }

    pub(crate) async fn wait(&self) -> Result<T, Error> {
        loop {
            let listener = self.ready.listen();
            if let Some(answer) = self.answer.get() {
                return answer.clone();
            }
            listener.await;
        }
    }
}

/// Jobs on their way to the flush task.
#[derive(Debug, Default)]
pub(crate) struct JobQueue {
    jobs: Mutex<Queue>,
    pub(crate) added: Event,
    taken: Event,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl JobQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job once there is room.
    async fn push(&self, mut job: Job) -> Result<(), Error> {
        loop {
            let listener = self.taken.listen();
            match self.try_push(job)? {
                None => return Ok(()),
                Some(refused) => job = refused,
            }
            listener.await;
        }
    }

    /// Adds a job, or gives it back when there is no room. The one that closes always finds room.
    fn try_push(&self, job: Job) -> Result<Option<Job>, Error> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Error::Closed);
        }
        let closes = matches!(job, Job::Close);
        if JOBS_MAX <= queue.jobs.len() && !closes {
            return Ok(Some(job));
        }
        queue.closed = closes;
        queue.jobs.push_back(job);
        drop(queue);
        if closes {
            self.taken.notify(usize::MAX); // who waits for room learns that the queue is closed
        }
        self.added.notify(usize::MAX); // the task may listen twice: see `wait_for_compactions`
        Ok(None)
    }

    /// Jobs that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// The answer that a job of the same kind, still waiting, will get.
    fn waiting(&self, of: impl Fn(&Job) -> Option<Arc<Reply<()>>>) -> Option<Arc<Reply<()>>> {
        self.lock().jobs.iter().find_map(of)
    }

    pub(crate) fn pop(&self) -> Option<Job> {
        let job = self.lock().jobs.pop_front();
        if job.is_some() {
            self.taken.notify(1);
        }
        job
    }

    /// The next job, if it makes a database: such jobs are done together.
    pub(crate) fn pop_create(&self) -> Option<(DatabaseMeta, Arc<Reply<Arc<Entry>>>)> {
        let mut queue = self.lock();
        if !matches!(queue.jobs.front(), Some(Job::Create { .. })) {
            return None;
        }
        let job = queue.jobs.pop_front();
        drop(queue);
        self.taken.notify(1);
        match job {
            Some(Job::Create { meta, reply }) => Some((meta, reply)),
            _ => unreachable!("looked at under the same lock"),
        }
    }
}

impl Core {
    pub(crate) async fn ask_create(&self, meta: DatabaseMeta) -> Result<Arc<Entry>, Error> {
        let reply = Reply::new();
        self.jobs.push(Job::Create { meta, reply: Arc::clone(&reply) }).await?;
        reply.wait().await
    }

    pub(crate) async fn ask_drop(&self, name: String) -> Result<(), Error> {
        let reply = Reply::new();
        self.jobs.push(Job::Drop { name, reply: Arc::clone(&reply) }).await?;
        reply.wait().await
    }

    pub(crate) async fn ask_flush(&self, database: &Arc<DatabaseCore>) -> Result<(), Error> {
        let same = |job: &Job| match job {
            Job::Flush { database: other, reply } if Arc::ptr_eq(other, database) => {
                Some(Arc::clone(reply))
            }
            _ => None,
        };
        let database = Arc::clone(database);
        self.ask_shared(same, |reply| Job::Flush { database, reply }).await
    }

    pub(crate) async fn ask_flush_all(&self) -> Result<(), Error> {
        let same = |job: &Job| match job {
            Job::FlushAll { reply } => Some(Arc::clone(reply)),
            _ => None,
        };
        self.ask_shared(same, |reply| Job::FlushAll { reply }).await
    }

    /// Room for deletes that a full disk refused. Cancel safe, as all jobs.
    pub(crate) async fn ask_relief(&self) -> Result<(), Error> {
        let same = |job: &Job| match job {
            Job::Relieve { reply } => Some(Arc::clone(reply)),
            _ => None,
        };
        self.ask_shared(same, |reply| Job::Relieve { reply }).await
    }

    /// The end of the time in which only deletes are taken, if the disk has the room for that.
    pub(crate) async fn ask_restore(&self) -> Result<(), Error> {
        let same = |job: &Job| match job {
            Job::Restore { reply } => Some(Arc::clone(reply)),
            _ => None,
        };
        self.ask_shared(same, |reply| Job::Restore { reply }).await
    }

    /// The answer to a job; one of the same kind that waits already is shared.
    async fn ask_shared(
        &self,
        same: impl Fn(&Job) -> Option<Arc<Reply<()>>>,
        job: impl FnOnce(Arc<Reply<()>>) -> Job,
    ) -> Result<(), Error> {
        if let Some(reply) = self.jobs.waiting(same) {
            return reply.wait().await;
        }
        let reply = Reply::new();
        self.jobs.push(job(Arc::clone(&reply))).await?;
        reply.wait().await
    }

    /// Closes, or waits for whoever closes already; the outcome is the same for all.
    pub(crate) async fn ask_close(&self) -> Result<(), Error> {
        // A queue that takes no more jobs has the one that closes.
        let _ = self.jobs.try_push(Job::Close);
        self.closed.wait().await
    }

    /// Nobody took the store: it closes by itself.
    pub(crate) fn abandon(&self) {
        self.closing.store(true, Ordering::Release);
        let _ = self.jobs.try_push(Job::Close);
    }
}
