//! A repair that is stopped at any point: the next one brings it to its end.
//!
//! The simulated disk crashes before the n-th change, and of what was not synced any part may be
//! lost. Whatever is left is repaired again, and then holds what one uninterrupted repair leaves.

use std::{path::Path, sync::Arc};

use nephrite::{
    Config, DatabaseOptions, Id,
    blocking::Store,
    repair::{RepairMode, repair},
};
use nephrite_io::sim::{Image, SimDisk, SimOptions, SimRandom};

use crate::support::vector;

const STORE: &str = "/store";

fn config(disk: &SimDisk) -> Config {
    let config = Config::new().memory_limit(8 << 20).wal_segment_bytes(256 << 10);
    config.disk(Arc::new(disk.clone()))
}

fn disk_with(image: Image) -> SimDisk {
    SimDisk::with_image(SimOptions::new(1).immediate(), image)
}

/// A store of two segments whose older one has a damaged vector page, and, if asked for, a damaged
/// manifest.
fn damaged_store(harms_manifest: bool) -> Image {
    let disk = SimDisk::new(SimOptions::new(1).immediate());
    let store = Store::create(STORE, config(&disk)).unwrap();
    let database = store.create_database("a", DatabaseOptions::new(100)).unwrap();
    for ids in [0..40_u64, 30..60] {
        for id in ids.clone() {
            database.put(id, &vector(ids.end * 1000 + id, 100)).unwrap();
        }
        database.flush().unwrap();
    }
    store.close().unwrap();
    drop(store);
    let mut image = disk.visible_image();
    let paths = image.paths();
    let segment = paths.iter().find(|path| path.ends_with(".seg")).unwrap();
    assert!(image.flip_bit(Path::new(segment), 8 * (4096 + 4096 + 50)));
    for log in paths.iter().filter(|path| path.ends_with(".wal")) {
        // What the log still holds of it would give everything back.
        let bytes = image.file(Path::new(log)).unwrap().len();
        assert!(image.overwrite(Path::new(log), 4096, &vec![0; bytes - 4096]));
    }
    if harms_manifest {
        let manifest = paths.iter().find(|path| path.contains("manifest-")).unwrap();
        assert!(image.flip_bit(Path::new(manifest), 8 * 4200));
    }
    image
}

/// All records after opening, which must succeed and verify clean.
fn records(disk: &SimDisk, what: &str) -> Vec<(Id, Vec<f32>)> {
    let store = Store::open(STORE, config(disk)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let report = store.verify(|_| ()).unwrap();
    assert!(report.is_clean(), "{what}: {report:?}");
    let name = store.list().pop().unwrap().name;
    let database = store.database(&name).unwrap();
    let rows = database.scan().unwrap();
    rows.map(|row| row.map(|(id, found)| (id, found.to_vec())).unwrap()).collect()
}

fn stopped_anywhere_it_is_finished_by_the_next(harms_manifest: bool) {
    let image = damaged_store(harms_manifest);
    let disk = disk_with(image.clone());
    let before = disk.changes();
    let run = disk.block_on(repair(STORE, config(&disk), RepairMode::Repair));
    let report = run.expect("the machine runs").unwrap();
    assert!(!report.is_lossless(), "{report}");
    let changes = disk.changes() - before;
    let expected = records(&disk_with(disk.visible_image()), "uninterrupted");
    assert!(expected.len() < 60 && 40 < expected.len());
    let mut random = SimRandom::new(7);
    for stop in 0..changes {
        let options = SimOptions::new(stop).immediate().crash_after(stop);
        let disk = SimDisk::with_image(options, image.clone());
        let stopped = disk.block_on(repair(STORE, config(&disk), RepairMode::Repair));
        assert!(!matches!(stopped, Some(Ok(_))), "stop {stop}: it did not stop");
        let crash = disk.crash_state();
        for round in 0..3 {
            let what = format!("manifest {harms_manifest}, stop {stop}, image {round}");
            let disk = disk_with(crash.random_image(&mut random));
            let again = disk.block_on(repair(STORE, config(&disk), RepairMode::Repair));
            let again = again.expect("the machine runs");
            again.unwrap_or_else(|error| panic!("{what}: {error}"));
            let disk = disk_with(disk.visible_image());
            assert!(records(&disk, &what) == expected, "{what}: other records");
        }
    }
}

#[test]
fn a_repair_of_segments_that_is_stopped_is_finished_by_the_next() {
    stopped_anywhere_it_is_finished_by_the_next(false);
}

#[test]
fn a_repair_of_a_manifest_that_is_stopped_is_finished_by_the_next() {
    stopped_anywhere_it_is_finished_by_the_next(true);
}
