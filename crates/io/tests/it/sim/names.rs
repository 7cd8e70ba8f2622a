//! Names: created, renamed and removed, durable only after a sync of their directory; locks.

use std::path::Path;

use nephrite_io::sim::{Fate, Fault, SimOptions};
use nephrite_io::{Disk, IoErrorKind, IoOperation, OpenOptions, sync, write};

use super::{Rig, create, filled, path};

fn other() -> &'static Path {
    Path::new("/data/other")
}

#[test]
fn a_new_file_is_lost_unless_its_directory_was_synced() {
    let rig = Rig::new(SimOptions::new(1));
    let file = create(&rig.disk, other());
    rig.wait(write(&rig.disk, &file, 0, filled(5, 4096))).unwrap();
    rig.wait(sync(&rig.disk, &file)).unwrap();

    let crash = rig.disk.crash_state();
    assert_eq!(crash.image(&[Fate::Lost]).file(other()), None);
    assert_eq!(crash.image(&[Fate::Kept]).file(other()).unwrap(), [5; 4096]);

    rig.wait(rig.disk.sync_dir("/data".as_ref())).unwrap();
    assert_eq!(rig.disk.crash_state().image(&[]).file(other()).unwrap(), [5; 4096]);
}

#[test]
fn a_rename_is_lost_unless_its_directory_was_synced() {
    let rig = Rig::new(SimOptions::new(1));
    rig.wait(rig.disk.rename(path(), other())).unwrap();

    let crash = rig.disk.crash_state();
    assert_eq!(crash.image(&[Fate::Lost]).paths(), ["/data/file"]);
    assert_eq!(crash.image(&[Fate::Kept]).paths(), ["/data/other"]);

    rig.wait(rig.disk.sync_dir("/data".as_ref())).unwrap();
    assert_eq!(rig.disk.crash_state().image(&[]).paths(), ["/data/other"]);
}

#[test]
fn a_rename_replaces_its_target_as_a_whole() {
    let rig = Rig::new(SimOptions::new(1));
    let file = create(&rig.disk, other());
    rig.wait(write(&rig.disk, &file, 0, filled(5, 4096))).unwrap();
    rig.wait(sync(&rig.disk, &file)).unwrap();
    rig.wait(rig.disk.sync_dir("/data".as_ref())).unwrap();

    rig.wait(rig.disk.rename(other(), path())).unwrap();

    let crash = rig.disk.crash_state();
    assert_eq!(crash.image(&[Fate::Lost]).file(path()).unwrap(), [1; 8192]);
    assert_eq!(crash.image(&[Fate::Kept]).file(path()).unwrap(), [5; 4096]);
}

#[test]
fn a_removed_file_is_back_unless_its_directory_was_synced() {
    let rig = Rig::new(SimOptions::new(1));
    rig.wait(rig.disk.remove_file(path())).unwrap();

    let crash = rig.disk.crash_state();
    assert_eq!(crash.image(&[Fate::Lost]).file(path()).unwrap(), [1; 8192]);
    assert_eq!(crash.image(&[Fate::Kept]).file(path()), None);
    assert_eq!(rig.read(0, 4096).unwrap(), [1; 4096], "the handle goes on");

    rig.wait(rig.disk.sync_dir("/data".as_ref())).unwrap();
    assert_eq!(rig.disk.crash_state().image(&[]).paths(), Vec::<String>::new());
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_with_it() {
    let rig = Rig::new(SimOptions::new(1));
    rig.wait(rig.disk.create_dir("/data/deep/er".as_ref())).unwrap();
    let file = create(&rig.disk, "/data/deep/er/file".as_ref());
    rig.wait(sync(&rig.disk, &file)).unwrap();
    for directory in ["/data/deep/er", "/data/deep"] {
        rig.wait(rig.disk.sync_dir(directory.as_ref())).unwrap();
    }

    assert_eq!(rig.disk.crash_state().image(&[]).paths(), ["/data/file"]);
    rig.wait(rig.disk.sync_dir("/data".as_ref())).unwrap();
    let paths = rig.disk.crash_state().image(&[]).paths();
    assert_eq!(paths, ["/data/deep/er/file", "/data/file"]);
}

#[test]
fn a_lock_is_held_once_and_dies_with_the_machine() {
    let rig = Rig::new(SimOptions::new(1));
    let lock = rig.wait(rig.disk.lock(other())).unwrap();

    let second = rig.disk.reopen();
    let refused = rig.wait(second.lock(other())).unwrap_err();
    assert_eq!(refused.kind(), IoErrorKind::Locked);
    drop(lock);
    let held = rig.wait(second.lock(other())).unwrap();

    let image = rig.disk.crash().image(&[Fate::Kept]);
    let after = nephrite_io::sim::SimDisk::with_image(SimOptions::new(2), image);
    after.block_on(after.lock(other())).expect("the machine runs").unwrap();
    drop(held);
}

#[test]
fn a_listing_shows_names_kinds_and_lengths() {
    let rig = Rig::new(SimOptions::new(1));
    rig.wait(rig.disk.create_dir("/data/deep".as_ref())).unwrap();

    let mut entries = rig.wait(rig.disk.list_dir("/data".as_ref())).unwrap();

    entries.sort_by(|left, right| left.name.cmp(&right.name));
    let entries = entries.iter().map(|entry| (&*entry.name, entry.is_directory, entry.bytes));
    assert_eq!(entries.collect::<Vec<_>>(), [("deep", true, 0), ("file", false, 8192)]);
}

#[test]
fn names_that_cannot_be_used_are_errors() {
    let rig = Rig::new(SimOptions::new(1));
    let open =
        |path: &str, options| rig.wait(rig.disk.open(path.as_ref(), options)).unwrap_err().kind();
    let missing = IoErrorKind::NotFound;
    assert_eq!(open("/data/none", OpenOptions::read_only()), missing);
    assert_eq!(open("/none/file", OpenOptions::read_write().create()), missing);
    let exists = OpenOptions::read_write().create_new();
    assert_eq!(open("/data/file", exists), IoErrorKind::AlreadyExists);
    assert_eq!(rig.wait(rig.disk.remove_file(other())).unwrap_err().kind(), missing);
    assert_eq!(rig.wait(rig.disk.rename(other(), path())).unwrap_err().kind(), missing);
    assert_eq!(rig.wait(rig.disk.sync_dir("/none".as_ref())).unwrap_err().kind(), missing);
}

#[test]
fn a_failed_sync_of_a_directory_is_not_healed_by_a_later_one() {
    let rig = Rig::with_fault(Fault::SyncForgets, IoOperation::SyncDirectory);
    create(&rig.disk, other());
    let data = Path::new("/data");

    assert!(rig.wait(rig.disk.sync_dir(data)).is_err() && rig.disk.has_lost_names());
    rig.wait(rig.disk.sync_dir(data)).unwrap();

    assert!(rig.disk.visible_image().file(other()).is_some(), "processes still see it");
    assert_eq!(rig.disk.crash_state().image(&[]).file(other()), None);
}
