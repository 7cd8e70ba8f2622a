//! Hostile surroundings: no permission, no space, another process, no descriptors, no store.
//!
//! In all of them: an error that names the place and the reason, no panic and no hang; what can be
//! read is read; what was acknowledged is there once the cause is gone.
//! Tests that change the user or limits run in a process of their own. Tests that need root print
//! `SKIPPED` without it. Where nothing may be written: `permissions`.

mod permissions;

use std::{
    fs,
    path::{Path, PathBuf},
};

use nephrite::{
    Config, DatabaseOptions, Durability, Error, Ids, IoErrorKind,
    blocking::{Database, Store},
};
use nephrite_tests::{
    assert_vector,
    crash::{Line, Victim},
    history::{Plan, Shape, create_databases},
    new_store,
    process::{Mounted, alone, is_root, limit_descriptors, skipped, wait_until},
    small, vector,
};

fn create(store: &Store, name: &str, dimension: u32) -> Database {
    store.create_database(name, DatabaseOptions::new(dimension)).unwrap()
}

#[track_caller]
fn check(database: &Database, ids: impl Iterator<Item = u64>) {
    for id in ids {
        let found = database.get(id).unwrap_or_else(|error| panic!("id {id}: {error}"));
        let found = found.unwrap_or_else(|| panic!("id {id} was acknowledged and is lost"));
        assert_vector(&found, id, format_args!("id {id}"));
    }
}

#[track_caller]
fn kind_of(error: &Error) -> IoErrorKind {
    match error {
        Error::Io(error) => error.kind(),
        other => panic!("not an I/O error: {other}"),
    }
}

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

/// Puts ids from `first` on until one is refused; gives the number of ids and the refusal.
fn put_until_refused(database: &Database, first: u64) -> (u64, Error) {
    let dimension = database.dimension() as usize;
    for id in first..first + 1_000_000 {
        // Every eighth is synced, so that the log is written all the time.
        let durability = if id % 8 == 0 { Durability::Synced } else { Durability::Buffered };
        if let Err(error) = database.put_with(id, &vector(id, dimension), durability) {
            return (id, error);
        }
    }
    panic!("a million writes found room");
}

