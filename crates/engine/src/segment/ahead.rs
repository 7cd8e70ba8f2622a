//! Memory of what scans and compactions read ahead: how much they may have, and what it is made of.
//!
//! A device is told of each page of a transfer, and a virtual one may take longer for that than for
//! the bytes. So scans that go on share huge pages, each cut into windows of one transfer, where
//! the limit has room for such a page; a scan that has just begun, and one that finds no window,
//! has a buffer for each transfer. Compactions have a room of their own, for what they read ahead
//! and what they write behind.
//!
//! Guarantees: the sum stays within a share of the memory limit, but for what must be had
//! (`take_anyway`: a second huge page where there is room for one, buffers beyond it), and all of
//! it is counted in the work memory, from before memory is asked for until after it is given back;
//! huge pages go back to the system once no window is in use. Lock rule: the windows' mutex is a
//! leaf; nothing is freed under it. Tested in this file, and through scans in `tests/it/scans.rs`.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use nephrite_io::{
    IoBuffer,
    memory::{AlignedBuf, Arena, HUGE_PAGE_BYTES, Region},
};

use super::work_memory::{Held, WorkMemory};
use crate::{error::Error, log_file::aligned};

/// What all scans together may read ahead, or all compactions.
#[derive(Debug)]
pub(crate) struct AheadRoom {
    work: Arc<WorkMemory>,
    most: u64,
    /// Bytes of a transfer, and so of a window: a part of a huge page.
    piece: usize,
    taken: Arc<AtomicU64>,
    windows: Mutex<Windows>,
}

/// Windows of huge pages. Fields are dropped in their order: memory goes before it counts no more.
#[derive(Debug, Default)]
struct Windows {
    free: Vec<Region>,
    /// Windows that a disk which ended has not given back: something may still be read into them.
    lost: usize,
    /// One for each huge page.
    pages: Vec<Taken>,
}

/// Whether there may be another huge page of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    None,
    /// Within the share of the memory limit.
    WithinLimit,
    /// A second page also beyond it.
    Anyway,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
struct Taken {
    from: Arc<AtomicU64>,
    bytes: u64,
    _held: Held,
}

impl AheadRoom {
    pub(crate) fn new(work: &Arc<WorkMemory>, most: u64, piece: usize) -> Self {
        let (taken, windows) = (Arc::default(), Mutex::default());
        Self { work: Arc::clone(work), most, piece, taken, windows }
    }

    /// Bytes of a transfer of a scan that goes on.
    pub(crate) fn piece_bytes(&self) -> usize {
        self.piece
    }

    fn windows_of_page(&self) -> usize {
        HUGE_PAGE_BYTES / self.piece
    }

    /// Whether there is room for so many bulk reads: a hint.
    pub(crate) fn has_room_for(&self, reads: usize) -> bool {
        let taken = self.taken.load(Ordering::Relaxed); // as in `try_take`
        let room = self.most.saturating_sub(taken) / self.piece as u64;
        reads as u64 <= room || reads as u64 <= room + self.lock().free.len() as u64
    }

    /// Memory for one read; a window if there are `many` to come, or nothing else is left. `None`
    /// without room.
    pub(super) fn take(
        self: &Arc<Self>,
        bytes: usize,
        spare: Option<AlignedBuf>,
        many: bool,
    ) -> Result<Option<AheadMemory>, Error> {
        if many && let Some(window) = self.window(bytes, Growth::WithinLimit) {
            return Ok(Some(window));
        }
        let Some(taken) = self.try_take(bytes as u64) else {
            return Ok(self.window(bytes, Growth::None));
        };
        let buffer = match spare.filter(|spare| spare.len() == bytes) {
            Some(buffer) => buffer,
            None => aligned(bytes)?,
        };
        let (buffer, room) = (Some(buffer.into()), Arc::clone(self));
        Ok(Some(AheadMemory { buffer, room, taken: Some(taken) }))
    }

    /// For a caller that must get on: a window, or else a buffer; without room more is taken.
    pub(crate) fn take_anyway(self: &Arc<Self>, bytes: usize) -> Result<AheadMemory, Error> {
        if let Some(window) = self.window(bytes, Growth::Anyway) {
            return Ok(window);
        }
        if let Some(memory) = self.take(bytes, None, false)? {
            return Ok(memory);
        }
        let taken = Some(self.add(bytes as u64));
        let buffer = Some(aligned(bytes)?.into());
        Ok(AheadMemory { buffer, room: Arc::clone(self), taken })
    }

