//! Vectors that stay in memory without their pages, while ids are overwritten and deleted, flushed
//! and compacted: what is read is what was written last.

use std::collections::HashMap;

use nephrite::{
    Config, DatabaseOptions, Durability, Ids,
    blocking::{Database, Store},
};

const DIMENSION: u32 = 128;
const LEN: usize = DIMENSION as usize;
/// Four times the cache, which is half of the limit of 16 MiB.
const IDS: u64 = 65_536;
const POPULAR: u64 = 1_500;

struct Model {
    store: Store,
    database: Database,
    /// What the ids hold that were changed since the start; `None` when deleted.
    changed: HashMap<u64, Option<u16>>,
    random: u64,
}

impl Model {
    fn new(directory: &tempfile::TempDir) -> Self {
        let config = Config::new().memory_limit(16 << 20).memtable_bytes(4 << 20);
        let store = Store::create(directory.path().join("store"), config).unwrap();
        let database = store.create_database("a", DatabaseOptions::new(DIMENSION)).unwrap();
        for start in (0..IDS).step_by(4096) {
            let vectors: Vec<f32> =
                (start..start + 4096).flat_map(|id| vector(id, original(id))).collect();
            database.put_many(Ids::Consecutive(start), &vectors, Durability::Buffered).unwrap();
        }
        store.flush().unwrap();
        Self { store, database, changed: HashMap::new(), random: 7 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 32) * bound) >> 32
    }

    /// An id that is read often, on a page of its own, in three of four draws.
    fn draw(&mut self) -> u64 {
        if self.below(4) == 0 {
            return self.below(IDS);
        }
        let number = self.below(POPULAR);
        number * (IDS / POPULAR) + number % 8
    }

    fn read(&self, id: u64) {
        let expected = self.changed.get(&id).copied().unwrap_or(Some(original(id)));
        let found = self.database.get(id).unwrap();
        assert_eq!(found.map(|it| it.to_vec()), expected.map(|value| vector(id, value)), "{id}");
    }

    fn change(&mut self) {
        let (id, value) = (self.draw(), u16::try_from(self.below(60_000)).unwrap());
        if self.below(3) == 0 {
            self.database.delete(id).unwrap();
            self.changed.insert(id, None);
        } else {
            self.database.put(id, &vector(id, value)).unwrap();
            self.changed.insert(id, Some(value));
        }
    }

    fn read_many(&mut self) {
        let ids: Vec<u64> = (0..50).map(|_| self.draw()).collect();
        let wanted: Vec<_> = ids.iter().map(|id| (*id).into()).collect();
        for (id, found) in ids.iter().zip(self.database.get_many(&wanted).unwrap()) {
            let expected = self.changed.get(id).copied().unwrap_or(Some(original(*id)));
            assert_eq!(found.map(|it| it.to_vec()), expected.map(|value| vector(*id, value)));
        }
    }
}

fn original(id: u64) -> u16 {
    u16::try_from(id % 60_000).unwrap()
}

fn vector(id: u64, value: u16) -> Vec<f32> {
    let mut vector = vec![f32::from(value); LEN];
    vector[0] = f32::from(u16::try_from(id & 0xffff).unwrap());
    vector
}

#[test]
fn what_outlives_its_page_is_what_was_written_last() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model::new(&directory);
    for round in 0..6 {
        for _ in 0..6_000 {
            let id = model.draw();
            model.read(id);
        }
        (0..40).for_each(|_| model.read_many());
        (0..300).for_each(|_| model.change());
        match round % 3 {
            0 => model.database.flush().unwrap(),
            1 => model.database.compact().unwrap(),
            _ => {}
        }
    }

    // A compaction that ends late takes along what was kept of its inputs: read on without changes.
    for _ in 0..60 {
        if model.store.stats().cache_record_hits != 0 {
            break;
        }
        (0..1000).for_each(|_| {
            let id = model.draw();
            model.read(id);
        });
    }
    let stats = model.store.stats();
    assert_ne!(stats.cache_record_hits, 0, "{stats:?}");
}

#[test]
fn vectors_read_together_at_random_leave_the_cache_to_pages() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model::new(&directory);

    for _ in 0..600 {
        let ids: Vec<u64> = (0..50).map(|_| model.below(IDS)).collect();
        let wanted: Vec<_> = ids.iter().map(|id| (*id).into()).collect();
        assert!(model.database.get_many(&wanted).unwrap().iter().all(Option::is_some));
    }

    let stats = model.store.stats();
    assert!(stats.cache_record_bytes <= stats.cache_bytes / 8, "{stats:?}");
}
