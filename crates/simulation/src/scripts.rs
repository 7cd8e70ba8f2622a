//! Scripts of a few lives of a machine, step by step, for what chance meets too seldom.
//!
//! Each is about one promise, and returns an error that says how it was broken. The tests of this
//! crate run them on the engine as it is, `examples/planted.rs` on one with a bug.

use std::{fmt, time::Duration};

use nephrite::{Database, DatabaseOptions, Durability, Error, Ids, Store, runtime::Runtime};
use nephrite_io::{
    IoOperation,
    sim::{Fate, Fault, FaultPlan, FaultRule, Image, SimOptions},
};

use crate::{
    boot::{Boot, blank},
    runtime::Ended,
};

const DIMENSION: u32 = 3;
const VECTOR: [f32; 3] = [1.0, 2.0, 3.0];
/// Vectors of a bulk load: 66 KB, which is more than goes through the log.
const BULK_ROWS: usize = 5500;
/// Longer than the log lets frames gather, several times.
const GATHERED: Duration = Duration::from_millis(50);
/// Its segment is damaged in later lives, so that its records stay in the log.
const HELD: &str = "held";
/// Its bulk rows are missing in later lives.
const BULK: &str = "bulk";
/// It has records in and behind the frame that names the rows.
const OTHER: &str = "other";
/// What [`OTHER`] has in the frames that do not count, and is never acknowledged as durable.
const LEFT_OUT: u64 = 9;

/// A log frame whose bulk rows a power cut took is left out by the recovery behind it. It must not
/// count later, when a power cut took the frame that replaced it, and nobody asks for the rows any
/// more.
///
/// # Errors
/// What is there that must not be, or the other way round.
pub fn left_out_frame() -> Result<(), String> {
    let boot = Boot::new(SimOptions::new(2), frame_without_rows()?, 2);
    let store = opened(&boot)?;
    carry_out(&boot, without_left_out(&store))?;
    carry_out(&boot, move_past(&store))?;
    let boot = Boot::new(SimOptions::new(3), boot.disk.crash().image(&[]), 3);
    let store = opened(&boot)?;
    carry_out(&boot, without_left_out(&store))
}

/// The same where the frame that replaced it survives, and each sync of the log in turn fails in
/// the recovery that leaves the frame out: the zeros can be read then, and may not be on disk.
///
/// # Errors
/// Why the store does not open any more, or what is wrong in it.
pub fn left_out_frame_after_failed_sync() -> Result<(), String> {
    let image = frame_without_rows()?;
    for nth in 1.. {
        let (boot, struck) = recovered_with_failed_sync(image.clone(), nth)?;
        replaced_and_kept(&boot).map_err(|what| format!("sync {nth} failed: {what}"))?;
        if !struck {
            break;
        }
    }
    Ok(())
}

/// The machine behind a recovery in which this sync of the log failed, and whether there was one.
fn recovered_with_failed_sync(image: Image, nth: u64) -> Result<(Boot, bool), String> {
    let boot = Boot::new(SimOptions::new(2), image, 2);
    let rule = FaultRule::new(Fault::SyncForgets, &[IoOperation::Sync]).path(".wal").nth(nth);
    boot.disk.set_faults(FaultPlan::new().with(rule));
    let outcome = boot.open();
    let struck = 0 < boot.disk.faults_struck();
    match outcome {
        Ended::Done(Ok(_)) if struck => {
            return Err(format!("sync {nth} failed, and the store opened"));
        }
        Ended::Done(Ok(store)) => drop(boot.runtime.run(store.close())),
        outcome if !struck => drop(ended(outcome)?),
        _ => {} // refused, as it must be
    }
    boot.disk.set_faults(FaultPlan::new());
    let _ = boot.runtime.run_until_idle();
    Ok((boot, struck))
}

/// The next process on this machine writes synced records, which a power cut leaves.
fn replaced_and_kept(boot: &Boot) -> Result<(), String> {
    let again = Boot { disk: boot.disk.reopen(), runtime: boot.runtime.clone() };
    let store = opened(&again)?;
    carry_out(&again, move_past(&store))?;
    carry_out(&again, async {
        Ok(store.database(OTHER).await?.put_with(10, &VECTOR, Durability::Synced).await?)
    })?;
    let boot = Boot::new(SimOptions::new(3), again.disk.crash().image(&[]), 3);
    let store = opened(&boot)?;
    if carry_out(&boot, async { Ok(store.database(OTHER).await?.get(10).await?) })?.is_none() {
        return Err("a synced record is gone".to_owned());
    }
    carry_out(&boot, without_left_out(&store))
}