    /// A window that is free, or else, as far as may be, one of another huge page.
    fn window(self: &Arc<Self>, bytes: usize, growth: Growth) -> Option<AheadMemory> {
        if self.piece < bytes {
            return None;
        }
        let mut windows = self.lock();
        if growth != Growth::None && windows.free.is_empty() {
            let page = HUGE_PAGE_BYTES as u64;
            let taken = match self.try_take(page) {
                Some(taken) => taken,
                // One more page than there is room for costs less than a buffer for each piece,
                // which the system clears and maps each time.
                None if growth == Growth::Anyway && windows.pages.len() == 1 => self.add(page),
                None => return None,
            };
            // Without the memory a buffer may still be had.
            windows.free = Arena::lent_out(self.piece, self.windows_of_page()).ok()?;
            windows.pages.push(taken);
        }
        let mut window = windows.free.pop()?;
        window.show(bytes);
        let buffer = Some(IoBuffer::Region(window));
        Some(AheadMemory { buffer, room: Arc::clone(self), taken: None })
    }

    /// A window that nobody uses any more; none for one that is lost.
    fn give_back(&self, window: Option<Region>) {
        let mut windows = self.lock();
        windows.lost += usize::from(window.is_none());
        windows.free.extend(window);
        let all_free =
            windows.free.len() + windows.lost == self.windows_of_page() * windows.pages.len();
        let unused = all_free.then(|| std::mem::take(&mut *windows));
        drop(windows);
        drop(unused);
    }

    fn try_take(&self, bytes: u64) -> Option<Taken> {
        let more = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.most);
        // Relaxed: a gauge that guards no memory.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(self.guard(bytes))
    }

    /// Adds to the sum, whatever it is.
    fn add(&self, bytes: u64) -> Taken {
        self.taken.fetch_add(bytes, Ordering::Relaxed); // as in `try_take`
        self.guard(bytes)
    }

    /// Bytes that were added to the sum.
    fn guard(&self, bytes: u64) -> Taken {
        Taken { from: Arc::clone(&self.taken), bytes, _held: self.work.hold(bytes) }
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.from.fetch_sub(self.bytes, Ordering::Relaxed); // as in `try_take`
    }
}

/// Memory of one read.
#[derive(Debug)]
pub(crate) struct AheadMemory {
    /// None while the disk has it.
    buffer: Option<IoBuffer>,
    room: Arc<AheadRoom>,
    /// None for a window, whose page is counted. Dropped after the buffer.
    taken: Option<Taken>,
}

impl AheadMemory {
    /// The bytes; none while the disk has the memory.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], IoBuffer::as_slice)
    }

    /// The bytes, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(IoBuffer::Owned(buffer)) => buffer,
            Some(IoBuffer::Region(window)) => window,
            _ => &mut [], // what it is made of is one of these
        }
    }

    /// The first `len` bytes, for the disk.
    pub(super) fn lend_part(&mut self, len: usize) -> IoBuffer {
        match self.lend() {
            IoBuffer::Owned(buffer) => IoBuffer::Part { buffer, len },
            IoBuffer::Region(mut window) => {
                window.show(len);
                IoBuffer::Region(window)
            }
            other => other,
        }
    }

    /// The buffer, for the disk.
    pub(super) fn lend(&mut self) -> IoBuffer {
        self.buffer.take().expect("memory is lent once")
    }

    pub(super) fn put_back(&mut self, buffer: IoBuffer) {
        self.buffer = Some(buffer);
    }

    /// The buffer of a read, for another one; none for a window.
    pub(super) fn into_buffer(mut self) -> Option<AlignedBuf> {
        let buffer = self.buffer.take_if(|buffer| matches!(buffer, IoBuffer::Owned(_)))?;
        buffer.into_aligned()
    }
}

