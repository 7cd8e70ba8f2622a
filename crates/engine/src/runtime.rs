//! Time, tasks and randomness: everything the engine takes from its surroundings besides the disk.
//!
//! The engine never asks the operating system for these itself, so that a simulation which
//! implements [`Runtime`] owns every source of nondeterminism. [`OsRuntime`] is the real one: a
//! few named threads (one per long-lived task, plus one timer thread once something sleeps), all
//! joined by whoever spawned them. A panic in a task aborts the process.
//!
//! Lock rule: the timer's mutex is a leaf; nothing is called while it is held.

use std::{
    collections::BinaryHeap,
    fmt,
    future::Future,
    hash::{BuildHasher, Hasher},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the engine needs from its surroundings.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Monotonic time since an arbitrary origin.
    fn now(&self) -> Duration;

    /// Resolves `duration` after the call. Dropping it cancels it.
    fn sleep(&self, duration: Duration) -> BoxFuture<()>;

    /// Runs a long-lived task under a name; the future returned resolves once it has ended and
    /// nothing of it (thread included) is left. Dropping that future does not stop the task.
    ///
    /// # Errors
    /// The operating system's refusal to start a thread.
    fn spawn(&self, name: &str, task: BoxFuture<()>) -> std::io::Result<BoxFuture<()>>;

    /// A number that others cannot guess.
    fn random_u64(&self) -> u64;

    /// Called when a store has ended its tasks: ends what the runtime itself keeps running for
    /// them, unless others still need it.
    fn settle(&self);
}

/// The real clock, threads and randomness.
#[derive(Clone, Default)]
pub struct OsRuntime {
    timer: Arc<Timer>,
}

impl fmt::Debug for OsRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsRuntime").finish_non_exhaustive()
    }
}

impl Runtime for OsRuntime {
    fn now(&self) -> Duration {
        self.timer.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        let deadline = self.timer.now().saturating_add(duration);
        Box::pin(Sleep { timer: Arc::clone(&self.timer), deadline, entry: None })
    }

    fn spawn(&self, name: &str, task: BoxFuture<()>) -> std::io::Result<BoxFuture<()>> {
        let done = Arc::new(event_listener::Event::new());
        let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let signal = EndSignal { done: Arc::clone(&done), ended: Arc::clone(&ended) };
        let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _signal = signal;
            let _barrier = AbortOnPanic;
            pollster::block_on(task);
        })?;
        Ok(Box::pin(async move {
            loop {
                let listener = done.listen();
                // Acquire pairs with the Release in EndSignal::drop.
                if ended.load(std::sync::atomic::Ordering::Acquire) {
                    break;
                }
                listener.await;
            }
            // The task has returned; only the thread's last instructions are left, which cannot
            // panic, and a panic before them does not get here.
            let _ = handle.join();
        }))
    }

    fn random_u64(&self) -> u64 {
        // Every RandomState has keys of its own from the operating system's generator.
        std::hash::RandomState::new().build_hasher().finish()
    }

    fn settle(&self) {
        self.timer.settle();
    }
}

/// A task of the engine that panics has broken an invariant while it held what others wait for:
/// going on could acknowledge what is not there, or hang. The panic's message has been printed.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Tells the waiter that the task's thread is about to end, also when the task panicked.
struct EndSignal {
    done: Arc<event_listener::Event>,
    ended: Arc<std::sync::atomic::AtomicBool>,
}

impl Drop for EndSignal {
    fn drop(&mut self) {
        self.ended.store(true, std::sync::atomic::Ordering::Release);
        self.done.notify(usize::MAX);
    }
}

/// One thread that wakes sleepers in order of their deadlines. It starts with the first sleeper
/// and ends when there is none, so that an engine at rest keeps no timer thread.
struct Timer {
    origin: Instant,
    state: Mutex<TimerState>,
    changed: Condvar,
}

#[derive(Default)]
struct TimerState {
    sleepers: BinaryHeap<Sleeper>,
    next_entry: u64,
    running: bool,
    thread: Option<thread::JoinHandle<()>>,
}

