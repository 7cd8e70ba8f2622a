//! Open segment files: never more than the limit, over all databases, for reading and writing.
//!
//! Every open segment file holds a *permit* from before it is opened until it has been closed, so
//! the number of file descriptors is bounded at every moment. Who finds no permit makes room, in
//! this order: closes a file that nobody uses (CLOCK: not used since the hand last passed), or one
//! that was opened for a caller who has gone; parks a file under construction (its writes are
//! synced first, and an error stays with its sink); or takes a file in use out of the table, so
//! that it closes with its last operation, and waits.
//!
//! Guarantees: operations in flight keep their file open; a file that is opened again is the one
//! that was opened first, else it is reported; a failed sync of names is never made good by a later
//! one ([`OpenFiles::names_lost_since`]).
//! Rule against deadlock: nobody waits for a permit while holding a file. [`OpenFiles::try_get`] is
//! for those who hold one.
//! Lock rule: the mutexes here are leaves; files are opened and closed outside of them.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use async_lock::Mutex as AsyncMutex;
use event_listener::Event;
use nephrite_format::FileId;
use nephrite_io::{Disk, FileHandle, FileIdentity, IoError, IoFuture, OpenOptions};

use crate::{
    error::Error,
    paths::{StorePaths, segment_name},
    segment::sink::SegmentSink,
};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) paths: StorePaths,
    permits: Arc<Permits>,
    table: Mutex<Table>,
    /// Files under construction that are open.
    writers: Mutex<Vec<Weak<SegmentSink>>>,
    /// Being opened for callers that were dropped: each will be open, and keeps its permit until
    /// somebody needs it.
    abandoned: Mutex<Vec<BeingOpened>>,
    /// Which files the ids stood for when they were first opened.
    known: Mutex<HashMap<FileId, FileIdentity>>,
    /// Held while names are synced.
    names: AsyncMutex<()>,
    names_lost: Mutex<(u64, Option<IoError>)>,
    pub(crate) opens: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) parked: AtomicU64,
}

/// How many more files may be open.
#[derive(Debug)]
struct Permits {
    limit: usize,
    free: Mutex<usize>,
    /// A permit came free, or a file that could not be closed may be by now.
    changed: Event,
}

/// The right to have one file open; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify(1);
    }
}

/// A file on its way to being open, with its permit.
struct BeingOpened {
    opening: IoFuture<FileHandle>,
    permit: Permit,
}

impl fmt::Debug for BeingOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeingOpened").finish_non_exhaustive()
    }
}

/// Who waits for it; dropped early, it leaves both behind.
struct Waiting<'a> {
    files: &'a OpenFiles,
    being: Option<BeingOpened>,
}

