//! Transfers driven by the calling thread, for blocking calls and for thread-per-core hosts.
//!
//! [`drive`] runs a future as [`crate::block_on`] does, but what the future submits goes to a ring
//! of this thread: it is submitted and waited for here, and no other thread is involved. A
//! [`CallerRing`] is such a ring as an object, for a host that has a loop of its own.
//!
//! Where a thread can have no ring (another backend, no lockable memory, a filter, more threads
//! than [`crate::DiskOptions::caller_rings`]), [`drive`] parks the thread and the disk's own
//! threads do the work. [`crate::IoStats::caller_parks`] counts that; the report has the reason.
//! Tested in `tests/it/caller_ring.rs`.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::completion::block_on;
use crate::disk::Disk;
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::request::Request;
use crate::uring::{CallerAccess, Hosted};

/// Runs a future to its end on the calling thread, and drives its transfers on `disk` there too.
///
/// Returns when the future has ended and nothing that this thread submitted is in flight any more,
/// so reads ahead that the future has started are waited for. May be called inside itself.
/// Not for use inside an executor's thread: it would block the others on it.
///
/// While the future is polled this thread serves nobody else's loads. So it must not wait, in a
/// poll, for other threads that may need them.
pub fn drive<T>(disk: &dyn Disk, future: impl Future<Output = T>) -> T {
    match disk.caller_rings().map(|rings| rings.0) {
        Some(access) => access.run(future),
        None => block_on(future),
    }
}

/// A ring of the thread that made it, which alone uses it.
///
/// What is submitted through it, or by anything that runs inside [`CallerRing::during`], waits
/// until the host calls [`CallerRing::poll`] or [`CallerRing::wait`]; completions run inside these
/// calls, on this thread, and nowhere else, but for syncs: one that ends beside another sync of its
/// file is told where the last of them ends. A host that sleeps in a loop of its own watches the
/// descriptor for being readable, and calls `poll` after it has submitted something.
///
/// Dropping it waits for what is in flight. So does the disk's shutdown: a host that has something
/// in flight goes on polling until then.
pub struct CallerRing {
    hosted: Hosted,
    disk: Arc<dyn Disk>,
    /// The kernel takes submissions from the thread that built a ring only.
    _not_send: PhantomData<*const ()>,
}

impl CallerRing {
    /// Builds a ring for the calling thread.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there can be none, with the reason.
    pub fn new(disk: &Arc<dyn Disk>) -> Result<Self, IoError> {
        let refuse = |reason: String| {
            let reason = format!("this thread can have no ring of its own: {reason}");
            let place = std::path::Path::new("(ring)");
            IoError::refused(IoOperation::Threads, place, IoErrorKind::Unsupported, reason)
        };
        let access = disk.caller_rings().map(|rings| rings.0);
        let access = access
            .ok_or_else(|| refuse("the disk does not run on io_uring, or is closed".to_owned()))?;
        let hosted = access.host().map_err(refuse)?;
        Ok(Self { hosted, disk: Arc::clone(disk), _not_send: PhantomData })
    }

    /// Takes in requests, like [`Disk::submit`]. They start with the next `poll` or `wait`. Past a
    /// few times its entries the ring passes requests on to the disk's own threads.
    pub fn submit(&self, batch: Vec<Request>) {
        self.during(|| self.disk.submit(batch));
    }

    /// Runs `work`; all it submits to the disk on this thread goes to this ring. For polling
    /// futures whose transfers this ring is to carry.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.hosted.during(work)
    }

    /// Starts what was submitted and tells what has ended, without waiting. Returns how many
    /// operations are still queued or in flight.
    pub fn poll(&self) -> usize {
        self.hosted.turn(None, false)
    }

    /// Like [`CallerRing::poll`], but waits until something has ended, the time is up, or nothing
    /// is in flight. It may return early.
    pub fn wait(&self, timeout: Option<Duration>) -> usize {
        self.hosted.turn(timeout, true)
    }

    /// Runs a future to its end on this ring: see [`drive`].
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.hosted.run(future)
    }

    /// How many operations are queued or in flight.
    pub fn in_flight(&self) -> usize {
        self.hosted.load()
    }
}

/// Readable when [`CallerRing::poll`] has something to tell.
#[cfg(target_os = "linux")]
impl std::os::fd::AsRawFd for CallerRing {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.hosted.descriptor()
    }
}

impl fmt::Debug for CallerRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CallerRing")
            .field("in_flight", &self.in_flight())
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

/// Leave to use rings of the calling thread: what a disk gives to [`drive`].
#[derive(Clone)]
pub struct CallerRings(pub(crate) CallerAccess);

impl fmt::Debug for CallerRings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CallerRings").finish_non_exhaustive()
    }
}
