//! What each host does with the engine: put, get, get_many, flush, and reading back.

use nephrite::{DatabaseOptions, Durability, IdRef, Store};

/// Anything that goes wrong ends an example.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const VECTORS: u64 = 1000;
const DIMENSION: u32 = 8;

/// A directory that is removed at the end, in the one that the command line names or the
/// system's temporary one.
pub(crate) fn place() -> Result<tempfile::TempDir, Failure> {
    Ok(match std::env::args_os().nth(1) {
        Some(directory) => tempfile::TempDir::with_prefix_in("nephrite-host-", directory)?,
        None => tempfile::TempDir::with_prefix("nephrite-host-")?,
    })
}

/// Stores vectors in a new database and reads them back.
pub(crate) async fn run(store: &Store) -> Result<(), Failure> {
    let report = store.backend_report();
    println!("engine's I/O: {} ({})", report.chosen, report.reason);
    let database = store.create_database("vectors", DatabaseOptions::new(DIMENSION)).await?;
    for id in 0..VECTORS {
        database.put(id, &vector(id)).await?;
    }
    database.put_with(VECTORS, &vector(VECTORS), Durability::Synced).await?;
    let one = database.get(7).await?.ok_or("a stored vector is missing")?;
    check(7, &one)?;
    drop(one);
    store.flush().await?;
    let ids: Vec<IdRef<'_>> = (0..=VECTORS).map(IdRef::U64).collect();
    let found = database.get_many(&ids).await?;
    for (id, vector) in (0..).zip(&found) {
        check(id, vector.as_ref().ok_or("a stored vector is missing")?)?;
    }
    println!("get_many: {} vectors, all as stored", found.len());
    Ok(())
}

fn vector(id: u64) -> [f32; DIMENSION as usize] {
    std::array::from_fn(|place| id as f32 + place as f32 / 16.0)
}

fn check(id: u64, found: &[f32]) -> Result<(), Failure> {
    if found == vector(id) {
        return Ok(());
    }
    Err(format!("vector {id} is {found:?}").into())
}
