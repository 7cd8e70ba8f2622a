//! A bounded pool of named threads that starts small and grows with the work.
//!
//! Jobs come in two kinds. Limited ones (writes, syncs) may occupy at most half of the threads, so
//! the others (reads) always find the other half; between the two kinds a thread takes turns.
//!
//! Guarantee: a job taken in is run, also when the pool is closed meanwhile; a job that comes later
//! is given back. A submitter waits while its kind's queue is full, unless it is an I/O thread.
//! Locks: one mutex for the queues; no job, waker or destructor of a job runs under it.
//! Does not: interrupt a job. A system call that never returns keeps its thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::completion::{Receiver, Sender, oneshot};
use crate::threads;

/// Work for a pool.
pub(crate) trait Job: Send + 'static {
    /// Whether it counts against the half of the threads that is the most for its kind.
    fn is_limited(&self) -> bool;

    /// Does the work, on a thread of the pool.
    fn run(self);
}

/// Why jobs were not taken in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The pool is closed.
    Closed,
    /// There is no thread, and none can be started.
    NoThread(io::Error),
}

/// The limits of a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolLimits {
    pub(crate) name: &'static str,
    pub(crate) threads_max: usize,
    /// How many jobs of one kind may wait.
    pub(crate) queue_max: usize,
}

/// A handle of a pool; clones share it.
pub(crate) struct Pool<J> {
    shared: Arc<Shared<J>>,
}

impl<J> Clone for Pool<J> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<J> {
    limits: PoolLimits,
    state: Mutex<State<J>>,
    work: Condvar,
    room: Condvar,
    over: Condvar,
}

struct State<J> {
    free: VecDeque<J>,
    limited: VecDeque<J>,
    limited_running: usize,
    limited_turn: bool,
    threads: usize,
    idle: usize,
    started: usize,
    closed: bool,
    handles: Vec<JoinHandle<()>>,
    watchers: Vec<Sender<()>>,
}

impl<J: Job> Pool<J> {
    pub(crate) fn new(limits: PoolLimits) -> Self {
        assert!(0 < limits.threads_max && 0 < limits.queue_max, "{limits:?}");
        let state = State {
            free: VecDeque::new(),
            limited: VecDeque::new(),
            limited_running: 0,
            limited_turn: false,
            threads: 0,
            idle: 0,
            started: 0,
            closed: false,
            handles: Vec::new(),
            watchers: Vec::new(),
        };
        let (work, room, over) = (Condvar::new(), Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { limits, state: Mutex::new(state), work, room, over }) }
    }

    /// Takes in one job. Returns whether the caller had to wait for room.
    pub(crate) fn submit(&self, job: J) -> Result<bool, (J, Refusal)> {
        let shared = &self.shared;
        let (mut state, waited) = shared.wait_for_room(shared.lock(), job.is_limited());
        if state.closed {
            return Err((job, Refusal::Closed));
        }
        if state.wants_thread(shared.limits.threads_max)
            && let Err(error) = shared.start_thread(&mut state)
            && state.threads == 0
        {
            return Err((job, Refusal::NoThread(error)));
        }
        state.queue(job.is_limited()).push_back(job);
        drop(state);
        shared.work.notify_one();
        Ok(waited)
    }

    /// Whether jobs are refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Refuses further jobs. The receiver resolves when the last thread is about to end.
    pub(crate) fn close(&self) -> Receiver<()> {
        let (sender, receiver) = oneshot();
        let mut state = self.shared.lock();
        state.closed = true;
        if state.threads > 0 {
            state.watchers.push(sender);
            drop(state);
        } else {
            drop(state);
            // The receiver is in our hands: nobody can have dropped it.
            let _ = sender.send(());
        }
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        receiver
    }

    /// Waits for threads that are ending: call it after the receiver of [`Pool::close`] resolved.
    pub(crate) fn join(&self) {
        let handles = std::mem::take(&mut self.shared.lock().handles);
        handles.into_iter().for_each(threads::join);
    }

    /// Closes the pool and gives its threads some time to end.
    pub(crate) fn end_within(&self, timeout: Duration) {
        drop(self.close());
        if threads::is_io_thread() {
            return;
        }
        let state = self.shared.lock();
        let over = &self.shared.over;
        let waited = over.wait_timeout_while(state, timeout, |state| state.threads > 0);
        let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        if !result.timed_out() {
            self.join();
        }
    }
}

impl<J> State<J> {
    fn queue(&mut self, limited: bool) -> &mut VecDeque<J> {
        if limited { &mut self.limited } else { &mut self.free }
    }

    /// Whether one more job would find no idle thread although another may be started.
    fn wants_thread(&self, threads_max: usize) -> bool {
        self.threads < threads_max && self.idle <= self.free.len() + self.limited.len()
    }

