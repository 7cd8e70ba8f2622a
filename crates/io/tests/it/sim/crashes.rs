//! Crashes: where they strike, and which images are legal afterwards.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use nephrite_io::sim::{Fate, Scope, SimDisk, SimOptions, SimRandom, Stepped};
use nephrite_io::{Disk, write};

use super::{Rig, filled, path};

fn images(rig: &Rig, scope: &Scope) -> (u64, BTreeSet<u64>) {
    let mut seen = BTreeSet::new();
    let count = rig.disk.crash_state().for_each_image(scope, &mut SimRandom::new(1), |_, image| {
        seen.insert(image.fingerprint());
        ControlFlow::Continue(())
    });
    (count, seen)
}

#[test]
fn what_was_synced_is_in_every_image() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(0, 2, 4096).unwrap();
    rig.sync().unwrap();
    rig.write(4096, 3, 4096).unwrap();

    let scope = Scope::default();
    rig.disk.crash_state().for_each_image(&scope, &mut SimRandom::new(1), |fates, image| {
        assert_eq!(image.file(path()).unwrap()[..4096], [2; 4096], "{fates:?}");
        ControlFlow::Continue(())
    });
}

#[test]
fn every_subset_of_few_writes_is_an_image() {
    let rig = Rig::new(SimOptions::new(1));
    for at in 0..4 {
        rig.write(at * 4096, 2, 4096).unwrap();
    }

    let (count, seen) = images(&rig, &Scope::default().torn_writes(0));

    assert_eq!((count, seen.len()), (16, 16));
}

#[test]
fn of_many_writes_each_is_lost_alone_and_each_prefix_and_suffix_kept() {
    let rig = Rig::new(SimOptions::new(1));
    for at in 0..12 {
        rig.write(at * 4096, 2, 4096).unwrap();
    }

    let (count, seen) = images(&rig, &Scope::default().torn_writes(0).random(0));

    // Twelve of each kind; losing the first alone is the longest suffix, losing the last alone is
    // the longest prefix, and keeping all is the suffix from the first on.
    assert_eq!((count, seen.len()), (34, 34));
}

#[test]
fn every_sector_cut_of_the_last_write_is_an_image() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(0, 2, 8192).unwrap();

    let (_, seen) = images(&rig, &Scope::default());

    // Whole, absent, 15 cuts from each side, 15 with garbage and one with garbage alone.
    assert_eq!(seen.len(), 2 + 30 + 15 + 1);
}

#[test]
fn random_images_are_the_same_for_the_same_seed() {
    let rig = Rig::new(SimOptions::new(1));
    for at in 0..20 {
        rig.write(at * 4096, 2, 8192).unwrap();
    }
    let prints = |seed| {
        let mut random = SimRandom::new(seed);
        let crash = rig.disk.crash_state();
        (0..50).map(|_| crash.random_image(&mut random).fingerprint()).collect::<Vec<_>>()
    };

    assert_eq!(prints(3), prints(3));
    assert_ne!(prints(3), prints(4));
}

#[test]
fn the_machine_stops_before_the_change_it_was_told_to() {
    let rig = Rig::new(SimOptions::new(1));
    let before = rig.disk.changes();
    let image = rig.disk.visible_image();
    for after in 0..3 {
        let disk = SimDisk::with_image(SimOptions::new(1).crash_after(after), image.clone());
        let file = super::create(&disk, path());
        let mut served = 0;
        while served < 10
            && disk.block_on(write(&disk, &file, served * 4096, filled(2, 4096))).is_some()
        {
            served += 1;
        }
        assert_eq!((served, disk.changes()), (after, after));
        assert_eq!(disk.step(), Stepped::Crashed);
    }
    assert_eq!(rig.disk.changes(), before);
}

#[test]
fn a_write_in_flight_may_be_on_disk_after_the_crash() {
    let rig = Rig::new(SimOptions::new(1));
    let pending = write(&rig.disk, &rig.file, 0, filled(2, 4096));

    let crash = rig.disk.crash();

    assert_eq!(crash.pending(), 1);
    assert_eq!(crash.image(&[Fate::Kept]).file(path()).unwrap()[..4096], [2; 4096]);
    assert_eq!(crash.image(&[Fate::Lost]).file(path()).unwrap(), [1; 8192]);
    drop(pending);
}

#[test]
fn a_reopened_machine_shows_what_was_not_synced() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(0, 2, 4096).unwrap();

    let second = rig.disk.reopen();
    let file = super::create(&second, path());
    let read = nephrite_io::read(&second, &file, 0, filled(0, 4096));
    let bytes = rig.wait(read).unwrap();

    assert_eq!(bytes.as_slice(), [2; 4096]);
    assert_eq!(second.stats().submitted, 1, "counters are each disk's own");
}

#[test]
fn an_image_can_be_damaged() {
    let rig = Rig::new(SimOptions::new(1));
    let mut image = rig.disk.visible_image();
    let whole = image.fingerprint();

    assert!(image.flip_bit(path(), 8 * 4096));
    assert_eq!(image.file(path()).unwrap()[4095..4098], [1, 0, 1]);
    assert_ne!(image.fingerprint(), whole);
    assert!(!image.flip_bit(path(), 8 * 8192), "the file ends there");
    assert!(image.set_len(path(), 10) && image.remove(path()));
    assert_eq!(image.paths(), Vec::<String>::new());
}