/// What a power cut leaves: a frame that names bulk rows that are not on disk, with another
/// database's record behind them, and a database whose log cannot be given up.
fn frame_without_rows() -> Result<Image, String> {
    let boot = Boot::new(SimOptions::new(1), blank(), 1);
    let store = opened(&boot)?;
    carry_out(&boot, async {
        for name in [HELD, BULK, OTHER] {
            store.create_database(name, DatabaseOptions::new(DIMENSION)).await?;
        }
        let held = store.database(HELD).await?;
        held.put_with(1, &VECTOR, Durability::Synced).await?;
        held.flush().await?;
        Ok(held.put_with(2, &VECTOR, Durability::Synced).await?)
    })?;
    let segments = |image: &Image| -> Vec<String> {
        image.paths().into_iter().filter(|path| path.ends_with(".seg")).collect()
    };
    let [of_held] = &*segments(&boot.disk.visible_image()) else {
        return Err("one segment is expected".to_owned());
    };
    carry_out(&boot, async {
        let bulk = store.database(BULK).await?;
        let rows = VECTOR.repeat(BULK_ROWS);
        bulk.put_many(Ids::Consecutive(1), &rows, Durability::Buffered).await?;
        store.database(OTHER).await?.put_with(LEFT_OUT, &VECTOR, Durability::Buffered).await?;
        boot.runtime.sleep(GATHERED).await;
        Ok(())
    })?;
    let crash = boot.disk.crash();
    let mut image = crash.image(&vec![Fate::Kept; crash.pending()]);
    if segments(&image) != [of_held.clone()] {
        return Err("the rows of the bulk load are on disk".to_owned());
    }
    image.overwrite(of_held.as_ref(), 0, &[0; 4096]);
    Ok(image)
}

/// Flushes the database of the missing rows beyond their record, with nothing synced in the log.
async fn move_past(store: &Store) -> Result<(), Trouble> {
    let bulk = store.database(BULK).await?;
    for id in 1..=2 {
        bulk.put_with(id, &VECTOR, Durability::Buffered).await?;
    }
    Ok(bulk.flush().await?)
}

async fn without_left_out(store: &Store) -> Result<(), Trouble> {
    match store.database(OTHER).await?.get(LEFT_OUT).await? {
        None => Ok(()),
        Some(_) => broken("a record that recovery had left out came back"),
    }
}

/// A delete of a record in an old large segment, whose tombstone is in one of four small new
/// segments, holds when those are merged, and after a restart.
///
/// # Errors
/// What is there that must not be, or the other way round.
pub fn merged_tombstone() -> Result<(), String> {
    let boot = Boot::new(SimOptions::new(1), blank(), 1);
    let store = opened(&boot)?;
    carry_out(&boot, async {
        let database = store.create_database("a", DatabaseOptions::new(256)).await?;
        fill_old_segment(&database).await?;
        for id in 1000..1004 {
            if id == 1001 {
                database.delete(DELETED).await?;
            }
            database.put(id, &[2.0; 256]).await?;
            database.flush().await?;
        }
        // The compactions of the background have time.
        boot.runtime.sleep(Duration::from_secs(10)).await;
        match database.stats().await?.segments {
            2 => without_deleted(&database).await,
            segments => broken(format!("{segments} segments where two are expected")),
        }
    })?;
    carry_out(&boot, async { Ok(store.close().await?) })?;
    let store = opened(&boot)?;
    carry_out(&boot, async { without_deleted(&store.database("a").await?).await })
}

/// The id that is deleted, of those in the old segment.
const DELETED: u64 = 7;

/// More than twice as large as four segments of a record each.
async fn fill_old_segment(database: &Database) -> Result<(), Trouble> {
    for id in 1..=400 {
        database.put(id, &[1.0; 256]).await?;
    }
    database.flush().await?;
    Ok(database.compact().await?)
}

async fn without_deleted(database: &Database) -> Result<(), Trouble> {
    match database.get(DELETED).await? {
        None => Ok(()),
        Some(_) => broken("a deleted record is there"),
    }
}

/// Why a script ends early.
pub(crate) enum Trouble {
    Refused(Error),
    Broken(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(formatter, "refused: {error}"),
            Self::Broken(text) => formatter.write_str(text),
        }
    }
}

pub(crate) fn broken<T>(text: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Broken(text.into()))
}

fn opened(boot: &Boot) -> Result<Store, String> {
    ended(boot.open())
}

pub(crate) fn carry_out<T>(
    boot: &Boot,
    steps: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, String> {
    ended(boot.runtime.run(steps))
}

pub(crate) fn ended<T, E: fmt::Display>(ended: Ended<Result<T, E>>) -> Result<T, String> {
    match ended {
        Ended::Done(result) => result.map_err(|error| error.to_string()),
        Ended::Crashed => Err("the machine crashed".to_owned()),
        Ended::Stuck => Err("it never ends".to_owned()),
    }
}