    /// The next job that may run, and whether it is a limited one.
    fn take(&mut self, threads_max: usize) -> Option<(J, bool)> {
        let limited_max = (threads_max / 2).max(1);
        let limited_may = self.limited_running < limited_max && !self.limited.is_empty();
        let limited = limited_may && (self.limited_turn || self.free.is_empty());
        let job = self.queue(limited).pop_front()?;
        self.limited_turn = !limited;
        self.limited_running += usize::from(limited);
        Some((job, limited))
    }
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Job> Shared<J> {
    fn wait_for_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<J>>,
        limited: bool,
    ) -> (MutexGuard<'a, State<J>>, bool) {
        let mut waited = false;
        while self.limits.queue_max <= state.queue(limited).len()
            && !state.closed
            && !threads::is_io_thread()
        {
            waited = true;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state, waited)
    }

    fn start_thread(self: &Arc<Self>, state: &mut State<J>) -> io::Result<()> {
        let name = format!("{}-{}", self.limits.name, state.started);
        let shared = Arc::clone(self);
        let handle = threads::spawn(name, move || shared.work())?;
        state.handles.push(handle);
        state.threads += 1;
        state.started += 1;
        Ok(())
    }

    /// The life of one thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((job, limited)) = state.take(self.limits.threads_max) {
                drop(state);
                self.room.notify_all();
                job.run();
                state = self.lock();
                if limited {
                    state.limited_running -= 1;
                }
            } else if state.closed && state.free.is_empty() && state.limited.is_empty() {
                break;
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
        self.leave(state);
    }

    fn leave(&self, mut state: MutexGuard<'_, State<J>>) {
        state.threads -= 1;
        // Others may sleep beside a limited job that was not theirs to take.
        self.work.notify_all();
        if state.threads > 0 {
            return;
        }
        let watchers = std::mem::take(&mut state.watchers);
        drop(state);
        self.over.notify_all();
        for watcher in watchers {
            // Who asked may have lost interest.
            let _ = watcher.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::completion::block_on;

    struct Task {
        limited: bool,
        run: Box<dyn FnOnce() + Send>,
    }

    impl Job for Task {
        fn is_limited(&self) -> bool {
            self.limited
        }

        fn run(self) {
            (self.run)();
        }
    }

    fn task(limited: bool, run: impl FnOnce() + Send + 'static) -> Task {
        Task { limited, run: Box::new(run) }
    }

    fn pool(threads_max: usize, queue_max: usize) -> Pool<Task> {
        Pool::new(PoolLimits { name: "nephrite-test", threads_max, queue_max })
    }

    fn accepted(outcome: Result<bool, (Task, Refusal)>) -> bool {
        outcome.map_err(|(_, refusal)| refusal).unwrap()
    }

    #[test]
    fn jobs_taken_in_before_the_close_are_run() {
        let (pool, count) = (pool(3, 1000), Arc::new(AtomicUsize::new(0)));
        for index in 0..500 {
            let count = Arc::clone(&count);
            let add = move || {
                count.fetch_add(1, Ordering::Relaxed);
            };
            accepted(pool.submit(task(index % 2 == 0, add)));
        }

        block_on(pool.close());
        pool.join();

        assert_eq!(count.load(Ordering::Relaxed), 500);
        assert!(matches!(pool.submit(task(false, || ())), Err((_, Refusal::Closed))));
    }

    #[test]
    fn limited_jobs_occupy_at_most_half_of_the_threads() {
        let (pool, (sender, receiver)) = (pool(4, 1000), mpsc::channel::<()>());
        let receiver = Arc::new(Mutex::new(receiver));
        let running = Arc::new(AtomicUsize::new(0));
        for _ in 0..6 {
            let (receiver, running) = (Arc::clone(&receiver), Arc::clone(&running));
            accepted(pool.submit(task(true, move || {
                assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                // Ends when the sender is dropped.
                let _ = receiver.lock().unwrap().recv();
                running.fetch_sub(1, Ordering::SeqCst);
            })));
        }
        let (done, finished) = mpsc::channel();
        for _ in 0..50 {
            let done = done.clone();
            accepted(pool.submit(task(false, move || done.send(()).unwrap())));
        }

        assert_eq!(finished.iter().take(50).count(), 50);

        drop(sender);
        block_on(pool.close());
        pool.join();
    }

    #[test]
    fn a_submitter_waits_while_the_queue_is_full() {
        let (pool, (sender, receiver)) = (pool(1, 2), mpsc::channel::<()>());
        let (started, has_started) = mpsc::channel();
        accepted(pool.submit(task(false, move || {
            started.send(()).unwrap();
            let _ = receiver.recv();
        })));
        has_started.recv().unwrap();
        assert!(!accepted(pool.submit(task(false, || ()))));
        assert!(!accepted(pool.submit(task(false, || ()))));

        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| accepted(pool.submit(task(false, || ()))));
            drop(sender);
            // Whether it had to wait depends on who was faster; it must not be lost either way.
            waiter.join().unwrap();
        });

        block_on(pool.close());
        pool.join();
    }

    #[test]
    fn a_pool_that_was_never_used_closes_at_once() {
        let pool = pool(2, 2);

        assert_eq!(block_on(pool.close()), Some(()));
    }
}
