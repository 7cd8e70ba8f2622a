//! What a store must hold: for each of two databases the state after every write, and which of
//! these states the engine has promised to keep.
//!
//! There is one client, so that what a crash leaves of a database is the state after some of its
//! writes, not before the last one that was promised.

use std::collections::BTreeMap;

use nephrite::{Database, DatabaseOptions, Id, IdKind, IdRef, Snapshot, Store};

use crate::{Stamp, read_stamp, vector};

/// What is stored, by the number of an id.
pub(super) type Stored = BTreeMap<u64, Stamp>;

/// Databases of a run: numbers and short vectors; byte ids and vectors that do not fill a page.
pub(super) const DATABASES: [(&str, IdKind, u32); 2] =
    [("numbers", IdKind::U64, 4), ("names", IdKind::Bytes, 100)];

#[derive(Clone, Debug)]
pub(super) struct Model {
    states: [Vec<Stored>; 2],
    durable: [usize; 2],
    last_stamp: Stamp,
}

impl Model {
    pub(super) fn new() -> Self {
        let states = [vec![Stored::new()], vec![Stored::new()]];
        Self { states, durable: [0; 2], last_stamp: 0 }
    }

    pub(super) fn next_stamp(&mut self) -> Stamp {
        self.last_stamp += 1;
        self.last_stamp
    }

    /// What readers of a database see when every write so far was acknowledged.
    pub(super) fn visible(&self, database: usize) -> &Stored {
        self.states[database].last().expect("there is a state before the first write")
    }

    /// A write begins; it may be there from now on.
    pub(super) fn issue(&mut self, database: usize, changes: &[(u64, Option<Stamp>)]) {
        let mut state = self.visible(database).clone();
        for (key, stamp) in changes {
            match stamp {
                Some(stamp) => drop(state.insert(*key, *stamp)),
                None => drop(state.remove(key)),
            }
        }
        self.states[database].push(state);
    }

    /// All that was written so far must stay, in one database or in both.
    pub(super) fn promise(&mut self, database: Option<usize>) {
        for at in 0..DATABASES.len() {
            if database.is_none_or(|only| only == at) {
                self.durable[at] = self.states[at].len() - 1;
            }
        }
    }

    /// # Panics
    /// When a database does not hold a state that it may hold.
    pub(super) fn assert_recovered(&self, database: usize, found: &Stored) {
        let allowed = &self.states[database][self.durable[database]..];
        let (name, _, _) = DATABASES[database];
        assert!(
            allowed.contains(found),
            "{name}: after {} writes, the first {} promised, what was found is no state: {found:?} \
             where the last is {:?}",
            self.states[database].len() - 1,
            self.durable[database],
            self.visible(database),
        );
    }
}

/// The id with this number.
pub(super) fn id(kind: IdKind, key: u64) -> Id {
    match kind {
        IdKind::Bytes => Id::from(format!("{key:05}{}", "+".repeat(key_tail(key))).into_bytes()),
        _ => Id::from(key),
    }
}

fn key_tail(key: u64) -> usize {
    usize::try_from(key % 67).expect("it is small")
}

/// The number of an id, if it is one of ours.
fn key_of(id: &Id) -> Option<u64> {
    match id {
        Id::U64(key) => Some(*key),
        Id::Bytes(bytes) => std::str::from_utf8(bytes.get(..5)?).ok()?.parse().ok(),
    }
}

pub(super) fn vector_of(database: usize, stamp: Stamp) -> Vec<f32> {
    vector(stamp, usize::try_from(DATABASES[database].2).expect("it is small"))
}

/// Opens a database, which is made when it is not there.
pub(super) async fn database(store: &Store, at: usize) -> Result<Database, nephrite::Error> {
    let (name, kind, dimension) = DATABASES[at];
    match store.database(name).await {
        Err(nephrite::Error::DatabaseNotFound { .. }) => {
            store.create_database(name, DatabaseOptions::new(dimension).id_kind(kind)).await
        }
        other => other,
    }
}

/// Everything that a snapshot holds, by a scan; count must agree.
///
/// # Panics
/// When a vector is none that was written, ids are not ascending, or the count disagrees.
pub(super) async fn read(snapshot: &Snapshot, name: &str) -> Result<Stored, nephrite::Error> {
    let mut found = Stored::new();
    let mut scan = snapshot.scan().await?;
    let mut last = None;
    while let Some((id, vector)) = scan.next().await? {
        let key = key_of(&id).unwrap_or_else(|| panic!("{name}: nobody wrote id {id}"));
        let stamp = read_stamp(&vector).unwrap_or_else(|what| panic!("{name}: {id}: {what}"));
        assert!(last < Some(id.clone()), "{name}: a scan gives {id} after {last:?}");
        last = Some(id);
        found.insert(key, stamp);
    }
    let count = snapshot.count().await?;
    assert_eq!(count, found.len() as u64, "{name}: count and scan");
    Ok(found)
}

/// Looks up every id of `keys` one by one and together.
///
/// # Panics
/// When an answer is not what `expected` has.
pub(super) async fn assert_lookups(
    database: &Database,
    keys: &[u64],
    expected: &Stored,
) -> Result<(), nephrite::Error> {
    let ids: Vec<Id> = keys.iter().map(|key| id(database.id_kind(), *key)).collect();
    let borrowed: Vec<IdRef<'_>> = ids.iter().map(Id::as_id_ref).collect();
    let together = database.get_many(&borrowed).await?;
    for ((key, id), found) in keys.iter().zip(&ids).zip(together) {
        let alone = database.get(id).await?;
        for vector in [found, alone] {
            let stamp = vector
                .map(|vector| read_stamp(&vector).unwrap_or_else(|what| panic!("{id}: {what}")));
            assert_eq!(stamp.as_ref(), expected.get(key), "{}: {id}", database.name());
        }
    }
    Ok(())
}
