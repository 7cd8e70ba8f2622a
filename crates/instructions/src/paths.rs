//! The paths that are counted, each over the same operations every time.
//!
//! A path is set up and run twice without being counted, so that lazily made things exist and what
//! is kept from the second visit on is kept. Ids are drawn before the count begins. Only the
//! calling thread counts: what threads of the engine do meanwhile depends on when they run.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use nephrite::blocking::{Database, Store};
use nephrite::{BackendChoice, Config, DatabaseOptions, Durability, IdKind, IdRef, Ids};
use nephrite_format::filter::{IdFilter, IdHash};
use nephrite_format::{
    DatabaseId, ElementType, FileId, Generation, PageIdentity, StoreId, VectorLayout,
    page_checksum, wal,
};
use nephrite_pager::{CachedFile, Lookup, Pager, PagerConfig};
use tempfile::TempDir;

use crate::Failure;

const DIMENSION: u32 = 128;
const VECTORS: u64 = 4000;
const BATCH: usize = 1000;
const MANY: usize = 100;
const MEMORY_BYTES: u64 = 64 << 20;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path {
    Get(Form),
    GetMany(Form),
    Absent(Form),
    Put,
    PutMany,
    Miss,
    Probe,
    Encode,
    Checksum,
}

/// All paths by their names.
pub(crate) const PATHS: [(&str, Path); 14] = [
    ("get dense", Path::Get(Form::Dense)),
    ("get sparse", Path::Get(Form::Sparse)),
    ("get strings", Path::Get(Form::Strings)),
    ("get_many(100) dense", Path::GetMany(Form::Dense)),
    ("get_many(100) sparse", Path::GetMany(Form::Sparse)),
    ("get_many(100) strings", Path::GetMany(Form::Strings)),
    ("absent sparse", Path::Absent(Form::Sparse)),
    ("absent strings", Path::Absent(Form::Strings)),
    ("put", Path::Put),
    ("put_many(1000)", Path::PutMany),
    ("miss bookkeeping", Path::Miss),
    ("filter probe", Path::Probe),
    ("encode a log record", Path::Encode),
    ("checksum of 4 KiB", Path::Checksum),
];

/// Operations of a path each time that it runs.
pub(crate) const OPERATIONS: u64 = 2000;

/// What a path does, as something that can be called again.
pub(crate) type Call<'a> = &'a mut dyn FnMut() -> Result<(), Failure>;

impl Path {
    /// Sets the path up and gives it to `count`, which calls it.
    pub(crate) fn run(
        self,
        count: impl Fn(Call<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Get(form) => Filled::new(form)?.get(count),
            Self::GetMany(form) => Filled::new(form)?.get_many(count),
            Self::Absent(form) => Filled::new(form)?.absent(count),
            Self::Put => put(count),
            Self::PutMany => put_many(count),
            Self::Miss => miss(count),
            Self::Probe => probe(count),
            Self::Encode => encode(count),
            Self::Checksum => checksum(count),
        }
    }
}

/// Which ids a store has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// 0, 1, 2, ...
    Dense,
    /// Numbers anywhere.
    Sparse,
    /// `document-` and 16 digits.
    Strings,
}

impl Form {
    fn id(self, number: u64) -> OwnedId {
        match self {
            Self::Dense => OwnedId::Number(number),
            Self::Sparse => OwnedId::Number(mix(number)),
            Self::Strings => OwnedId::Text(format!("document-{:016x}", mix(number))),
        }
    }

    fn kind(self) -> IdKind {
        match self {
            Self::Dense | Self::Sparse => IdKind::U64,
            Self::Strings => IdKind::Bytes,
        }
    }
}

enum OwnedId {
    Number(u64),
    Text(String),
}

impl OwnedId {
    fn as_ref(&self) -> IdRef<'_> {
        match self {
            Self::Number(number) => IdRef::U64(*number),
            Self::Text(text) => IdRef::Bytes(text.as_bytes()),
        }
    }
}

/// SplitMix64's output function: a bijection.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A store whose vectors are in a segment and in memory, under the ids of the first numbers.
struct Filled {
    form: Form,
    database: Database,
    store: Store,
    _directory: TempDir,
}

impl Filled {
    fn new(form: Form) -> Result<Self, Failure> {
        let (directory, store, database) = empty(form.kind())?;
        let vectors = vec![1.5; BATCH * DIMENSION as usize];
        let ids: Vec<OwnedId> = (0..VECTORS).map(|number| form.id(number)).collect();
        for ids in ids.chunks(BATCH) {
            put_all(&database, ids, &vectors[..ids.len() * DIMENSION as usize])?;
        }
        store.flush()?;
        Ok(Self { form, database, store, _directory: directory })
    }

    /// The ids of operations: some of those stored, or of those that are not.
    fn drawn(&self, stored: bool) -> Vec<OwnedId> {
        let first = if stored { 0 } else { VECTORS };
        (0..OPERATIONS).map(|at| self.form.id(first + mix(at) % VECTORS)).collect()
    }

    fn get(self, count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let stored = self.drawn(true);
        count(&mut || {
            for id in &stored {
                let vector = self.database.get(id.as_ref())?.ok_or("a stored vector is missing")?;
                black_box(vector[0]);
            }
            Ok(())
        })?;
        Ok(self.store.close()?)
    }

