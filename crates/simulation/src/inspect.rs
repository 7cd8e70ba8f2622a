//! Reading a whole store, every way there is, and checking that the ways agree.

use std::collections::BTreeMap;

use nephrite::{Database, Error, Id, IdRef, Store};

use crate::{
    history::Stored,
    record::{Key, id_of, key_of, stamp_of},
};

/// Why an inspection did not give an answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The engine broke a promise.
    Violation(String),
    /// Two ways of reading disagree, as they may when bytes were damaged.
    Mismatch(String),
    /// The engine reported an error, which may be its right.
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn mismatch<T>(text: String) -> Result<T, Trouble> {
    Err(Trouble::Mismatch(text))
}

fn violation<T>(text: String) -> Result<T, Trouble> {
    Err(Trouble::Violation(text))
}

/// What every database of a store holds.
pub(crate) async fn read_store(store: &Store) -> Result<BTreeMap<String, Stored>, Trouble> {
    let mut found = BTreeMap::new();
    for info in store.list() {
        let database = store.database(&info.name).await?;
        let stored = read_database(&database).await?;
        found.insert(info.name, stored);
    }
    let report = store.verify(|_| {}).await?;
    match report.damage.first() {
        None => Ok(found),
        Some(damage) => mismatch(format!("verify reports damage: {damage:?}")),
    }
}

/// What a database holds by a scan, to which count and lookups must agree.
async fn read_database(database: &Database) -> Result<Stored, Trouble> {
    let snapshot = database.snapshot().await?;
    let mut scan = snapshot.scan().await?;
    let mut found = Stored::new();
    let mut last: Option<Id> = None;
    while let Some((id, vector)) = scan.next().await? {
        let (key, stamp) = identify(database.name(), &id, &vector)?;
        if last.as_ref().is_some_and(|last| id <= *last) {
            return violation(format!("{}: a scan gives {id} after {last:?}", database.name()));
        }
        last = Some(id);
        found.insert(key, stamp);
    }
    let count = snapshot.count().await?;
    if count != found.len() as u64 {
        let scanned = found.len();
        return mismatch(format!("{}: count {count}, scan {scanned}", database.name()));
    }
    look_up(database, &found).await?;
    Ok(found)
}

/// Every id that was found, and as many that were not.
async fn look_up(database: &Database, found: &Stored) -> Result<(), Trouble> {
    let absent = found.keys().map(|key| key + 1).filter(|key| !found.contains_key(key));
    let keys: Vec<Key> = found.keys().copied().chain(absent).chain([0]).collect();
    let ids: Vec<Id> = keys.iter().map(|key| id_of(database.id_kind(), *key)).collect();
    for (keys, ids) in keys.chunks(64).zip(ids.chunks(64)) {
        let borrowed: Vec<IdRef<'_>> = ids.iter().map(Id::as_id_ref).collect();
        let vectors = database.get_many(&borrowed).await?;
        for ((key, id), vector) in keys.iter().zip(ids).zip(vectors) {
            let looked_up = match &vector {
                Some(vector) => Some(identify(database.name(), id, vector)?.1),
                None => None,
            };
            let scanned = found.get(key).copied();
            if looked_up != scanned {
                let name = database.name();
                return violation(format!(
                    "{name}: {id} by scan {scanned:?}, by get {looked_up:?}"
                ));
            }
        }
    }
    Ok(())
}

/// Which write a vector is of.
pub(crate) fn identify(name: &str, id: &Id, vector: &[f32]) -> Result<(Key, u32), Trouble> {
    let Some(key) = key_of(id) else {
        return violation(format!("{name}: id {id} was never written"));
    };
    match stamp_of(vector, key) {
        Some(stamp) => Ok((key, stamp)),
        None => {
            let first = vector.first().map_or(0, |first| first.to_bits());
            violation(format!("{name}: the vector of {id} (stamp {first}) has wrong bytes"))
        }
    }
}
