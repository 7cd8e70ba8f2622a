//! [`SimRuntime`]: the engine's clock, tasks and randomness on one thread, chosen by a seed.
//!
//! Whenever something can go on (a task that was woken, a system call of the disk, a sleeper whose
//! time has come) the seed chooses what does. Time only moves to the next thing that is due.
//!
//! Guarantee: the same seed and the same futures give the same run. Nothing blocks: a run in which
//! nothing can go on is an [`Ended::Stuck`], not a hang.
//! Lock rule: the state's mutex is a leaf; no future is polled or dropped and no waker is called
//! while it is held.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use nephrite::runtime::{BoxFuture, Runtime};
use nephrite_io::sim::{SimClock, SimDisk, SimRandom, Stepped};

/// The task that [`SimRuntime::run`] itself polls.
const MAIN: u64 = 0;
/// Polls and system calls of one run, after which it counts as stuck.
const TURNS_MAX: u64 = 20_000_000;

/// How a run ended.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a driver must decide on each")]
pub enum Ended<T> {
    /// The future was ready.
    Done(T),
    /// The machine crashed.
    Crashed,
    /// Nothing can go on although the future waits; or everything goes on for ever.
    Stuck,
}

/// See the module documentation. Clones are the same runtime.
#[derive(Clone)]
pub struct SimRuntime {
    shared: Arc<Shared>,
    disk: SimDisk,
}

struct Shared {
    state: Mutex<State>,
    clock: SimClock,
}

struct State {
    random: SimRandom,
    tasks: BTreeMap<u64, Slot>,
    ready: Vec<u64>,
    next_task: u64,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    next_sleeper: u64,
    /// The machine is off: tasks are dropped instead of run.
    dead: bool,
}

/// A task; its future is away while it is polled.
struct Slot {
    future: Option<BoxFuture<()>>,
    end: Arc<End>,
}

/// Whether a task has ended, and who waits for it.
#[derive(Default)]
struct End {
    state: Mutex<(bool, Vec<Waker>)>,
}

struct TaskWaker {
    task: u64,
    shared: Weak<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            let mut state = shared.lock();
            if !state.ready.contains(&self.task) {
                state.ready.push(self.task);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What goes on next.
enum Turn {
    Task(u64),
    Disk,
    Sleeper,
    Nothing,
}

impl SimRuntime {
    /// A runtime whose choices follow from a seed, for stores on this disk.
    #[must_use]
    pub fn new(seed: u64, disk: SimDisk) -> Self {
        let state = State {
            random: SimRandom::new(seed),
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            next_task: MAIN + 1,
            sleepers: BTreeMap::new(),
            next_sleeper: 0,
            dead: false,
        };
        let clock = disk.clock();
        Self { shared: Arc::new(Shared { state: Mutex::new(state), clock }), disk }
    }

    /// Runs a future, and with it all tasks and the disk, until it is ready.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> Ended<T> {
        let mut main = pin!(main);
        let waker = self.waker(MAIN);
        waker.wake_by_ref();
        let mut context = Context::from_waker(&waker);
        for _ in 0..TURNS_MAX {
            if self.disk.has_crashed() {
                return Ended::Crashed;
            }
            match self.choose() {
                Turn::Task(MAIN) => {
                    if let Poll::Ready(value) = main.as_mut().poll(&mut context) {
                        return Ended::Done(value);
                    }
                }
                Turn::Task(task) => self.poll(task),
                Turn::Disk => {
                    if self.disk.step() == Stepped::Crashed {
                        return Ended::Crashed;
                    }
                }
                Turn::Sleeper => self.wake_sleeper(),
                Turn::Nothing => return Ended::Stuck,
            }
        }
        Ended::Stuck
    }

    /// Runs everything but a future of the caller's, until nothing can go on.
    pub fn run_until_idle(&self) -> Ended<()> {
        match self.run(std::future::pending::<()>()) {
            Ended::Stuck => Ended::Done(()),
            other => other,
        }
    }

    /// Switches the machine off: every task is dropped where it stands, and so is what is spawned
    /// from now on.
    pub fn kill(&self) {
        let mut state = self.shared.lock();
        state.dead = true;
        state.ready.clear();
        let tasks = std::mem::take(&mut state.tasks);
        let sleepers = std::mem::take(&mut state.sleepers);
        drop(state);
        drop((tasks, sleepers));
    }

    /// Runs a task beside the others. The future returned resolves when it has ended.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) -> BoxFuture<()> {
        self.add(Box::pin(task))
    }

