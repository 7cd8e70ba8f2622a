//! Open segment files: at most `max_open_files`, over all databases.
//!
//! CLOCK over a small table: a use sets a flag, eviction clears flags until it finds an unused
//! file. Segment files are complete and synced before they come here, so closing one loses
//! nothing; operations in flight hold the file open by their own reference.
//! Lock rule: the table's mutex is a leaf; files are opened outside of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nephrite_format::FileId;
use nephrite_io::{Disk, FileHandle, OpenOptions};

use crate::{error::Error, paths::StorePaths};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    paths: StorePaths,
    limit: usize,
    table: Mutex<Table>,
    pub(crate) opens: AtomicU64,
    pub(crate) evictions: AtomicU64,
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
    pub(crate) fn new(disk: Arc<dyn Disk>, paths: StorePaths, limit: u32) -> Self {
        Self {
            disk,
            paths,
            limit: limit as usize,
            table: Mutex::default(),
            opens: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, opened for reading if it is not open. Cancel safe.
    pub(crate) async fn get(&self, id: FileId) -> Result<FileHandle, Error> {
        if let Some(file) = self.find(id) {
            return Ok(file);
        }
        // Segments are complete before they are read, and never written again.
        let options = OpenOptions::read_only().sealed();
        let file = self.disk.open(&self.paths.segment(id), options).await?;
        self.opens.fetch_add(1, Ordering::Relaxed); // a counter
        Ok(self.insert(id, file))
    }

    /// The file, if it is open.
    pub(crate) fn find(&self, id: FileId) -> Option<FileHandle> {
        self.lock().find(id)
    }

    /// Takes over a file that is open already; returns the one that is cached.
    pub(crate) fn insert(&self, id: FileId, file: FileHandle) -> FileHandle {
        let mut table = self.lock();
        if let Some(known) = table.find(id) {
            return known;
        }
        let evicted = if table.slots.len() < self.limit { None } else { table.evict() };
        let slot = table.slots.len();
        table.slots.push(Slot { id, file: file.clone(), used: false });
        table.by_id.insert(id, slot);
        drop(table);
        if evicted.is_some() {
            self.evictions.fetch_add(1, Ordering::Relaxed); // a counter
        }
        file
    }

    /// Closes the file of a segment that is no longer part of any database.
    pub(crate) fn forget(&self, id: FileId) {
        let mut table = self.lock();
        let slot = table.by_id.get(&id).copied();
        let removed = slot.map(|slot| table.remove(slot));
        drop(table);
        drop(removed);
    }

    pub(crate) fn open_count(&self) -> u64 {
        self.lock().slots.len() as u64
    }
}

impl Table {
    fn find(&mut self, id: FileId) -> Option<FileHandle> {
        let slot = &mut self.slots[*self.by_id.get(&id)?];
        slot.used = true;
        Some(slot.file.clone())
    }

    /// Removes the first file at the hand that was not used since the hand last passed.
    fn evict(&mut self) -> Option<Slot> {
        // Two rounds clear every flag, so a victim is found.
        for _ in 0..2 * self.slots.len() {
            self.hand %= self.slots.len();
            let slot = &mut self.slots[self.hand];
            if !slot.used {
                return Some(self.remove(self.hand));
            }
            slot.used = false;
            self.hand += 1;
        }
        None
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
