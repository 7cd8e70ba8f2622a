//! A script of a store that is large enough to lend: memory passes to the cache while nobody
//! writes, and back to the memtables of who does. All other stores here are too small for a loan.

use std::{ops::Range, time::Duration};

use nephrite::{Database, DatabaseOptions, Durability, Ids, Store, VectorRef, runtime::Runtime};
use nephrite_io::sim::SimOptions;

use crate::{
    boot::{Boot, blank},
    scripts::{Trouble, broken, carry_out, ended},
};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 40 * MIB;
/// What a change and the work beside it may hold above the limit at a moment.
const SLACK: u64 = 3 * MIB;
/// The cache has its half and more, as it only can with a loan.
const LENT: u64 = LIMIT / 8 * 5;
const DIMENSION: u32 = 256;
/// Vectors of a batch, and those that fill 34 MiB.
const BATCH: u64 = 500;
const ALL: u64 = 34_000;
/// One vector in so many is read, each on a page of its own, or held.
const READ_EACH: u64 = 4;
const HELD_EACH: u64 = 100;
/// Times that everything is written.
const ROUNDS: u64 = 2;

/// The cache has what writers do not use, and gives it back before they hold it as well; vectors
/// that somebody holds meanwhile stay what they are.
///
/// # Errors
/// What is too much, or what was read that was not written.
pub fn lent_memory() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Ok(()); // nothing is lent where memory cannot be given back
    }
    let boot = Boot::new(SimOptions::new(1), blank(), 1);
    let store = ended(boot.open_within(LIMIT))?;
    carry_out(&boot, async {
        let database = store.create_database("a", DatabaseOptions::new(DIMENSION)).await?;
        write_all(&store, &database, 0).await?;
        for round in 1..=ROUNDS {
            store.flush().await?;
            // The compactions of the background have time, and the flush behind them lends.
            boot.runtime.sleep(Duration::from_secs(60)).await;
            store.flush().await?;
            read_all(&database, round - 1).await?;
            let cache = store.stats().cache_bytes;
            if cache < LENT {
                return broken(format!("the cache has {cache} bytes, and so no loan"));
            }
            let held = hold_some(&database).await?;
            write_all(&store, &database, round).await?;
            for (id, vector) in &held {
                check(*id, round - 1, vector)?;
            }
            drop(held);
            let least = write_all(&store, &database, round).await?;
            if LIMIT / 2 < least {
                return broken(format!("the cache had {least} bytes beside writers"));
            }
        }
        read_all(&database, ROUNDS).await
    })?;
    carry_out(&boot, async { Ok(store.close().await?) })
}

/// Writes everything anew, and looks at the memory behind each batch; the least that the cache had.
async fn write_all(store: &Store, database: &Database, round: u64) -> Result<u64, Trouble> {
    let mut least = u64::MAX;
    for first in (0..ALL).step_by(usize::try_from(BATCH).expect("a few hundred")) {
        let rows: Vec<f32> = rows(first..first + BATCH, round).collect();
        database.put_many(Ids::Consecutive(first), &rows, Durability::Buffered).await?;
        let (stats, newest) = (store.stats(), first + BATCH - 1);
        if LIMIT + SLACK < stats.memory_bytes() {
            return broken(format!("{} bytes are in use: {stats:?}", stats.memory_bytes()));
        }
        least = least.min(stats.cache_bytes);
        read(database, newest, round).await?;
        if round != 0 && newest + 1 < ALL {
            existing(database, ALL - 1).await?;
        }
    }
    Ok(least)
}

async fn read_all(database: &Database, round: u64) -> Result<(), Trouble> {
    for id in (0..ALL).step_by(usize::try_from(READ_EACH).expect("a few")) {
        read(database, id, round).await?;
    }
    Ok(())
}

async fn hold_some(database: &Database) -> Result<Vec<(u64, VectorRef)>, Trouble> {
    let mut held = Vec::new();
    for id in (0..ALL).step_by(usize::try_from(HELD_EACH).expect("a hundred")) {
        held.push((id, existing(database, id).await?));
    }
    Ok(held)
}

async fn read(database: &Database, id: u64, round: u64) -> Result<(), Trouble> {
    check(id, round, &existing(database, id).await?)
}

async fn existing(database: &Database, id: u64) -> Result<VectorRef, Trouble> {
    match database.get(id).await? {
        Some(vector) => Ok(vector),
        None => broken(format!("vector {id} is gone")),
    }
}

fn check(id: u64, round: u64, vector: &[f32]) -> Result<(), Trouble> {
    match vector.iter().copied().eq(rows(id..id + 1, round)) {
        true => Ok(()),
        false => broken(format!("vector {id} of round {round} begins with {:?}", &vector[..4])),
    }
}

/// The vectors of these ids in this round.
fn rows(ids: Range<u64>, round: u64) -> impl Iterator<Item = f32> {
    let value = move |id: u64| {
        let number = u16::try_from(id % 8000 * (ROUNDS + 1) + round).expect("below 24,000");
        f32::from(number)
    };
    ids.flat_map(move |id| std::iter::repeat_n(value(id), DIMENSION as usize))
}
