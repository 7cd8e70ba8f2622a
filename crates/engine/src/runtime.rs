//! Time, tasks and randomness: everything the engine takes from its surroundings besides the disk.
//!
//! The engine never asks the operating system for these itself, so that a simulation which
//! implements [`Runtime`] owns every source of nondeterminism. [`OsRuntime`] is the real one: a
//! few named threads (one per long-lived task, plus one timer thread once something sleeps), all
//! joined by whoever spawned them. A panic in a task aborts the process.
//!
//! Lock rule: the timer's mutex is a leaf; no waker is called or dropped while it is held.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hasher},
    pin::{Pin, pin},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use nephrite_io::Disk;

/// How long the timer thread outlives its last sleeper: a store that works sleeps every few
/// milliseconds.
const TIMER_IDLE: Duration = Duration::from_secs(1);

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

    /// The same for a task that does little else than wait for transfers of `disk`, which a runtime
    /// may let the task's own thread carry out (see [`nephrite_io::drive`]).
    ///
    /// # Errors
    /// As [`Runtime::spawn`].
    fn spawn_beside(
        &self,
        name: &str,
        task: BoxFuture<()>,
        disk: &Arc<dyn Disk>,
    ) -> std::io::Result<BoxFuture<()>> {
        let _ = disk;
        self.spawn(name, task)
    }

    /// The same for a task that others should go before when processors are short; with a `disk`,
    /// as [`Runtime::spawn_beside`].
    ///
    /// # Errors
    /// As [`Runtime::spawn`].
    fn spawn_behind(
        &self,
        name: &str,
        task: BoxFuture<()>,
        disk: Option<&Arc<dyn Disk>>,
    ) -> std::io::Result<BoxFuture<()>> {
        match disk {
            Some(disk) => self.spawn_beside(name, task, disk),
            None => self.spawn(name, task),
        }
    }

    /// Whether each task has a thread that may block, so that it may carry out by itself what it
    /// would only wait for (see [`nephrite_io::at_once`]).
    fn threads_may_block(&self) -> bool {
        false
    }

    /// Runs what the last handle of a store leaves to be done, when it is dropped without a close:
    /// until its end, on the calling thread, or where this runtime runs its tasks.
    fn finish(&self, last: BoxFuture<()>);

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
        start(name, move || pollster::block_on(task))
    }

    fn spawn_beside(
        &self,
        name: &str,
        task: BoxFuture<()>,
        disk: &Arc<dyn Disk>,
    ) -> std::io::Result<BoxFuture<()>> {
        let disk = Arc::clone(disk);
        start(name, move || nephrite_io::drive(&*disk, task))
    }

    fn spawn_behind(
        &self,
        name: &str,
        task: BoxFuture<()>,
        disk: Option<&Arc<dyn Disk>>,
    ) -> std::io::Result<BoxFuture<()>> {
        let disk = disk.cloned();
        start(name, move || {
            nephrite_io::give_way(); // the thread is the task's own
            match disk {
                Some(disk) => nephrite_io::drive(&*disk, task),
                None => pollster::block_on(task),
            }
        })
    }

    fn threads_may_block(&self) -> bool {
        true
    }

    fn finish(&self, last: BoxFuture<()>) {
        pollster::block_on(last);
    }

    fn random_u64(&self) -> u64 {
        // Every RandomState has keys of its own from the operating system's generator.
        std::hash::RandomState::new().build_hasher().finish()
    }

    fn settle(&self) {
        self.timer.settle();
    }
}

/// Polls a future inside [`nephrite_io::at_once`], if `may_block`.
pub(crate) async fn at_once<T>(may_block: bool, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| match may_block {
        true => nephrite_io::at_once(|| future.as_mut().poll(context)),
        false => future.as_mut().poll(context),
    })
    .await
}