impl Drop for AheadMemory {
    fn drop(&mut self) {
        match (self.buffer.take(), &self.taken) {
            (Some(IoBuffer::Region(window)), _) => self.room.give_back(Some(window)),
            (None, None) => self.room.give_back(None),
            (Some(_) | None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::traffic::PIECE_BYTES, *};

    const WINDOWS: usize = HUGE_PAGE_BYTES / PIECE_BYTES;

    fn room(most: usize) -> (Arc<WorkMemory>, Arc<AheadRoom>) {
        let work = Arc::default();
        let room = Arc::new(AheadRoom::new(&work, most as u64, PIECE_BYTES));
        (work, room)
    }

    fn take(room: &Arc<AheadRoom>, many: bool) -> Option<AheadMemory> {
        room.take(PIECE_BYTES, None, many).unwrap()
    }

    #[test]
    fn windows_share_a_huge_page_that_goes_back_with_the_last_of_them() {
        let (work, room) = room(HUGE_PAGE_BYTES);

        let windows: Vec<_> = std::iter::from_fn(|| take(&room, true)).collect();

        assert_eq!(windows.len(), WINDOWS);
        assert_eq!(work.bytes(), HUGE_PAGE_BYTES as u64);
        assert!(!room.has_room_for(1));
        let mut windows = windows.into_iter();
        drop(windows.next());
        assert!(room.has_room_for(1) && !room.has_room_for(2));
        assert!(take(&room, true).is_some());
        drop(windows);
        assert_eq!(work.bytes(), 0);
    }

    #[test]
    fn a_window_that_a_disk_keeps_holds_back_no_other() {
        let (work, room) = room(HUGE_PAGE_BYTES);
        let (mut lost, kept) = (take(&room, true).unwrap(), take(&room, true).unwrap());
        std::mem::forget(lost.lend());

        drop(lost);
        drop(kept);

        assert_eq!(work.bytes(), 0);
        assert!(take(&room, true).is_some());
        let weak = Arc::downgrade(&room);
        drop(room);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn a_free_window_serves_a_read_for_which_there_is_no_other_room() {
        let (_work, room) = room(HUGE_PAGE_BYTES);
        let _window = take(&room, true).unwrap();

        assert!(take(&room, false).is_some());
    }

    #[test]
    fn without_room_for_a_huge_page_each_read_has_a_buffer() {
        let (work, room) = room(HUGE_PAGE_BYTES - 1);

        let buffers: Vec<_> = std::iter::from_fn(|| take(&room, true)).collect();

        assert_eq!(buffers.len(), WINDOWS - 1);
        assert_eq!(work.bytes(), ((WINDOWS - 1) * PIECE_BYTES) as u64);
        assert!(buffers.into_iter().all(|memory| memory.into_buffer().is_some()));
        assert_eq!(work.bytes(), 0);
    }

    #[test]
    fn who_must_get_on_takes_more_than_there_is_room_for() {
        let (work, room) = room(PIECE_BYTES);
        let first = room.take_anyway(PIECE_BYTES).unwrap();

        let mut second = room.take_anyway(PIECE_BYTES).unwrap();

        assert!(take(&room, true).is_none());
        assert_eq!(work.bytes(), 2 * PIECE_BYTES as u64);
        second.bytes_mut().fill(7);
        let lent = second.lend_part(4096);
        assert_eq!(lent.as_slice(), [7; 4096]);
        second.put_back(lent);
        drop((first, second));
        assert_eq!(work.bytes(), 0);
    }

    #[test]
    fn who_must_get_on_has_one_huge_page_more_than_there_is_room_for() {
        let (work, room) = room(HUGE_PAGE_BYTES + PIECE_BYTES);
        let taken = |count: usize| -> Vec<_> {
            (0..count).map(|_| room.take_anyway(PIECE_BYTES).unwrap()).collect()
        };

        let windows = taken(2 * WINDOWS);
        assert_eq!(work.bytes(), 2 * HUGE_PAGE_BYTES as u64);
        let buffers = taken(2);

        assert_eq!(work.bytes(), (2 * HUGE_PAGE_BYTES + 2 * PIECE_BYTES) as u64);
        assert!(windows.into_iter().all(|memory| memory.into_buffer().is_none()));
        assert!(buffers.into_iter().all(|memory| memory.into_buffer().is_some()));
        assert_eq!(work.bytes(), 0);
    }

    #[test]
    fn a_part_of_a_window_is_lent_for_a_write_and_the_whole_comes_back() {
        let (_work, room) = room(HUGE_PAGE_BYTES);
        let mut memory = room.take_anyway(PIECE_BYTES).unwrap();

        let lent = memory.lend_part(8192);

        assert_eq!(lent.len(), 8192);
        memory.put_back(lent);
        drop(memory);
        assert_eq!(take(&room, true).unwrap().bytes().len(), PIECE_BYTES);
    }

    #[test]
    fn a_window_shows_what_is_read_into_it() {
        let (_work, room) = room(HUGE_PAGE_BYTES);
        let mut memory = room.take(8192, None, true).unwrap().unwrap();

        let buffer = memory.lend();
        assert!(memory.bytes().is_empty());
        memory.put_back(buffer);

        assert_eq!(memory.bytes().len(), 8192);
        assert!(memory.into_buffer().is_none());
        assert!(take(&room, false).is_some(), "all of it was given back");
    }
}
