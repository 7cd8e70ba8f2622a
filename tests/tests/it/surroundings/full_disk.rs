//! Small file systems that run full: vectors are refused and nothing is lost; deletes and
//! compactions go on, and make room.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nephrite::{
    Config, Durability, Ids,
    blocking::{Database, Store},
};
use nephrite_tests::{
    process::{Mounted, is_root, skipped, wait_until},
    small, vector,
};

use super::{check, create, put_until_refused};

/// Space has returned: writers may still be told of the last failure until the engine has tried
/// again, which it does when they ask.
fn put_when_possible(database: &Database, id: u64) {
    wait_until("a write finds room again", || {
        match database.put_with(id, &vector(id, 256), Durability::Synced) {
            Ok(()) => true,
            Err(error) => {
                assert!(error.is_disk_full(), "{error}");
                false
            }
        }
    });
}

/// A small file system with a ballast file that can be removed.
struct Cramped {
    _directory: tempfile::TempDir,
    mounted: Option<Mounted>,
    root: PathBuf,
}

const BALLAST_BYTES: usize = 8 << 20;

impl Cramped {
    fn tmpfs() -> Result<Self, String> {
        Self::mount(|_, root| Mounted::tmpfs(root, 24 << 20))
    }

    fn ext4() -> Result<Self, String> {
        Self::mount(|image, root| Mounted::ext4(image, root, 32 << 20))
    }