struct Sleeper {
    deadline: Duration,
    entry: u64,
    waker: Option<Waker>,
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.entry == other.entry
    }
}
impl Eq for Sleeper {}
impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Sleeper {
    /// Earliest deadline is greatest, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.deadline, other.entry).cmp(&(self.deadline, self.entry))
    }
}

impl Default for Timer {
    #[expect(clippy::disallowed_methods, reason = "this is the runtime that owns the clock")]
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::new(TimerState::default()),
            changed: Condvar::new(),
        }
    }
}

impl Timer {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, TimerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(self: &Arc<Self>, deadline: Duration, waker: Waker) -> u64 {
        let mut state = self.lock();
        let entry = state.next_entry;
        state.next_entry += 1;
        state.sleepers.push(Sleeper { deadline, entry, waker: Some(waker) });
        if state.running {
            self.changed.notify_one();
            return entry;
        }
        state.running = true;
        drop(state);
        let timer = Arc::clone(self);
        let started =
            thread::Builder::new().name("nephrite-timer".to_owned()).spawn(move || timer.run());
        let mut state = self.lock();
        match started {
            Ok(thread) => state.thread = Some(thread),
            Err(_) => {
                // Without a thread nobody would wake the sleepers: wake them now; they poll again.
                state.running = false;
                let sleepers = std::mem::take(&mut state.sleepers);
                drop(state);
                sleepers.into_iter().filter_map(|sleeper| sleeper.waker).for_each(Waker::wake);
            }
        }
        entry
    }

    /// Joins the thread if nobody sleeps: then it ends by itself.
    fn settle(&self) {
        let mut state = self.lock();
        if !state.sleepers.is_empty() {
            return;
        }
        let thread = state.thread.take();
        drop(state);
        self.changed.notify_one();
        // It runs nothing that can panic but wakers, whose panics are their owners' business.
        thread.into_iter().for_each(|thread| drop(thread.join()));
    }

    fn cancel(&self, entry: u64) {
        let mut state = self.lock();
        state.sleepers.retain(|sleeper| sleeper.entry != entry);
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            let Some(next) = state.sleepers.peek() else {
                state.running = false;
                return;
            };
            let now = self.now();
            if next.deadline <= now {
                let waker = state.sleepers.pop().and_then(|sleeper| sleeper.waker);
                drop(state);
                waker.into_iter().for_each(Waker::wake);
                state = self.lock();
                continue;
            }
            let wait = next.deadline - now;
            state =
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct Sleep {
    timer: Arc<Timer>,
    deadline: Duration,
    entry: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= self.timer.now() {
            return Poll::Ready(());
        }
        if let Some(entry) = self.entry.take() {
            self.timer.cancel(entry);
        }
        let entry = self.timer.register(self.deadline, context.waker().clone());
        self.entry = Some(entry);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            self.timer.cancel(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake_in_deadline_order() {
        let runtime = OsRuntime::default();
        let late = runtime.sleep(Duration::from_millis(30));
        let early = runtime.sleep(Duration::from_millis(5));
        let start = runtime.now();
        pollster::block_on(early);
        let after_early = runtime.now() - start;
        pollster::block_on(late);
        let after_late = runtime.now() - start;
        assert!(after_early >= Duration::from_millis(4), "{after_early:?}");
        assert!(after_late >= Duration::from_millis(29), "{after_late:?}");
        assert!(after_early < after_late);
    }

    #[test]
    fn a_spawned_task_is_joined() {
        let runtime = OsRuntime::default();
        let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let inner = Arc::clone(&flag);
        let task = Box::pin(async move {
            inner.store(true, std::sync::atomic::Ordering::Release);
        });
        let joined = runtime.spawn("nephrite-test", task).unwrap();
        pollster::block_on(joined);
        assert!(flag.load(std::sync::atomic::Ordering::Acquire));
    }
}
