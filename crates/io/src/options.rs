//! How a disk is to be opened: backend, threads, rings.
//!
//! Every default is a public constant; values out of range are errors of [`crate::open_disk`], not
//! silently changed.

use std::time::Duration;

use crate::durable::DurableWrites;
use crate::report::BackendChoice;

/// Ring threads when nothing else is asked for: one ring keeps one device busy, since direct reads
/// cost the thread little; more pay off where reads are served from the system's cache.
pub const DEFAULT_RING_THREADS: u32 = 1;

/// Submission entries per ring, and so the most operations in flight on it.
pub const DEFAULT_RING_ENTRIES: u32 = 256;

/// Threads that may have a ring of their own.
pub const DEFAULT_CALLER_RINGS: u32 = 16;

/// Whether arenas are registered with the kernel. Off: it locks the whole cache in memory to save a
/// tenth of the processor time of a read.
pub const DEFAULT_REGISTERED_BUFFERS: bool = false;

/// How long a drain waits without any operation coming back.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How to open a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    pub(crate) backend: BackendChoice,
    pub(crate) ring_threads: u32,
    pub(crate) ring_entries: u32,
    pub(crate) positional_threads: Option<u32>,
    pub(crate) drain_timeout: Duration,
    pub(crate) direct: bool,
    pub(crate) durable_writes: DurableWrites,
    pub(crate) caller_rings: u32,
    pub(crate) submission_polling: Option<Duration>,
    pub(crate) completion_polling: bool,
    pub(crate) registered_buffers: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            ring_threads: DEFAULT_RING_THREADS,
            ring_entries: DEFAULT_RING_ENTRIES,
            positional_threads: None,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            direct: true,
            durable_writes: DurableWrites::Auto,
            caller_rings: DEFAULT_CALLER_RINGS,
            submission_polling: None,
            completion_polling: false,
            registered_buffers: DEFAULT_REGISTERED_BUFFERS,
        }
    }
}

impl DiskOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Which backend to use. Default: [`BackendChoice::Auto`].
    #[must_use]
    pub fn backend(self, backend: BackendChoice) -> Self {
        Self { backend, ..self }
    }

    /// How many rings, each with its thread: 1 to 64. Default: [`DEFAULT_RING_THREADS`].
    #[must_use]
    pub fn ring_threads(self, ring_threads: u32) -> Self {
        Self { ring_threads, ..self }
    }

    /// Submission entries per ring: a power of two from 32 to 4096. Default:
    /// [`DEFAULT_RING_ENTRIES`]. Halved down to 32 where the memory lock limit does not allow it.
    #[must_use]
    pub fn ring_entries(self, ring_entries: u32) -> Self {
        Self { ring_entries, ..self }
    }

    /// Most positional threads for data: 2 to 1024. Default: twice the cores, from 4 to 16.
    #[must_use]
    pub fn positional_threads(self, positional_threads: u32) -> Self {
        Self { positional_threads: Some(positional_threads), ..self }
    }

    /// How long a drain waits without any operation coming back before it gives up and leaks their
    /// memory. Default: [`DEFAULT_DRAIN_TIMEOUT`]. Holds for rings, and for dropping a disk; a
    /// shutdown does wait for a positional thread whose system call does not return.
    #[must_use]
    pub fn drain_timeout(self, drain_timeout: Duration) -> Self {
        Self { drain_timeout, ..self }
    }

    /// Whether files may bypass the system's cache at all. Default: yes.
    #[must_use]
    pub fn direct(self, direct: bool) -> Self {
        Self { direct, ..self }
    }

    /// How [`crate::Operation::WriteSynced`] is carried out. Default: [`DurableWrites::Auto`].
    #[must_use]
    pub fn durable_writes(self, durable_writes: DurableWrites) -> Self {
        Self { durable_writes, ..self }
    }

    /// How many threads at most may have a ring of their own for their blocking calls (see
    /// [`crate::drive`]), and as [`crate::CallerRing`]: 0 to 1024. The log and the
    /// compactions of a store have one each. A ring locks a few pages of memory, which Linux counts
    /// per user. Default: [`DEFAULT_CALLER_RINGS`].
    #[must_use]
    pub fn caller_rings(self, caller_rings: u32) -> Self {
        Self { caller_rings, ..self }
    }

    /// Lets a kernel thread per ring poll for submissions (SQPOLL) until it has found none for this
    /// long, in whole milliseconds from 1 ms to 60 s. It spares the ring threads system calls and
    /// costs a whole processor while it polls; once it has gone to sleep, waking it makes a
    /// submission slower than without it, so it does harm where requests come in bursts. Default:
    /// none. Rings of callers never have one.
    #[must_use]
    pub fn submission_polling(self, idle: Duration) -> Self {
        Self { submission_polling: Some(idle), ..self }
    }

    /// Whether direct reads and writes go to a ring of their own, whose thread polls the device
    /// for their completions (IOPOLL) instead of sleeping: meant for the fastest devices, at the
    /// price of a whole processor while anything is in flight. It needs a device with queues for
    /// polling; where there are none, everything goes the ordinary way, and the report says why
    /// ([`crate::BackendReport::completion_refusal`]). A device that never answers holds up a
    /// shutdown then. Default: no. Rings of callers are never polled.
    #[must_use]
    pub fn completion_polling(self, completion_polling: bool) -> Self {
        Self { completion_polling, ..self }
    }

    /// Whether the ring threads register arenas that they are offered
    /// ([`crate::Disk::register_arena`]) with the kernel: a direct transfer into them costs it less
    /// then. But all memory of the arena is taken and locked at once, used or not, once per ring,
    /// and counts against the user's memory lock limit; where that is refused, transfers go on
    /// without. Default: [`DEFAULT_REGISTERED_BUFFERS`].
    #[must_use]
    pub fn registered_buffers(self, registered_buffers: bool) -> Self {
        Self { registered_buffers, ..self }
    }

    /// What is out of range, as a clause.
    pub(crate) fn fault(&self) -> Option<String> {
        let (entries, threads) = (self.ring_entries, self.ring_threads);
        if !(1..=64).contains(&threads) {
            return Some(format!("ring_threads is {threads} and must be from 1 to 64"));
        }
        if !(32..=4096).contains(&entries) || !entries.is_power_of_two() {
            return Some(format!(
                "ring_entries is {entries} and must be a power of two from 32 to 4096"
            ));
        }
        let idle = self.submission_polling.map(|idle| idle.as_millis());
        if idle.is_some_and(|idle| !(1..=60_000).contains(&idle)) {
            return Some("submission_polling must be from 1 ms to 60 s".to_owned());
        }
        if 1024 < self.caller_rings {
            return Some(format!("caller_rings is {} and must be at most 1024", self.caller_rings));
        }
        match self.positional_threads {
            Some(threads) if !(2..=1024).contains(&threads) => {
                Some(format!("positional_threads is {threads} and must be from 2 to 1024"))
            }
            _ => None,
        }
    }

    pub(crate) fn positional_threads_max(&self) -> u32 {
        self.positional_threads.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(2).clamp(4, 16)
        })
    }
}