    fn get_many(self, count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let stored = self.drawn(true);
        let ids: Vec<IdRef<'_>> = stored.iter().map(OwnedId::as_ref).collect();
        count(&mut || {
            for ids in ids.chunks(MANY) {
                let found = self.database.get_many(ids)?;
                for vector in &found {
                    black_box(vector.as_ref().ok_or("a stored vector is missing")?[0]);
                }
            }
            Ok(())
        })?;
        Ok(self.store.close()?)
    }

    fn absent(self, count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        let others = self.drawn(false);
        count(&mut || {
            for id in &others {
                black_box(self.database.contains(id.as_ref())?);
            }
            Ok(())
        })?;
        Ok(self.store.close()?)
    }
}

/// Threads carry its files: what a ring costs the caller depends on the kernel.
fn empty(kind: IdKind) -> Result<(TempDir, Store, Database), Failure> {
    let directory = tempfile::tempdir()?;
    let config = Config::new()
        .memory_limit(MEMORY_BYTES)
        .flush_interval(Duration::ZERO)
        .backend(BackendChoice::Positional);
    let store = Store::create(directory.path().join("store"), config)?;
    let options = DatabaseOptions::new(DIMENSION).id_kind(kind);
    let database = store.create_database("vectors", options)?;
    Ok((directory, store, database))
}

fn put_all(database: &Database, ids: &[OwnedId], vectors: &[f32]) -> Result<(), Failure> {
    let number = |id: &OwnedId| match id {
        OwnedId::Number(number) => Some(*number),
        OwnedId::Text(_) => None,
    };
    let numbers: Option<Vec<u64>> = ids.iter().map(number).collect();
    let texts = ids.iter().map(|id| match id.as_ref() {
        IdRef::Bytes(bytes) => bytes,
        IdRef::U64(_) => &[],
    });
    let ids = match &numbers {
        Some(numbers) => Ids::U64(numbers),
        None => Ids::Bytes(&texts.collect::<Vec<_>>()),
    };
    Ok(database.put_many(ids, vectors, Durability::Buffered)?)
}

/// Writes of one vector that stay in memory; every call has ids of its own.
fn put(count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let (_directory, store, database) = empty(IdKind::U64)?;
    let vector = [2.5; DIMENSION as usize];
    let mut next = 0;
    count(&mut || {
        for number in next..next + OPERATIONS {
            database.put_with(mix(number), &vector, Durability::Buffered)?;
        }
        next += OPERATIONS;
        Ok(())
    })?;
    Ok(store.close()?)
}

/// The same a thousand at a time.
fn put_many(count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let (_directory, store, database) = empty(IdKind::U64)?;
    let vectors = vec![2.5; BATCH * DIMENSION as usize];
    let ids: Vec<u64> = (0..OPERATIONS * 3).map(mix).collect();
    let mut batches = ids.chunks(BATCH);
    count(&mut || {
        for ids in batches.by_ref().take(usize::try_from(OPERATIONS)? / BATCH) {
            database.put_many(Ids::U64(ids), &vectors, Durability::Buffered)?;
        }
        Ok(())
    })?;
    Ok(store.close()?)
}

/// The cache's part of a miss: a file with far more pages than there are frames.
fn miss(count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    const FRAMES: usize = 256;
    const PAGES: u32 = 16_384;
    let pager = Pager::new(PagerConfig::new(FRAMES * 4096))?;
    let file: Arc<CachedFile> = pager.open_file(4096, PAGES)?;
    let mut page = 0;
    count(&mut || {
        for _ in 0..OPERATIONS {
            page = (page + 1) % PAGES;
            match file.get(page) {
                Lookup::Load(mut load) => {
                    let buffer = load.take_buffer();
                    load.complete(buffer, Ok(()));
                }
                _ => return Err("a page that was never loaded is there".into()),
            }
        }
        Ok(())
    })
}

fn probe(count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut filter = IdFilter::for_ids(VECTORS.try_into()?);
    (0..VECTORS).for_each(|id| filter.insert(IdRef::U64(id * 2)));
    count(&mut || {
        for id in 0..OPERATIONS {
            black_box(filter.may_contain(IdHash::of(IdRef::U64(black_box(id * 2 + 1)))));
        }
        Ok(())
    })
}

fn encode(count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let layout = VectorLayout::for_dimension(DIMENSION, ElementType::F32)?;
    let vector = [0.25; DIMENSION as usize];
    let mut record = vec![0; wal::operations_len(wal::put_len(IdRef::U64(0), &layout))];
    count(&mut || {
        for id in 0..OPERATIONS {
            let database = DatabaseId::new(1);
            let mut encoder =
                wal::OperationsEncoder::new(&mut record, database, IdKind::U64, &layout, 1);
            encoder.put(IdRef::U64(black_box(id)), &vector);
            black_box(encoder.finish());
        }
        Ok(())
    })
}

fn checksum(count: impl Fn(Call<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let identity =
        PageIdentity::new(StoreId::new([7; 16]), FileId::new(3), Generation::new(1), 4096);
    let page = vec![0x5a; 4096];
    count(&mut || {
        for _ in 0..OPERATIONS {
            black_box(page_checksum(identity, black_box(&page)));
        }
        Ok(())
    })
}
