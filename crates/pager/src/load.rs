//! Loads: the right and the duty to read one page into its frame, and the wait for it.
//!
//! ```text
//! Lookup::Load
//!   -> take_buffer -> (the caller's read) -> complete(buffer, Ok)    page resident
//!                                        \-> complete(buffer, Err)   frame free, waiters told
//!   -> dropped                                                       abandoned: the same
//! ```
//!
//! Guarantee: while the buffer is out, the frame is neither read nor given to anybody else. A
//! `Load` that is dropped (or completed with another buffer) while its own buffer is still out sets
//! the frame aside for good, because the kernel may still write to it; `PagerStats::frames_lost`
//! counts that. The frame and its share of the pin budget stay used.
//! `complete` may run on any thread; it takes short locks and waits for nothing else.
//! Checked by the loom models `single_flight` and `whole_path` and the tests of `pager.rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use nephrite_io::memory::Region;

use crate::error::LoadError;
use crate::file::CachedFile;
use crate::frame::FrameNo;
use crate::guard::{FramePin, PageGuard};
use crate::load_table::LoadCell;
use crate::shared::Shared;
use crate::sync::Arc;

/// The caller must load this page: it is the first who missed it.
///
/// Take the buffer, read the page into it, and hand both to [`Load::complete`]. Dropping a `Load`
/// instead abandons it: those who wait for the page get an error that says so.
#[derive(Debug)]
#[must_use = "dropping a load abandons it, and all who wait for the page"]
pub struct Load {
    file: std::sync::Arc<CachedFile>,
    cell: Arc<LoadCell>,
    page: u32,
    frame: FrameNo,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    BufferHere,
    BufferOut,
    Ended,
}

impl Load {
    /// For the one getter that has put `cell` into the load table and `frame` into loading.
    pub(crate) fn new(
        file: std::sync::Arc<CachedFile>,
        cell: Arc<LoadCell>,
        page: u32,
        frame: FrameNo,
    ) -> Self {
        Self { file, cell, page, frame, stage: Stage::BufferHere }
    }

    /// The page to load.
    pub fn page(&self) -> u32 {
        self.page
    }

    /// The file it belongs to.
    pub fn file(&self) -> &std::sync::Arc<CachedFile> {
        &self.file
    }

    /// The memory to read the page into: `page_bytes` long, with old bytes in it.
    ///
    /// # Panics
    ///
    /// When called a second time.
    pub fn take_buffer(&mut self) -> Region {
        assert!(self.stage == Stage::BufferHere, "the buffer of a load can be taken once");
        self.stage = Stage::BufferOut;
        let shared = self.file.shared();
        // SAFETY: the frame is loading and ours. It leaves that state in `complete`, which has got
        // the region back, or in `drop`, which leaves it alone while the buffer is out.
        unsafe { shared.memory.lend(self.frame, self.file.page_bytes() as usize) }
    }

    /// A wait for this page, for the loader itself: it resolves when the load is completed.
    pub fn wait(&self) -> LoadWait {
        LoadWait::new(&self.cell)
    }

    /// Ends the load with the buffer it lent. With `Ok` the buffer must hold the page.
    ///
    /// Wakes all who wait for the page. With an error they get the error, the frame is free again,
    /// and the next look-up starts a new load. A buffer of another load counts as an error, too.
    pub fn complete(mut self, buffer: Region, outcome: Result<(), LoadError>) {
        let memory = &self.file.shared().memory;
        if !memory.is_window(&buffer, self.frame, self.file.page_bytes() as usize) {
            self.set_aside(LoadError::foreign_buffer());
            return;
        }
        #[cfg(loom)]
        memory.stamp(self.frame, u64::from(self.page));
        drop(buffer);
        match outcome {
            Ok(()) => self.publish(),
            Err(error) => self.fail(error),
        }
    }

    fn publish(&mut self) {
        self.stage = Stage::Ended;
        let shared = self.file.shared();
        let wakers = {
            let owner = self.file.owner(self.page);
            let mut shard = shared.loads.shard(owner);
            // SAFETY: the frame becomes resident in `succeed`, before anybody can see this value;
            // the pin of the loader is held until after.
            let pin = unsafe {
                FramePin::new(Shared::pointer(shared), self.frame, self.file.page_bytes())
            };
            let wakers = self.cell.succeed(pin, |waiters| {
                shared.frame(self.frame).state.finish_load(waiters);
                self.file.map(self.page, self.frame);
            });
            shard.remove(&owner);
            wakers
        };
        // SAFETY: the pin that the frame got when its load began; no lock is held.
        unsafe { Shared::unpin(Shared::pointer(shared), self.frame) };
        drop(wakers);
    }

    fn fail(&mut self, error: LoadError) {
        self.stage = Stage::Ended;
        let shared = self.file.shared();
        shared.counters.loads_failed.fetch_add(1, Relaxed);
        let wakers = self.end(error);
        shared.frame(self.frame).state.fail_load();
        shared.free(self.frame);
        drop(wakers);
    }

    /// Tells the waiters, but leaves the frame loading: somebody else may still write to it.
    fn set_aside(&mut self, error: LoadError) {
        self.stage = Stage::Ended;
        let counters = &self.file.shared().counters;
        counters.loads_failed.fetch_add(1, Relaxed);
        counters.frames_lost.fetch_add(1, Relaxed);
        drop(self.end(error));
    }

    fn end(&self, error: LoadError) -> crate::load_table::Wakers {
        let owner = self.file.owner(self.page);
        let mut shard = self.file.shared().loads.shard(owner);
        let wakers = self.cell.fail(error);
        shard.remove(&owner);
        wakers
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        match self.stage {
            Stage::BufferHere => self.fail(LoadError::abandoned()),
            Stage::BufferOut => self.set_aside(LoadError::abandoned()),
            Stage::Ended => {}
        }
    }
}

/// Resolves to the page when its load, run by somebody else, is completed.
///
/// # Cancel safety
///
/// May be dropped at any time; the load goes on. The pin of a page that was ready is dropped.
#[derive(Debug)]
#[must_use = "a wait does nothing unless awaited"]
pub struct LoadWait {
    cell: Arc<LoadCell>,
    place: usize,
    answered: bool,
}

impl LoadWait {
    pub(crate) fn new(cell: &Arc<LoadCell>) -> Self {
        Self { cell: Arc::clone(cell), place: cell.join(), answered: false }
    }
}

impl Future for LoadWait {
    type Output = Result<PageGuard, LoadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.answered, "polled after it was ready");
        let answer = std::task::ready!(self.cell.poll(self.place, context));
        self.answered = true;
        // SAFETY: the pin made for this waiter, handed over once: `answered` is set.
        Poll::Ready(answer.map(|pin| unsafe { pin.guard() }))
    }
}

impl Drop for LoadWait {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if let Some(pin) = self.cell.leave(self.place) {
            // SAFETY: the pin made for this waiter, which was not handed over.
            drop(unsafe { pin.guard() });
        }
    }
}