    fn add(&self, future: BoxFuture<()>) -> BoxFuture<()> {
        let end = Arc::new(End::default());
        let mut state = self.shared.lock();
        if state.dead {
            drop(state);
            drop(future);
            return Box::pin(std::future::pending());
        }
        let task = state.next_task;
        state.next_task += 1;
        state.tasks.insert(task, Slot { future: Some(future), end: Arc::clone(&end) });
        state.ready.push(task);
        Box::pin(std::future::poll_fn(move |context| end.poll(context.waker())))
    }

    fn waker(&self, task: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker { task, shared: Arc::downgrade(&self.shared) }))
    }

    fn choose(&self) -> Turn {
        let due = self.disk.next_due();
        let mut state = self.shared.lock();
        let sleeper = state.sleepers.first_key_value().map(|((deadline, _), _)| *deadline);
        let disk_first = due.is_some() && state.random.chance(1, 8);
        let count = state.ready.len();
        let turn = if 0 < count && !disk_first {
            let at = state.random.index(count);
            Turn::Task(state.ready.swap_remove(at))
        } else {
            match (due, sleeper) {
                (Some(due), Some(sleeper)) if sleeper < due => Turn::Sleeper,
                (Some(_), _) => Turn::Disk,
                (None, Some(_)) => Turn::Sleeper,
                (None, None) => Turn::Nothing,
            }
        };
        drop(state);
        self.disk.note(match &turn {
            Turn::Task(task) => 16 + task,
            Turn::Disk => 1,
            Turn::Sleeper => 2,
            Turn::Nothing => 3,
        });
        turn
    }

    fn poll(&self, task: u64) {
        let future = self.shared.lock().tasks.get_mut(&task).and_then(|slot| slot.future.take());
        // A task that has ended may still be woken.
        let Some(mut future) = future else { return };
        let waker = self.waker(task);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.shared.lock();
        if polled.is_pending() {
            if let Some(slot) = state.tasks.get_mut(&task) {
                slot.future = Some(future);
            }
            return;
        }
        let slot = state.tasks.remove(&task);
        drop(state);
        drop(future);
        slot.iter().for_each(|slot| slot.end.set());
    }

    fn wake_sleeper(&self) {
        let sleeper = self.shared.lock().sleepers.pop_first();
        if let Some(((deadline, _), waker)) = sleeper {
            self.shared.clock.advance_to(deadline);
            waker.wake();
        }
    }
}

impl End {
    fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        state.1.push(waker.clone());
        Poll::Pending
    }

    fn set(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        let wakers = std::mem::take(&mut state.1);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        let deadline = self.now().saturating_add(duration);
        Box::pin(Sleep { shared: Arc::clone(&self.shared), deadline, entry: None })
    }

    fn spawn(&self, _name: &str, task: BoxFuture<()>) -> std::io::Result<BoxFuture<()>> {
        Ok(self.add(task))
    }

    fn finish(&self, last: BoxFuture<()>) {
        drop(self.add(last));
    }

    fn random_u64(&self) -> u64 {
        self.shared.lock().random.next_u64()
    }

    fn settle(&self) {}
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimRuntime").field("now", &self.now()).finish_non_exhaustive()
    }
}

struct Sleep {
    shared: Arc<Shared>,
    deadline: Duration,
    entry: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= self.shared.clock.now() {
            return Poll::Ready(());
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let former = self.entry.take().and_then(|entry| state.sleepers.remove(&entry));
        let entry = (self.deadline, state.next_sleeper);
        state.next_sleeper += 1;
        state.sleepers.insert(entry, context.waker().clone());
        drop(state);
        drop(former);
        self.entry = Some(entry);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            let waker = self.shared.lock().sleepers.remove(&entry);
            drop(waker);
        }
    }
}