/// A thread that runs a task, and the future of its end.
fn start(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<BoxFuture<()>> {
    let done = Arc::new(event_listener::Event::new());
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let signal = EndSignal { done: Arc::clone(&done), ended: Arc::clone(&ended) };
    let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _signal = signal;
        let _barrier = AbortOnPanic;
        run();
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

/// A task of the engine that panics has broken an invariant while it held what others wait for:
/// going on could acknowledge what is not there, or hang. The panic's message has been printed.
pub(crate) struct AbortOnPanic;

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
/// and ends some time after the last one, so that an engine at rest keeps no timer thread.
struct Timer {
    origin: Instant,
    state: Mutex<TimerState>,
    changed: Condvar,
}

#[derive(Default)]
struct TimerState {
    /// By deadline and entry.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    next_entry: u64,
    /// Whether a thread of this epoch runs. A thread of an earlier one ends when it looks.
    running: bool,
    epoch: u64,
    thread: Option<thread::JoinHandle<()>>,
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

    fn register(self: &Arc<Self>, deadline: Duration, waker: Waker) -> (Duration, u64) {
        let mut state = self.lock();
        let key = (deadline, state.next_entry);
        state.next_entry += 1;
        state.sleepers.insert(key, waker);
        if state.running {
            drop(state);
            self.changed.notify_one();
            return key;
        }
        state.running = true;
        let epoch = state.epoch;
        let timer = Arc::clone(self);
        let started = thread::Builder::new()
            .name("nephrite-timer".to_owned())
            .spawn(move || timer.run(epoch));
        match started {
            // A former thread has left its loop: nothing is left of it to wait for.
            Ok(thread) => drop(state.thread.replace(thread)),
            Err(_) => {
                // Without a thread nobody would wake the sleepers: wake them now; they poll again.
                state.running = false;
                let sleepers = std::mem::take(&mut state.sleepers);
                drop(state);
                sleepers.into_values().for_each(Waker::wake);
            }
        }
        key
    }

    /// Ends and joins the thread if nobody sleeps. A sleeper that comes meanwhile gets another.
    fn settle(&self) {
        let mut state = self.lock();
        if !state.sleepers.is_empty() {
            return;
        }
        state.epoch += 1;
        state.running = false;
        let thread = state.thread.take();
        drop(state);
        self.changed.notify_all();
        // It runs nothing that can panic but wakers, whose panics are their owners' business.
        thread.into_iter().for_each(|thread| drop(thread.join()));
    }

    fn cancel(&self, key: (Duration, u64)) {
        let waker = self.lock().sleepers.remove(&key);
        drop(waker);
    }

    fn run(&self, epoch: u64) {
        let mut state = self.lock();
        let mut idle_since = None;
        while state.epoch == epoch {
            let now = self.now();
            let Some((key, _)) = state.sleepers.first_key_value() else {
                let end = *idle_since.get_or_insert(now) + TIMER_IDLE;
                if end <= now {
                    state.running = false;
                    return;
                }
                state = self.wait(state, end - now);
                continue;
            };
            idle_since = None;
            let deadline = key.0;
            if now < deadline {
                state = self.wait(state, deadline - now);
                continue;
            }
            let due = state.sleepers.pop_first();
            drop(state);
            due.into_iter().for_each(|(_, waker)| waker.wake());
            state = self.lock();
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, TimerState>,
        at_most: Duration,
    ) -> MutexGuard<'a, TimerState> {
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Sleep {
    timer: Arc<Timer>,
    deadline: Duration,
    entry: Option<(Duration, u64)>,
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

    /// Two stores may share a runtime: the end of one waited for the sleepers of the other when
    /// they came at the wrong moment, and took the thread that should have woken them.
    #[test]
    fn settling_neither_waits_for_later_sleepers_nor_leaves_them_asleep() {
        let runtime = OsRuntime::default();
        let start = runtime.now();
        for _ in 0..50 {
            pollster::block_on(runtime.sleep(Duration::from_micros(100)));
            let other = runtime.clone();
            let sleeper = thread::Builder::new()
                .spawn(move || pollster::block_on(other.sleep(Duration::from_millis(3))))
                .unwrap();
            runtime.settle();
            sleeper.join().unwrap();
        }
        assert!(runtime.now() - start >= Duration::from_millis(150));
        runtime.settle();
        assert!(!runtime.timer.lock().running);
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
