//! `RwLock<HashMap<u64, Box<[u8]>>>`: what people write when nothing has to survive.

use std::{collections::HashMap, path::Path, sync::RwLock};

use super::rival::{Kind, Rival, Shape, Wait};
use crate::Outcome;

pub(super) const KIND: Kind = Kind { name: "map in memory", persists: false, open: Some(open) };

struct Memory {
    map: RwLock<HashMap<u64, Box<[u8]>>>,
    shape: Shape,
}

fn open(_: &Path, shape: &Shape) -> Outcome<Box<dyn Rival>> {
    Ok(Box::new(Memory { map: RwLock::default(), shape: *shape }))
}

impl Rival for Memory {
    fn put(&self, ids: &[u64], vectors: &[f32], _: Wait) -> Outcome<()> {
        let mut map = self.map.write().map_err(|_| "a writer panicked")?;
        for (id, vector) in ids.iter().zip(vectors.chunks_exact(self.shape.dimension)) {
            map.insert(*id, bytemuck::cast_slice(vector).into());
        }
        Ok(())
    }

    fn get(&self, id: u64) -> Outcome<()> {
        let map = self.map.read().map_err(|_| "a writer panicked")?;
        self.shape.touch(id, map.get(&id).ok_or("a stored vector is missing")?)
    }

    fn scan(&self) -> Outcome<u64> {
        let map = self.map.read().map_err(|_| "a writer panicked")?;
        map.iter().try_for_each(|(id, vector)| self.shape.touch(*id, vector))?;
        Ok(map.len() as u64)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(())
    }
}