    fn mount(mount: fn(&Path, &Path) -> std::io::Result<Mounted>) -> Result<Self, String> {
        if !is_root() {
            return Err("mounting needs root".to_owned());
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let mounted = mount(&directory.path().join("image"), &root);
        let mounted = mounted.map_err(|error| format!("it cannot be mounted: {error}"))?;
        let cramped = Self { _directory: directory, mounted: Some(mounted), root };
        cramped.add_ballast();
        Ok(cramped)
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    fn add_ballast(&self) {
        fs::write(self.ballast(), vec![1; BALLAST_BYTES]).unwrap();
    }

    /// Takes the last free block.
    fn fill_up(&self) {
        use std::io::Write;
        let filler = fs::File::options().create(true).append(true).open(self.root.join("filler"));
        let mut filler = filler.unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }

    fn free_space(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        // Before its directory is removed.
        drop(self.mounted.take());
    }
}

fn cramped_config() -> Config {
    small().memtable_bytes(512 << 10)
}

/// The whole story of a full disk.
fn fill_and_recover(cramped: &Cramped) {
    let store = Store::create(cramped.store(), cramped_config()).unwrap();
    let other = create(&store, "other", 64);
    other.put(7, &vector(7, 64)).unwrap();
    store.flush().unwrap();
    let database = create(&store, "a", 256);
    let (count, error) = put_until_refused(&database, 0);
    assert!(4_000 < count, "{count} vectors of 1 KiB fit: {error}");
    assert!(error.is_disk_full(), "{error}");
    assert!(error.to_string().contains(cramped.root.to_str().unwrap()), "{error}");
    // Reads go on, more writes are refused in the same way, nothing hangs.
    check(&database, 0..count);
    check(&other, 7..8);
    for _ in 0..20 {
        if let Err(error) = other.put_with(8, &vector(8, 64), Durability::Synced) {
            assert!(error.is_disk_full(), "{error}");
        }
    }
    // What is left to flush may be small enough for the room that a failed attempt gave back.
    if let Err(error) = database.flush() {
        assert!(error.is_disk_full(), "{error}");
    }
    let rows: Vec<f32> = (0..100).flat_map(|stamp| vector(stamp, 256)).collect();
    // The log has no room for the record, or the segment none for the rows.
    let bulk = database.put_many(Ids::Consecutive(1 << 40), &rows, Durability::Synced);
    if let Err(error) = &bulk {
        assert!(error.is_disk_full(), "{error}");
    }
    check(&database, 0..count);
    reopen_while_full(cramped, store, database, other, count);
}

fn reopen_while_full(
    cramped: &Cramped,
    store: Store,
    database: Database,
    other: Database,
    count: u64,
) {
    if let Err(error) = store.close() {
        assert!(error.is_disk_full(), "{error}");
    }
    drop((database, other, store));
    let store = Store::open(cramped.store(), cramped_config())
        .unwrap_or_else(|error| panic!("a full disk keeps the store from being read: {error}"));
    let database = store.database("a").unwrap();
    check(&database, 0..count);
    check(&store.database("other").unwrap(), 7..8);
    // Space returns: writes and deletes work in the same open store.
    cramped.free_space();
    resume(&database, count);
    store.flush().unwrap();
    check(&database, (0..count).filter(|id| id % 2 == 1));
    assert!(store.verify(|_| ()).unwrap().is_clean());
    store.close().unwrap();
    drop((database, store));
    let store = Store::open(cramped.store(), cramped_config()).unwrap();
    let database = store.database("a").unwrap();
    check(&database, (0..count).filter(|id| id % 2 == 1).chain(count + 1..count + 500));
    assert!(database.get(0).unwrap().is_none());
}

fn resume(database: &Database, count: u64) {
    put_when_possible(database, count + 1);
    for id in (0..count).step_by(2) {
        assert!(database.delete(id).unwrap(), "{id}");
    }
    for id in count + 2..count + 500 {
        database.put(id, &vector(id, 256)).unwrap();
    }
}

#[test]
fn a_full_tmpfs_refuses_writes_and_loses_nothing() {
    match Cramped::tmpfs() {
        Ok(cramped) => fill_and_recover(&cramped),
        Err(reason) => skipped("a_full_tmpfs_refuses_writes_and_loses_nothing", &reason),
    }
}

#[test]
fn a_full_ext4_refuses_writes_and_loses_nothing() {
    match Cramped::ext4() {
        Ok(cramped) => fill_and_recover(&cramped),
        Err(reason) => skipped("a_full_ext4_refuses_writes_and_loses_nothing", &reason),
    }
}

/// Nobody frees space and no block is left: deletes and compactions of the store itself have to
/// make room, no delete is refused, and vectors are taken again afterwards.
fn make_room(cramped: &Cramped, order: Order, durability: Durability) {
    let store = Store::create(cramped.store(), cramped_config()).unwrap();
    let database = create(&store, "a", 256);
    let mut kept: Vec<u64> = Vec::new();
    let mut first = 0;
    for round in 0..3 {
        let (next, error) = put_until_refused(&database, first);
        assert!(error.is_disk_full(), "{error}");
        assert!(first + 1_000 < next, "round {round}: room for {first}..{next}: {error}");
        cramped.fill_up();
        check(&database, (first..next).step_by(19));
        let (gone, left): (Vec<_>, Vec<_>) = (first..next).partition(|id| match order {
            Order::Ascending => *id < next - (next - first) / 8,
            Order::Scattered => id % 8 != 0,
        });
        for id in &gone {
            let deleted = database.delete_with(*id, durability);
            let deleted =
                deleted.unwrap_or_else(|error| panic!("{round}: {id} of {next}: {error}"));
            assert!(deleted, "round {round}: id {id} of {first}..{next}");
        }
        store.compact().unwrap_or_else(|error| panic!("round {round}: {error}"));
        kept.extend(left);
        assert_eq!(database.count().unwrap(), kept.len() as u64, "round {round}");
        check(&database, kept.iter().copied().step_by(19));
        assert!(gone.iter().step_by(19).all(|id| database.get(*id).unwrap().is_none()));
        first = next;
    }
    store.close().unwrap();
    drop((database, store));
    let store = Store::open(cramped.store(), cramped_config()).unwrap();
    let database = store.database("a").unwrap();
    assert_eq!(database.count().unwrap(), kept.len() as u64);
    check(&database, kept.iter().copied());
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

/// Which rows a segment loses first.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// All but the last: segments go as a whole.
    Ascending,
    /// Some everywhere: none goes as a whole.
    Scattered,
}

fn on_tmpfs(name: &str, story: impl FnOnce(&Cramped)) {
    match Cramped::tmpfs() {
        Ok(cramped) => story(&cramped),
        Err(reason) => skipped(name, &reason),
    }
}

#[test]
fn deletes_and_compactions_make_room_on_a_full_disk() {
    on_tmpfs("deletes_and_compactions_make_room_on_a_full_disk", |cramped| {
        make_room(cramped, Order::Ascending, Durability::Buffered);
    });
}

#[test]
fn scattered_deletes_make_room_on_a_full_disk() {
    on_tmpfs("scattered_deletes_make_room_on_a_full_disk", |cramped| {
        make_room(cramped, Order::Scattered, Durability::Buffered);
    });
}

/// Each of them takes a block of the log.
#[test]
fn synced_deletes_make_room_on_a_full_disk() {
    on_tmpfs("synced_deletes_make_room_on_a_full_disk", |cramped| {
        make_room(cramped, Order::Ascending, Durability::Synced);
    });
}

#[test]
fn scattered_synced_deletes_make_room_on_a_full_disk() {
    on_tmpfs("scattered_synced_deletes_make_room_on_a_full_disk", |cramped| {
        make_room(cramped, Order::Scattered, Durability::Synced);
    });
}

#[test]
fn deletes_and_compactions_make_room_on_a_full_ext4() {
    match Cramped::ext4() {
        Ok(cramped) => make_room(&cramped, Order::Scattered, Durability::Buffered),
        Err(reason) => skipped("deletes_and_compactions_make_room_on_a_full_ext4", &reason),
    }
}

/// The log and the reserve are those of all databases.
#[test]
fn deletes_in_several_databases_make_room_on_a_full_disk() {
    on_tmpfs("deletes_in_several_databases_make_room_on_a_full_disk", |cramped| {
        let store = Store::create(cramped.store(), cramped_config()).unwrap();
        let databases: Vec<_> = (0..4).map(|at| create(&store, &format!("d{at}"), 256)).collect();
        let mut puts = (0..1_000_000).flat_map(|id| databases.iter().map(move |it| (id, it)));
        let refused = puts.find_map(|(id, database)| {
            database.put(id, &vector(id, 256)).err().map(|error| (id, error))
        });
        let (ids, error) = refused.expect("millions of writes found room");
        assert!(error.is_disk_full(), "{error}");
        cramped.fill_up();
        for id in 0..ids - ids / 8 {
            for (at, database) in databases.iter().enumerate() {
                let deleted = database.delete(id);
                assert!(deleted.unwrap_or_else(|error| panic!("{at}: {id} of {ids}: {error}")));
            }
        }
        store.compact().unwrap();
        for database in &databases {
            check(database, ids - ids / 8..ids);
            (ids + 1..ids + 500).for_each(|id| database.put(id, &vector(id, 256)).unwrap());
        }
        store.close().unwrap();
        drop((databases, store));
        let store = Store::open(cramped.store(), cramped_config()).unwrap();
        for at in 0..4 {
            let database = store.database(&format!("d{at}")).unwrap();
            check(&database, (ids - ids / 8..ids).chain(ids + 1..ids + 500));
        }
        assert!(store.verify(|_| ()).unwrap().is_clean());
    });
}

#[test]
fn writes_go_on_in_the_open_store_when_space_returns() {
    let cramped = match Cramped::tmpfs() {
        Ok(cramped) => cramped,
        Err(reason) => return skipped("writes_go_on_when_space_returns", &reason),
    };
    let store = Store::create(cramped.store(), cramped_config()).unwrap();
    let database = create(&store, "a", 256);
    let mut count = 0;
    // Filled and freed several times.
    for _ in 0..3 {
        let (next, error) = put_until_refused(&database, count);
        assert!(error.is_disk_full(), "{error}");
        check(&database, (count..next).step_by(17));
        cramped.free_space();
        put_when_possible(&database, next);
        database.flush().unwrap();
        for id in 0..=next {
            assert_eq!(database.delete(id).unwrap(), count <= id);
        }
        store.flush().unwrap();
        count = next + 1;
        // Room for the ballast comes back when compaction has removed what is deleted.
        wait_until("compaction has made room", || {
            let written = fs::write(cramped.ballast(), vec![1; BALLAST_BYTES]);
            written.is_ok()
        });
    }
    store.close().unwrap();
}

#[test]
fn a_store_cannot_be_made_on_a_full_disk_and_can_be_later() {
    let cramped = match Cramped::tmpfs() {
        Ok(cramped) => cramped,
        Err(reason) => return skipped("a_store_cannot_be_made_on_a_full_disk", &reason),
    };
    let filler = cramped.root.join("filler");
    let _ = fs::write(&filler, vec![2; 64 << 20]).expect_err("more than there is");
    let error = Store::create(cramped.store(), cramped_config()).map(drop).expect_err("it is full");
    assert!(error.is_disk_full(), "{error}");
    fs::remove_file(filler).unwrap();
    let store = Store::create(cramped.store(), cramped_config()).unwrap();
    create(&store, "a", 4).put(1, &vector(1, 4)).unwrap();
    store.close().unwrap();
}