// Space.

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

    /// Puts the ballast back where it was used up, if there is room for it.
    fn ballast_fits(&self) -> bool {
        let whole = fs::metadata(self.ballast()).is_ok_and(|it| it.len() == BALLAST_BYTES as u64);
        whole || fs::write(self.ballast(), vec![1; BALLAST_BYTES]).is_ok()
    }

    /// Takes the last free block.
    fn fill_up(&self) {
        use std::io::Write;
        let filler = fs::File::options().create(true).append(true).open(self.root.join("filler"));
        let mut filler = filler.unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }

    /// Does what a full disk may refuse; room comes back by half a megabyte until it does not.
    ///
    /// The reserve is one chance, not a promise: when a flush has used it, the log or a merge may
    /// need room once more.
    fn insist<T>(&self, mut what: impl FnMut() -> Result<T, Error>) -> T {
        let filler = fs::File::options().write(true).open(self.root.join("filler")).unwrap();
        loop {
            let error = match what() {
                Ok(value) => return value,
                Err(error) => error,
            };
            assert!(error.is_disk_full(), "{error}");
            let left = filler.metadata().unwrap().len();
            if left != 0 {
                filler.set_len(left.saturating_sub(512 << 10)).unwrap();
                continue;
            }
            if self.ballast().exists() {
                self.free_space();
            }
            // Writers may still be told of an attempt before, and a compaction may hold the room
            // until it finds that it is not enough.
            let mut done = None;
            wait_until("all room is back, and it is used", || match what() {
                Ok(value) => {
                    done = Some(value);
                    true
                }
                Err(error) => {
                    assert!(error.is_disk_full(), "{error}");
                    false
                }
            });
            return done.expect("the wait has ended");
        }
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

/// Nobody frees space: deletes and compactions of the store itself have to. Without a reserve the
/// deletes could not become segments, and so freed nothing.
#[test]
fn deletes_and_compactions_make_room_on_a_full_disk() {
    let cramped = match Cramped::tmpfs() {
        Ok(cramped) => cramped,
        Err(reason) => {
            return skipped("deletes_and_compactions_make_room_on_a_full_disk", &reason);
        }
    };
    let store = Store::create(cramped.store(), cramped_config()).unwrap();
    let database = create(&store, "a", 256);
    let mut first = 0;
    for round in 0..3 {
        let (next, error) = put_until_refused(&database, first);
        assert!(error.is_disk_full(), "{error}");
        cramped.fill_up();
        check(&database, (first..next).step_by(19));
        let kept = next - (next - first) / 4;
        for id in first..kept {
            let deleted = cramped.insist(|| database.delete(id));
            assert!(deleted, "round {round}: id {id} of {first}..{next}");
        }
        cramped.insist(|| store.compact());
        assert_eq!(database.count().unwrap(), next - kept, "round {round}");
        check(&database, (kept..next).step_by(19));
        assert!(database.get(first).unwrap().is_none());
        first = kept;
        // So that the next round has something to give back again.
        wait_until("what was deleted has made room", || cramped.ballast_fits());
    }
    store.close().unwrap();
    drop(store);
    let store = Store::open(cramped.store(), cramped_config()).unwrap();
    assert!(store.verify(|_| ()).unwrap().is_clean());
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

// Other processes, other directories.

#[test]
fn a_store_is_open_in_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::create(&path, Shape::Tight.config()).unwrap();
    create_databases(&store).unwrap();
    let child = || {
        let plan = Plan::new(0, Shape::Tight);
        let arguments = [path.to_str().unwrap(), &plan.seed.to_string(), "tight", "auto", "idle"]
            .map(str::to_owned);
        Victim::start(Path::new(env!("CARGO_BIN_EXE_crash_writer")), &arguments).unwrap()
    };
    // Open here: the child is refused.
    let (status, told) = child().wait().unwrap();
    assert!(!status.success());
    let Ok(Line::Failed(message)) = Line::parse(told.trim_end()) else { panic!("{told:?}") };
    assert!(message.contains("open elsewhere") && message.contains("store"), "{message}");
    store.close().unwrap();
    drop(store);
    // Open there: it is refused here, and not any more once the child is dead.
    let mut holder = child();
    assert_eq!(holder.next_line().unwrap().as_deref(), Some("ready"));
    for opened in [
        Store::open(&path, small()),
        Store::create(&path, small()),
        Store::open_or_create(&path, small()),
    ] {
        assert!(
            matches!(&opened, Err(Error::Locked { path: named }) if *named == path),
            "{opened:?}"
        );
    }
    holder.kill().unwrap();
    assert_eq!(Store::open(&path, small()).unwrap().list().len(), 4);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other").join("letter.txt"), "dear").unwrap();
    fs::write(at("file"), "no directory").unwrap();
    for name in ["empty", "other", "file", "missing"] {
        let opened = Store::open(at(name), small());
        let Err(Error::NotAStore { path, reason }) = &opened else { panic!("{name}: {opened:?}") };
        assert_eq!(*path, at(name));
        assert!(!reason.is_empty());
    }
    assert_eq!(fs::read_dir(at("empty")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(at("other")).unwrap().count(), 1);
    assert!(!at("missing").exists());
    let error = Store::create(at("file"), small()).map(drop).expect_err("a file is in the way");
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "no directory");
}

// Descriptors.

#[test]
fn many_databases_live_with_few_descriptors() {
    alone("surroundings::many_databases_live_with_few_descriptors", || {
        limit_descriptors(48).unwrap();
        let config = small().max_open_files(5);
        let (directory, store) = new_store(config.clone());
        for name in 0..60 {
            let database = create(&store, &format!("d{name}"), 64);
            (0..20).for_each(|id| database.put(id, &vector(id, 64)).unwrap());
        }
        store.close().unwrap();
        let store = Store::open(directory.path().join("store"), config).unwrap();
        for name in (0..60).chain((0..60).rev()) {
            check(&store.database(&format!("d{name}")).unwrap(), 0..20);
        }
    });
}

#[test]
fn too_few_descriptors_are_told_and_lose_nothing() {
    alone("surroundings::too_few_descriptors_are_told_and_lose_nothing", || {
        let (directory, store) = new_store(small());
        let path = directory.path().join("store");
        for name in 0..60 {
            let database = create(&store, &format!("d{name}"), 64);
            (0..20).for_each(|id| database.put(id, &vector(id, 64)).unwrap());
        }
        store.close().unwrap();
        drop(store);
        // The limit falls while the store is open: more files may be open than there are
        // descriptors.
        let store = Store::open(&path, small().max_open_files(100)).unwrap();
        limit_descriptors(48).unwrap();
        let mut refused = 0;
        for name in 0..60 {
            let database = match store.database(&format!("d{name}")) {
                Ok(database) => database,
                Err(error) => {
                    assert!(error.to_string().contains("segments/"), "{error}");
                    refused += 1;
                    continue;
                }
            };
            for id in 0..20 {
                match database.get(id) {
                    Ok(found) => assert_vector(&found.unwrap(), id, format_args!("id {id}")),
                    Err(error) => assert!(error.to_string().contains("segments/"), "{error}"),
                }
            }
        }
        println!("{refused} of 60 databases could not be opened with 48 descriptors");
        let _ = store.close();
        drop(store);
        let refused = Store::open(&path, small().max_open_files(100));
        assert!(
            matches!(&refused, Err(Error::InvalidConfig { field: "max_open_files", .. })),
            "{refused:?}"
        );
        let store = Store::open(&path, small().max_open_files(5)).unwrap();
        for name in 0..60 {
            check(&store.database(&format!("d{name}")).unwrap(), 0..20);
        }
        assert!(store.verify(|_| ()).unwrap().is_clean());
    });
}
