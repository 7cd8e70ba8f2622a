//! Seat: where the committer is kept, and who may take it from there to commit.
//!
//! ```text
//! free --take--> taken (by the log's task, or by a leader) --put--> free
//!                  | a leader whose future is dropped
//!                  v
//!                left: the commit that has begun, which the task goes on with
//! ```
//!
//! A writer that waits for its frame, and whose thread does nothing else meanwhile (see [`led`]),
//! leads when nobody commits: it takes the committer and commits its frame there and then, with all
//! that others staged before. So a lone blocking writer hands nothing to another thread. With
//! others waiting it finds the committer taken and waits for the task, as all writers do.
//!
//! Guarantees: frames are taken from staging only by who has the committer, so they are written in
//! their order, one at a time; a commit that has begun is ended by whoever is left; who puts the
//! committer back tells the task of what it should do.
//! Lock order: the seat, then staging. No wake is lost: the task listens before it tries to take,
//! and who puts the committer back looks for work under the seat's lock, so that it sees the record
//! of every writer that found the committer taken.
//! Tested below, in `tests/it/leading.rs` and by the simulation, whose clients lead now and then.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use nephrite_format::FrameSequence;

use super::{
    Staged, Wal, WalContext,
    committer::{Committer, Work},
    group::CommitGroup,
    staging::Frame,
};
use crate::{
    runtime::{AbortOnPanic, BoxFuture, Runtime},
    together::{either, second_came},
};

/// How long buffered records may wait in memory for company before they are written, and the log
/// must have been quiet before that is noted in it.
const LINGER: Duration = Duration::from_millis(10);

/// Memory that the process may lock at the least for the engine's threads to have rings of their
/// own. Below, the rings that stores cannot do without come first.
const LOCKABLE_MIN: u64 = 1 << 20;

thread_local! {
    /// Whether the future that is being polled may lead.
    static LEADS: Cell<bool> = const { Cell::new(false) };
}

/// Polls a call of this crate so that its writes may lead. For callers that poll it to its end
/// without doing anything else: others wait for a commit that has begun here. Where it is dropped
/// early, the log's task goes on with the commit.
pub async fn led<T>(call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    poll_fn(|context| {
        let _mark = Mark(LEADS.replace(true));
        call.as_mut().poll(context)
    })
    .await
}

/// Whether the future that is being polled is polled by [`led`].
pub(crate) fn may_lead() -> bool {
    LEADS.get()
}

/// The time of one poll; keeps what was before.
struct Mark(bool);

impl Drop for Mark {
    fn drop(&mut self) {
        LEADS.set(self.0);
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Seat {
    wal: Arc<Wal>,
    runtime: Arc<dyn Runtime>,
    /// Whether threads that commit may have rings for it.
    pub(crate) drives: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    place: Place,
    /// The task looks again by itself before long.
    lingers: bool,
}

enum Place {
    Free(Box<Committer>),
    Taken,
    Left(BoxFuture<Box<Committer>>),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Free(_) => "Free",
            Self::Taken => "Taken",
            Self::Left(_) => "Left",
        })
    }
}

impl Seat {
    pub(super) fn new(wal: Arc<Wal>, context: &WalContext, committer: Committer) -> Arc<Self> {
        let lockable = context.disk.report().limits.locked_memory_bytes;
        let place = Place::Free(Box::new(committer));
        Arc::new(Self {
            wal,
            runtime: Arc::clone(&context.runtime),
            drives: LOCKABLE_MIN <= lockable.unwrap_or(u64::MAX),
            state: Mutex::new(State { place, lingers: false }),
        })
    }

    /// The log's task: runs until the log is closed and everything staged is written. Returns
    /// after a failure only once closed, so that every writer gets an answer.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let listener = self.wal.work.listen();
            let Some(mut committer) = self.take().await else {
                // Who leads puts it back soon, and may take it again before this task could.
                either(listener, self.runtime.sleep(LINGER)).await;
                continue;
            };
            let work = committer.next_work();
            let ends = matches!(work, Some(Work::Close));
            if let Some(work) = work {
                committer.carry_out(work).await;
            } else if committer.may_rest() {
                self.put(committer, false);
                listener.await;
                continue;
            } else {
                let next = committer.next_sequence();
                self.put(committer, true);
                if second_came(listener, self.runtime.sleep(LINGER)).await {
                    self.end_quiet(next).await;
                }
                continue;
            }
            if ends {
                return;
            }
            self.put(committer, false);
        }
    }

    /// Nothing has come for a while. If the log has been quiet too, so that `next` is still the
    /// sequence of its next frame, ends that.
    async fn end_quiet(&self, next: FrameSequence) {
        let Some(mut committer) = self.take().await else { return };
        if committer.next_sequence() == next {
            committer.end_quiet().await;
        }
        self.put(committer, false);
    }

    /// For the task: the committer, after the end of a commit that somebody has left. None while
    /// somebody leads: the task lingers then.
    async fn take(&self) -> Option<Box<Committer>> {
        let left = {
            let mut state = self.state();
            let place = std::mem::replace(&mut state.place, Place::Taken);
            state.lingers = matches!(place, Place::Taken);
            match place {
                Place::Free(committer) => return Some(committer),
                Place::Taken => return None,
                Place::Left(commit) => commit,
            }
        };
        Some(left.await)
    }

    /// For the task: whether it will look again before long by itself.
    fn put(&self, committer: Box<Committer>, lingers: bool) {
        self.state().lingers = lingers;
        self.give_back(committer);
    }

    /// Puts the committer back and wakes the task if there is something for it to do.
    fn give_back(&self, committer: Box<Committer>) {
        let task_is_to_look = {
            let mut state = self.state();
            let is_to_look = committer.has_work() || !committer.may_rest() && !state.lingers;
            state.place = Place::Free(committer);
            is_to_look
        };
        if task_is_to_look {
            self.wal.work.notify(1);
        }
    }

    /// Commits the frame of a record that was staged for that, unless somebody else does.
    pub(crate) async fn lead(&self, staged: &Staged) {
        let Some((mut committer, frame)) = self.take_with(&staged.group) else { return };
        let commit = Box::pin(async move {
            committer.commit(frame).await;
            committer
        });
        let mut leading = Leading { seat: self, commit: Some(commit) };
        let committer = poll_fn(|context| leading.poll(context)).await;
        self.give_back(committer);
    }

    /// The committer and the frame of this group. None when it was committed already, or when the
    /// committer is taken: who has it sees the frame when it puts the committer back.
    fn take_with(&self, group: &Arc<CommitGroup>) -> Option<(Box<Committer>, Frame)> {
        let mut state = self.state();
        if !matches!(state.place, Place::Free(_)) {
            return None;
        }
        let frame = self.wal.staging().take_of(group)?;
        match std::mem::replace(&mut state.place, Place::Taken) {
            Place::Free(committer) => Some((committer, frame)),
            Place::Taken | Place::Left(_) => unreachable!("just looked at under the lock"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit that a writer has begun.
struct Leading<'a> {
    seat: &'a Seat,
    /// None once it has ended.
    commit: Option<BoxFuture<Box<Committer>>>,
}

impl Leading<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Box<Committer>> {
        let commit = self.commit.as_mut().expect("polled until it is ready");
        let polled = commit.as_mut().poll(context);
        if polled.is_ready() {
            self.commit = None;
        }
        polled
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let Some(commit) = self.commit.take() else { return };
        // A commit that panicked must not be polled again.
        drop(AbortOnPanic);
        self.seat.state().place = Place::Left(commit);
        self.seat.wal.work.notify(1);
    }
}
