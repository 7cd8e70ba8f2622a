//! A plain file of vectors with an index in memory, read through a map or with `pread`.
//!
//! Vectors are appended to one file and their ids to another, from which the index is made again
//! at open. An update overwrites in place. Nothing is checksummed, and a crash may leave half an
//! update: this is less than the stores promise.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, OnceLock, RwLock},
};

use memmap2::{Advice, Mmap};

use super::rival::{Kind, Rival, Shape, Wait};
use crate::Outcome;

pub(super) const MAPPED: Kind = Kind {
    name: "mmap + index",
    persists: true,
    open: Some(|path, shape| Ok(Box::new(open(path, shape, true)?))),
};
pub(super) const READ: Kind = Kind {
    name: "pread + index",
    persists: true,
    open: Some(|path, shape| Ok(Box::new(open(path, shape, false)?))),
};

pub(super) struct Flat {
    vectors: File,
    ids: File,
    slots: RwLock<HashMap<u64, u64>>,
    /// Held while vectors are appended.
    appending: Mutex<()>,
    /// Made at the first read, of all that was stored until then.
    map: OnceLock<Mmap>,
    mapped: bool,
    shape: Shape,
}

/// The files in a directory, made where there are none.
pub(super) fn open(path: &Path, shape: &Shape, mapped: bool) -> Outcome<Flat> {
    fs::create_dir_all(path)?;
    let file = |name: &str| {
        let path = path.join(name);
        File::options().read(true).write(true).create(true).truncate(false).open(path)
    };
    let stored = fs::read(path.join("ids")).unwrap_or_default();
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes);
    let slots = stored.chunks_exact(8).zip(0..);
    let slots = slots.map(|(id, slot)| Ok((number(id)?, slot))).collect::<Outcome<_>>()?;
    let vectors = file("vectors")?;
    rustix::fs::fadvise(&vectors, 0, None, rustix::fs::Advice::Random)?;
    Ok(Flat {
        vectors,
        ids: file("ids")?,
        slots: RwLock::new(slots),
        appending: Mutex::new(()),
        map: OnceLock::new(),
        mapped,
        shape: *shape,
    })
}

impl Flat {
    pub(super) fn slot(&self, id: u64) -> Outcome<Option<u64>> {
        Ok(self.slots.read().map_err(|_| "a writer panicked")?.get(&id).copied())
    }

    /// The bytes of all vectors that were stored before the first call.
    fn map(&self) -> Outcome<&Mmap> {
        if self.map.get().is_none() {
            // SAFETY: the file lies in this run's own directory. Updates overwrite bytes of it
            // with `pwrite` while other threads read them: only figures depend on their values.
            let map = unsafe { Mmap::map(&self.vectors) }?;
            map.advise(Advice::Random)?;
            let _ = self.map.set(map); // another thread's is as good
        }
        Ok(self.map.get().ok_or("the map was just set")?)
    }

    fn append(&self, ids: &[u64], vectors: &[u8]) -> Outcome<()> {
        let appending = self.appending.lock().map_err(|_| "a writer panicked")?;
        let mut slots = self.slots.write().map_err(|_| "a writer panicked")?;
        let first = slots.len() as u64;
        self.vectors.write_all_at(vectors, first * self.shape.vector_bytes() as u64)?;
        let names: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.ids.write_all_at(&names, first * 8)?;
        slots.extend(ids.iter().copied().zip(first..));
        drop((slots, appending));
        Ok(())
    }
}

impl Rival for Flat {
    fn put(&self, ids: &[u64], vectors: &[f32], wait: Wait) -> Outcome<()> {
        let bytes: &[u8] = bytemuck::cast_slice(vectors);
        match ids {
            [id] if let Some(slot) = self.slot(*id)? => {
                self.vectors.write_all_at(bytes, slot * self.shape.vector_bytes() as u64)?;
                if wait == Wait::Durable {
                    self.vectors.sync_data()?;
                }
            }
            _ => {
                self.append(ids, bytes)?;
                if wait == Wait::Durable {
                    self.sync()?;
                }
            }
        }
        Ok(())
    }

    fn get(&self, id: u64) -> Outcome<()> {
        let slot = self.slot(id)?.ok_or("a stored vector is missing")?;
        let (len, start) = (self.shape.vector_bytes(), slot * self.shape.vector_bytes() as u64);
        if self.mapped {
            return self.shape.touch(id, &self.map()?[usize::try_from(start)?..][..len]);
        }
        let mut vector = vec![0; len];
        self.vectors.read_exact_at(&mut vector, start)?;
        self.shape.touch(id, &vector)
    }

    fn scan(&self) -> Outcome<u64> {
        let slots = self.slots.read().map_err(|_| "a writer panicked")?;
        let mut by_slot: Vec<(u64, u64)> = slots.iter().map(|(id, slot)| (*slot, *id)).collect();
        drop(slots);
        by_slot.sort_unstable();
        rustix::fs::fadvise(&self.vectors, 0, None, rustix::fs::Advice::Sequential)?;
        for (_, id) in &by_slot {
            self.get(*id)?;
        }
        rustix::fs::fadvise(&self.vectors, 0, None, rustix::fs::Advice::Random)?;
        Ok(by_slot.len() as u64)
    }

    fn sync(&self) -> Outcome<()> {
        self.vectors.sync_data()?;
        Ok(self.ids.sync_data()?)
    }
}
