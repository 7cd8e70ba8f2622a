//! What people write themselves instead of using a store: the rivals of `hot`.
//!
//! Each answers a read of a row with the vector, found as its users would find it. The file behind
//! the mapped and the read rival is written once and read through, so that it is in the system's
//! cache.

use std::{
    collections::HashMap, fs::File, hash::Hash, io::Write, os::unix::fs::FileExt, sync::RwLock,
};

use memmap2::Mmap;
use nephrite::IdRef;

use crate::{
    Outcome,
    place::Place,
    rows::{RowIds, Rows},
};

/// Every rival over the same rows.
pub(crate) struct Rivals<'a> {
    rows: &'a Rows,
    map: LockedMap<'a>,
    file: File,
    mapped: Mmap,
    /// Id to offset in the mapping.
    offsets: HashMap<u64, u64>,
}

/// A map behind a lock, with the keys of the store.
enum LockedMap<'a> {
    U64(RwLock<HashMap<u64, Box<[f32]>>>),
    Bytes(RwLock<HashMap<&'a [u8], Box<[f32]>>>),
}

impl<'a> Rivals<'a> {
    pub(crate) fn new(place: &Place, rows: &'a Rows) -> Outcome<Self> {
        let path = place.join("vectors.raw");
        let mut file = File::create(&path)?;
        let mut bytes = Vec::new();
        for row in 0..rows.len() {
            bytes.extend(rows.vector(row).iter().flat_map(|value| value.to_le_bytes()));
            if 1 << 20 <= bytes.len() || row + 1 == rows.len() {
                file.write_all(&bytes)?;
                bytes.clear();
            }
        }
        let file = File::open(&path)?;
        let mapped = crate::mapped::map(&file)?;
        let stride = u64::from(rows.dimension) * 4;
        let offsets = (0..rows.len() as u64).map(|row| (row, row * stride)).collect();
        Ok(Self { rows, map: LockedMap::new(rows), file, mapped, offsets })
    }

    /// A flat array indexed by row.
    pub(crate) fn flat(&self, row: usize) -> &[f32] {
        self.rows.vector(row)
    }

    /// `RwLock<HashMap<id, Box<[f32]>>>`.
    pub(crate) fn locked<T>(&self, row: usize, read: impl FnOnce(&[f32]) -> T) -> Outcome<T> {
        match (&self.map, self.rows.ids.get(row)) {
            (LockedMap::U64(map), IdRef::U64(id)) => look_up(map, &id, read),
            (LockedMap::Bytes(map), IdRef::Bytes(id)) => look_up(map, &id, read),
            _ => Err("the map was built from these ids".into()),
        }
    }

    /// A mapped file with a map from ids to offsets in front.
    pub(crate) fn mapped(&self, row: usize) -> Outcome<&[u8]> {
        let offset = self.offsets.get(&(row as u64)).ok_or("a stored vector is missing")?;
        let start = usize::try_from(*offset)?;
        Ok(&self.mapped[start..start + self.rows.dimension as usize * 4])
    }

    /// A positional read from the system's cache.
    pub(crate) fn read(&self, row: usize, buffer: &mut [u8]) -> Outcome<()> {
        Ok(self.file.read_exact_at(buffer, (row * buffer.len()) as u64)?)
    }
}

impl<'a> LockedMap<'a> {
    fn new(rows: &'a Rows) -> Self {
        let vectors = (0..rows.len()).map(|row| rows.vector(row).into());
        match &rows.ids {
            RowIds::U64(ids) => Self::U64(RwLock::new(ids.iter().copied().zip(vectors).collect())),
            RowIds::Bytes(ids) => {
                let ids = ids.iter().map(|id| &**id);
                Self::Bytes(RwLock::new(ids.zip(vectors).collect()))
            }
        }
    }
}

fn look_up<K: Eq + Hash, T>(
    map: &RwLock<HashMap<K, Box<[f32]>>>,
    id: &K,
    read: impl FnOnce(&[f32]) -> T,
) -> Outcome<T> {
    let map = map.read().map_err(|_| "a writer panicked")?;
    Ok(read(map.get(id).ok_or("a stored vector is missing")?))
}
