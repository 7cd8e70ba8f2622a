//! Scans beside point reads.

use nephrite::{CachePolicy, Config, DatabaseOptions, blocking::Store};

use crate::support::{backend, new_store, vector};

const IDS: u64 = 20_000;
const HOT: u64 = 100;

fn config() -> Config {
    Config::new().memory_limit(8 << 20).memtable_bytes(1 << 20).backend(backend())
}

/// Ids that lie on pages of their own.
fn hot() -> impl Iterator<Item = u64> {
    (0..HOT).map(|at| at * (IDS / HOT))
}

#[test]
fn scans_of_everything_leave_in_the_cache_what_is_read_by_id() {
    let (directory, store) = new_store(config());
    let database = store.create_database("a", DatabaseOptions::new(128)).unwrap();
    (0..IDS).for_each(|id| database.put(id, &vector(id, 128)).unwrap());
    store.close().unwrap();

    for policy in CachePolicy::ALL {
        let config = config().cache_policy(policy);
        let store = Store::open(directory.path().join("store"), config).unwrap();
        let database = store.database("a").unwrap();
        let read = || hot().for_each(|id| assert!(database.get(id).unwrap().is_some()));
        (0..4).for_each(|_| read());

        // Ten megabytes through a cache of four, several times.
        for _ in 0..4 {
            assert_eq!(database.scan().unwrap().count() as u64, IDS);
        }
        let before = store.stats().io.reads;
        read();

        let loaded = store.stats().io.reads - before;
        assert!(loaded <= HOT / 20, "{policy}: {loaded} pages of {HOT} had gone");
        store.close().unwrap();
    }
}