impl Waiting<'_> {
    async fn finish(mut self) -> Result<FileHandle, Error> {
        let being = self.being.as_mut().expect("only this and the drop take it");
        let opened = being.opening.as_mut().await;
        let BeingOpened { permit, .. } = self.being.take().expect("as above");
        let file = opened?;
        file.hold_until_closed(Box::new(permit));
        Ok(file)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(being) = self.being.take() {
            lock(&self.files.abandoned).push(being);
            self.files.permits.changed.notify(1);
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    by_id: HashMap<FileId, usize>,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    id: FileId,
    file: FileHandle,
    used: bool,
}

impl OpenFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, paths: StorePaths, limit: usize) -> Self {
        let permits = Permits { limit, free: Mutex::new(limit), changed: Event::new() };
        Self {
            disk,
            paths,
            permits: Arc::new(permits),
            table: Mutex::default(),
            names: AsyncMutex::new(()),
            names_lost: Mutex::default(),
            writers: Mutex::default(),
            abandoned: Mutex::default(),
            known: Mutex::default(),
            opens: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            parked: AtomicU64::new(0),
        }
    }

    /// The file, opened for reading if it is not open. Cancel safe. The caller holds no file.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when another file has taken its name.
    pub(crate) async fn get(&self, id: FileId) -> Result<FileHandle, Error> {
        if let Some(file) = self.find(id) {
            return Ok(file);
        }
        let permit = self.permit().await;
        match self.find(id) {
            Some(file) => Ok(file),
            None => self.open(id, permit).await,
        }
    }

    /// As [`Self::get`] for a caller that holds files: `None` when it would have to wait.
    pub(crate) async fn try_get(&self, id: FileId) -> Result<Option<FileHandle>, Error> {
        if let Some(file) = self.find(id) {
            return Ok(Some(file));
        }
        let permit = self.try_permit().or_else(|| {
            self.evict();
            self.try_permit()
        });
        match permit {
            Some(permit) => self.open(id, permit).await.map(Some),
            None => Ok(None),
        }
    }

    async fn open(&self, id: FileId, permit: Permit) -> Result<FileHandle, Error> {
        // Segments are complete before they are read, and never written again.
        let file = self.open_with(id, OpenOptions::read_only().sealed(), permit).await?;
        self.opens.fetch_add(1, Ordering::Relaxed); // a counter
        self.check_same(id, &file)?;
        let file = self.insert(id, file);
        self.permits.changed.notify(1); // there is one more that can be closed
        Ok(file)
    }

    /// Opens a file that has the permit until it is closed, also when this future is dropped while
    /// the file is being opened.
    pub(crate) async fn open_with(
        &self,
        id: FileId,
        options: OpenOptions,
        permit: Permit,
    ) -> Result<FileHandle, Error> {
        let opening = self.disk.open(&self.paths.segment(id), options);
        Waiting { files: self, being: Some(BeingOpened { opening, permit }) }.finish().await
    }

    /// Closes a file that was being opened when its caller was dropped; `false` when there is none.
    async fn close_abandoned(&self) -> bool {
        let Some(abandoned) = lock(&self.abandoned).pop() else { return false };
        // Whether it could be opened is nobody's business any more.
        drop(Waiting { files: self, being: Some(abandoned) }.finish().await);
        true
    }

    /// Which file an id stands for.
    pub(crate) fn remember(&self, id: FileId, identity: FileIdentity) {
        lock(&self.known).insert(id, identity);
    }

    fn check_same(&self, id: FileId, file: &FileHandle) -> Result<(), Error> {
        let Some(found) = file.identity() else { return Ok(()) };
        let expected = *lock(&self.known).entry(id).or_insert(found);
        if expected == found {
            return Ok(());
        }
        let what = "another file has taken its name since it was first opened; put the original \
                    back, or close the store before files are exchanged";
        Err(Error::corrupt(segment_name(id), 0, what))
    }

    /// The file, if it is open.
    pub(crate) fn find(&self, id: FileId) -> Option<FileHandle> {
        lock(&self.table).find(id)
    }

    /// Adds a file; gives back the one that is in the table.
    fn insert(&self, id: FileId, file: FileHandle) -> FileHandle {
        let mut table = lock(&self.table);
        if let Some(known) = table.find(id) {
            return known;
        }
        let slot = table.slots.len();
        table.slots.push(Slot { id, file: file.clone(), used: false });
        table.by_id.insert(id, slot);
        file
    }

    /// Makes the names of segment files durable. One at a time, so that whoever sees it succeed
    /// also sees every failure before it in [`Self::names_lost_since`].
    pub(crate) async fn sync_names(&self) -> Result<(), IoError> {
        let _alone = self.names.lock().await;
        let synced = self.disk.sync_dir(self.paths.segments_dir()).await;
        if let Err(error) = &synced {
            let mut lost = lock(&self.names_lost);
            *lost = (lost.0 + 1, Some(error.clone()));
        }
        synced
    }

    /// How often a sync of names has failed.
    pub(crate) fn names_lost(&self) -> u64 {
        lock(&self.names_lost).0
    }

    /// The last failure, if there were more than `before`. What it was to cover may never become
    /// durable, whatever later syncs say.
    pub(crate) fn names_lost_since(&self, before: u64) -> Option<IoError> {
        let lost = lock(&self.names_lost);
        if lost.0 == before { None } else { lost.1.clone() }
    }

    /// Closes the file of a segment that is no longer part of any database.
    pub(crate) fn forget(&self, id: FileId) {
        let mut table = lock(&self.table);
        let slot = table.by_id.get(&id).copied();
        let removed = slot.map(|slot| table.remove(slot));
        drop(table);
        drop(removed);
        lock(&self.known).remove(&id);
    }

    /// Files that are open now.
    pub(crate) fn open_count(&self) -> u64 {
        (self.permits.limit - *lock(&self.permits.free)) as u64
    }

    /// The right to open a file. The caller holds no file. Cancel safe.
    pub(crate) async fn permit(&self) -> Permit {
        loop {
            let listener = self.permits.changed.listen();
            if let Some(permit) = self.try_permit() {
                return permit;
            }
            if self.evict() || self.close_abandoned().await || self.park_a_writer().await {
                continue;
            }
            self.doom();
            listener.await;
        }
    }

    fn try_permit(&self) -> Option<Permit> {
        let mut free = lock(&self.permits.free);
        *free = free.checked_sub(1)?;
        Some(Permit(Arc::clone(&self.permits)))
    }

    /// Closes a file that nobody uses; `false` when there is none.
    fn evict(&self) -> bool {
        let evicted = lock(&self.table).evict();
        let found = evicted.is_some();
        drop(evicted);
        self.evictions.fetch_add(u64::from(found), Ordering::Relaxed); // a counter
        found
    }

    /// Takes a file in use out of the table: it closes with its last operation.
    fn doom(&self) {
        let doomed = lock(&self.table).doom();
        if doomed.is_some() {
            self.evictions.fetch_add(1, Ordering::Relaxed); // a counter
        }
    }

    /// Syncs and closes a file under construction that is not being written now.
    async fn park_a_writer(&self) -> bool {
        let writers: Vec<Arc<SegmentSink>> =
            lock(&self.writers).iter().filter_map(Weak::upgrade).collect();
        for writer in writers {
            if writer.park().await {
                self.parked.fetch_add(1, Ordering::Relaxed); // a counter
                return true;
            }
        }
        false
    }

    /// A file under construction was opened.
    pub(crate) fn add_writer(&self, sink: &Arc<SegmentSink>) {
        let mut writers = lock(&self.writers);
        writers.retain(|known| 0 < known.strong_count() && !known.ptr_eq(&Arc::downgrade(sink)));
        writers.push(Arc::downgrade(sink));
    }

    /// A file under construction may be closed by now.
    pub(crate) fn writer_rests(&self) {
        self.permits.changed.notify(1);
    }
}

impl Table {
    fn find(&mut self, id: FileId) -> Option<FileHandle> {
        let slot = &mut self.slots[*self.by_id.get(&id)?];
        slot.used = true;
        Some(slot.file.clone())
    }

    /// Removes the first file at the hand that nobody holds and that was not used since the hand
    /// last passed.
    fn evict(&mut self) -> Option<Slot> {
        // Two rounds clear every flag, so a victim is found if there is one.
        for _ in 0..2 * self.slots.len() {
            self.hand %= self.slots.len();
            let slot = &mut self.slots[self.hand];
            if !slot.used && !slot.file.is_shared() {
                return Some(self.remove(self.hand));
            }
            slot.used = false;
            self.hand += 1;
        }
        None
    }

    fn doom(&mut self) -> Option<Slot> {
        if self.slots.is_empty() {
            return None;
        }
        self.hand %= self.slots.len();
        Some(self.remove(self.hand))
    }

    fn remove(&mut self, slot: usize) -> Slot {
        let removed = self.slots.swap_remove(slot);
        self.by_id.remove(&removed.id);
        if let Some(moved) = self.slots.get(slot) {
            self.by_id.insert(moved.id, slot);
        }
        removed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
