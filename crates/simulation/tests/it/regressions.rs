//! Bugs of the engine that simulation found, each with what it takes to see it again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nephrite::{
    Config, DatabaseOptions, Disk, Durability, Error, Store,
    repair::{RepairMode, repair},
    runtime::Runtime,
};
use nephrite_io::IoOperation;
use nephrite_io::sim::{
    Errno, Fate, Fault, FaultPlan, FaultRule, Image, SimDisk, SimOptions, SimRandom,
};
use nephrite_simulation::{
    Ended, Options, Profile, SimRuntime, left_out_frame, left_out_frame_after_failed_sync,
    lent_memory, merged_tombstone, simulate,
};

fn machine(options: SimOptions, image: Image) -> (SimDisk, SimRuntime) {
    let disk = SimDisk::with_image(options, image);
    let runtime = SimRuntime::new(1, disk.clone());
    (disk, runtime)
}

fn empty() -> Image {
    let mut image = Image::new();
    image.create_dir(Path::new("/sim"));
    image
}

fn config(disk: &SimDisk, runtime: &SimRuntime) -> Config {
    let disk: Arc<dyn Disk> = Arc::new(disk.reopen());
    let runtime: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let config = Config::new().memory_limit(4 << 20).wal_segment_bytes(256 << 10);
    config.disk(disk).runtime(runtime)
}

async fn open(disk: SimDisk, runtime: SimRuntime) -> Result<Store, Error> {
    Store::open_or_create("/sim/store", config(&disk, &runtime)).await
}

/// Stores one vector, durably, in a new database.
async fn keep(store: &Store) -> Result<(), Error> {
    let database = store.create_database("kept", DatabaseOptions::new(2)).await?;
    database.put_with(7, &[1.0, 2.0], Durability::Synced).await
}

/// A machine with this image has what [`keep`] stored.
#[track_caller]
fn assert_kept(image: Image) {
    let (disk, runtime) = machine(SimOptions::new(2), image);
    let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
    let get = async { store.database("kept").await?.get(7).await };
    assert_eq!(done(runtime.run(get)).unwrap().unwrap().to_vec(), [1.0, 2.0]);
    runtime.kill();
}

/// A machine with this image has a store at this path.
#[track_caller]
fn assert_opens(path: &str, image: Image) {
    let (disk, runtime) = machine(SimOptions::new(2), image);
    assert!(done(runtime.run(Store::open(path, config(&disk, &runtime)))).is_ok());
    runtime.kill();
}

fn done<T>(ended: Ended<T>) -> T {
    match ended {
        Ended::Done(value) => value,
        Ended::Crashed => panic!("the machine crashed"),
        Ended::Stuck => panic!("it never ends"),
    }
}

/// Seeds 28 and 449: an unfinished manifest, or a log file with a torn header, made every later
/// attempt fail.
#[test]
fn a_crash_while_a_store_is_made_leaves_a_directory_in_which_one_can_be_made() {
    for changes in 0.. {
        let (disk, runtime) = machine(SimOptions::new(1).crash_after(changes), empty());
        let made = runtime.run(open(disk.reopen(), runtime.clone()));
        if matches!(made, Ended::Done(Ok(_))) {
            assert!(10 < changes, "{changes}");
            return;
        }
        let crash = disk.crash();
        runtime.kill();
        let mut random = SimRandom::new(changes);
        let kept = crash.image(&vec![Fate::Kept; crash.pending()]);
        for image in (0..30).map(|_| crash.random_image(&mut random)).chain([kept]) {
            let (disk, runtime) = machine(SimOptions::new(2), image);
            let made = done(runtime.run(open(disk.reopen(), runtime.clone())));
            drop(made.unwrap());
            done(runtime.run_until_idle());
            runtime.kill();
        }
    }
}

/// Seed 549: the bytes of a failed sync stay readable until the machine stops. A store opened in
/// between went on behind a manifest frame that was not on disk.
#[test]
fn a_change_whose_sync_failed_does_not_damage_the_manifest_of_the_next_life() {
    let (disk, runtime) = machine(SimOptions::new(1), empty());
    let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
    let rule = FaultRule::new(Fault::SyncForgets, &[IoOperation::Sync]).path("manifest");
    disk.set_faults(FaultPlan::new().with(rule));
    let refused = done(runtime.run(store.create_database("lost", DatabaseOptions::new(2))));
    assert!(refused.is_err() && disk.faults_struck() == 1);
    drop(store);
    done(runtime.run_until_idle());

    let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
    done(runtime.run(keep(&store))).unwrap();
    runtime.kill();
    drop(store);
    let crash = disk.crash();

    assert_kept(crash.image(&[]));
}

/// Seeds 265, 3201, 4429 and 4691: after a manifest commit of unknown outcome each further flush
/// wrote the segment file anew, which the manifest on disk named, or even removed it.
#[test]
fn a_segment_that_the_manifest_may_name_is_not_written_again() {
    let (disk, runtime) = machine(SimOptions::new(1), empty());
    let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
    done(runtime.run(keep(&store))).unwrap();
    let rule = FaultRule::new(Fault::SyncKeeps, &[IoOperation::Sync]).path("manifest");
    disk.set_faults(FaultPlan::new().with(rule));
    assert!(done(runtime.run(store.flush())).is_err());
    let segments = |disk: &SimDisk| {
        let image = disk.visible_image();
        let names = image.paths().into_iter().filter(|path| path.ends_with(".seg"));
        names.map(|path| image.file(path.as_ref())).collect::<Vec<_>>()
    };
    let before = segments(&disk);

    disk.set_faults(FaultPlan::new());
    assert!(done(runtime.run(store.flush())).is_err(), "the manifest is poisoned");

    assert_eq!((before.len(), segments(&disk) == before), (1, true));
    runtime.kill();
}

/// Whoever retried a failed sync of the directory had it succeed, although the name of the segment
/// was forgotten: the manifest named a file that was gone after a power cut.
#[test]
fn a_name_that_a_failed_sync_forgot_is_not_counted_on() {
    let (disk, runtime) = machine(SimOptions::new(1), empty());
    let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
    done(runtime.run(keep(&store))).unwrap();
    let rule = FaultRule::new(Fault::SyncForgets, &[IoOperation::SyncDirectory]).path("segments");
    disk.set_faults(FaultPlan::new().with(rule));
    assert!(done(runtime.run(store.flush())).is_err() && disk.has_lost_names());

    done(runtime.run(store.flush())).unwrap();
    let crash = disk.crash();
    runtime.kill();

    assert_kept(crash.image(&[]));
}

/// Only the directory right above the store was synced: the names of those above it, made with the
/// store, were lost in a power cut, and everything that was synced with them.
#[test]
fn the_names_of_all_directories_above_a_new_store_are_durable() {
    let (disk, runtime) = machine(SimOptions::new(1), empty());
    let made = Store::create("/sim/a/b/c/store", config(&disk, &runtime));
    drop(done(runtime.run(made)).unwrap());

    let crash = disk.crash();
    runtime.kill();

    assert_opens("/sim/a/b/c/store", crash.image(&[]));
}

/// Seed 133 (`--faults failures`): an attempt to make a store failed between making the directories
/// above it and syncing them; the next one found them there and took them for durable.
#[test]
fn directories_that_a_failed_attempt_left_are_made_durable_by_the_next() {
    let (disk, runtime) = machine(SimOptions::new(1), empty());
    let make = || runtime.run(Store::create("/sim/a/b/c/store", config(&disk, &runtime)));
    let rule = FaultRule::new(Fault::Error(Errno::Io), &[IoOperation::SyncDirectory]).nth(1);
    disk.set_faults(FaultPlan::new().with(rule));
    assert!(done(make()).is_err());
    drop(done(make()).unwrap());

    let crash = disk.crash();
    runtime.kill();

    assert_opens("/sim/a/b/c/store", crash.image(&[]));
}

/// Seeds 141 and 2526 (`--faults failures`): a change of the manifest whose sync had failed
/// was believed by the next process. It took a log file that the change had freed, gave it another
/// header or removed it, and only then wrote the manifest anew: a power cut in between left a
/// manifest that named the file as it had been. Seeds 698, 1683 and 2104: databases were there
/// in that process, and gone after the cut.
#[test]
fn nothing_is_built_on_a_change_of_the_manifest_that_may_not_be_on_disk() {
    let mut cuts = 0;
    for changes in 0.. {
        let (disk, runtime) = machine(SimOptions::new(1).crash_after(changes), empty());
        let begun = runtime.run(async {
            let store = open(disk.reopen(), runtime.clone()).await?;
            keep(&store).await.map(|()| store)
        });
        let Ended::Done(Ok(store)) = begun else {
            runtime.kill();
            continue;
        };
        let rule = FaultRule::new(Fault::SyncForgets, &[IoOperation::Sync]).path("manifest");
        disk.set_faults(FaultPlan::new().with(rule));
        let _ = runtime.run(store.flush());
        drop(store);
        let _ = runtime.run_until_idle();
        disk.set_faults(FaultPlan::new());
        let went_on = runtime.run(async {
            let store = open(disk.reopen(), runtime.clone()).await?;
            store.database("kept").await?.put_with(8, &[3.0, 4.0], Durability::Synced).await?;
            store.flush().await
        });
        let crash = disk.crash();
        runtime.kill();
        assert_kept(crash.image(&[]));
        cuts += 1;
        if let Ended::Done(outcome) = went_on {
            outcome.unwrap();
            assert!(10 < cuts, "the power was cut {cuts} times");
            return;
        }
    }
}

/// Seed 391: a process was killed when it had made a log file, before the file's name was durable.
/// The next one used the file as it was, and a power cut took it away.
#[test]
fn the_name_of_a_log_file_that_a_killed_process_made_is_durable_before_it_is_used() {
    let report = simulate(&Options::new(391).steps(200).profile(Profile::Failures));
    assert_eq!(report.failure, None);
}

/// Seeds 536, 1322 and 1524: a delete whose log frame a full disk had refused after it was staged
/// was tried again, found its own tombstone, and said that the id was not stored.
#[test]
fn a_delete_that_fails_says_so() {
    for seed in [536, 1322, 1524] {
        let report = simulate(&Options::new(seed).steps(200).profile(Profile::Failures));
        assert_eq!(report.failure, None, "seed {seed}");
    }
}

/// Seeds 214, 304 and 729: a frame that a crash had cut off, and that recovery had given up, hid
/// from repair the acknowledged frame that was written in its place later: it took the whole log
/// from there on for lost. The unit test beside the code holds whatever the seeds do.
#[test]
fn a_repair_counts_on_the_latest_of_two_frames_with_the_same_number() {
    for seed in [214, 304, 729] {
        let report = simulate(&Options::new(seed).steps(200).profile(Profile::Crashes));
        assert_eq!(report.failure, None, "seed {seed}");
    }
}

/// Seed 1045: repair said that a log file which never was part of the log may have held something.
#[test]
fn a_repair_of_what_a_crash_left_of_a_store_in_the_making_names_no_loss() {
    let mut lossless = 0;
    for changes in 0.. {
        let (disk, runtime) = machine(SimOptions::new(1).crash_after(changes), empty());
        let made = runtime.run(open(disk.reopen(), runtime.clone()));
        let is_made = matches!(made, Ended::Done(Ok(_)));
        let crash = disk.crash();
        runtime.kill();
        let mut random = SimRandom::new(changes);
        for image in (0..30).map(|_| crash.random_image(&mut random)) {
            let (disk, runtime) = machine(SimOptions::new(2), image);
            let config = config(&disk, &runtime);
            match done(runtime.run(repair("/sim/store", config, RepairMode::Repair))) {
                Ok(report) => {
                    assert!(report.is_lossless(), "change {changes}: {report}");
                    lossless += 1;
                }
                Err(Error::NotAStore { .. } | Error::Io(_)) => {}
                Err(error) => panic!("change {changes}: {error}"),
            }
            runtime.kill();
        }
        if is_made {
            assert!(0 < lossless);
            return;
        }
    }
}

/// What a killed process wrote may be in the operating system's memory only. Recovery makes it
/// durable or refuses to go on, with however little room.
#[test]
fn what_a_killed_process_left_is_kept_on_a_full_disk_whether_the_next_may_write_or_not() {
    let (mut taken, mut refused) = (0, 0);
    for room in (0..=64).step_by(4) {
        let (disk, runtime) = machine(SimOptions::new(1), empty());
        let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
        done(runtime.run(keep(&store))).unwrap();
        let buffered = async {
            store.database("kept").await?.put_with(8, &[3.0, 4.0], Durability::Buffered).await
        };
        done(runtime.run(buffered)).unwrap();
        done(runtime.run(runtime.sleep(Duration::from_millis(25))));
        runtime.kill();
        drop(store);
        disk.run_until_idle();

        // The next process on the same machine; there is little room, at best for the log.
        let runtime = SimRuntime::new(2, disk.clone());
        disk.set_capacity(Some(disk.used() + (room << 10)));
        let put = done(runtime.run(async {
            let store = open(disk.reopen(), runtime.clone()).await?;
            store.database("kept").await?.put_with(9, &[5.0, 6.0], Durability::Synced).await
        }));
        let crash = disk.crash();
        runtime.kill();
        let expected: &[u64] = if put.is_ok() { &[7, 8, 9] } else { &[7] };
        assert_ids(expected, crash.image(&[]));
        taken += u32::from(put.is_ok());
        refused += u32::from(put.is_err());
    }
    assert!(0 < taken && 0 < refused, "{taken} taken, {refused} refused");
}

/// Puts until the disk is full, has its last block taken, and deletes so many ids; what there were.
async fn fill_and_delete(store: &Store, disk: &SimDisk, deleted: u64) -> Result<u64, Error> {
    let database = store.create_database("kept", DatabaseOptions::new(256)).await?;
    let mut count = 0;
    let refusal = loop {
        match database.put(count, &[1.0; 256]).await {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(refusal.is_disk_full(), "{refusal}");
    disk.set_capacity(Some(disk.used()));
    for id in 0..deleted {
        assert!(database.delete_with(id, Durability::Synced).await?, "id {id}");
    }
    Ok(count)
}

/// Flushes, rewrites, log and reserve give way to each other on a full disk, so that no delete is
/// refused; a power cut meanwhile brings nothing back, and takes nothing else.
#[test]
fn deletes_on_a_full_disk_are_taken_and_survive_a_power_cut() {
    for deleted in [70, 400, 1200] {
        let options = SimOptions::new(deleted).capacity(6 << 20);
        let (disk, runtime) = machine(options, empty());
        let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
        let count = done(runtime.run(fill_and_delete(&store, &disk, deleted)));
        let count = count.unwrap_or_else(|error| panic!("{deleted} deletes: {error}"));
        let image = disk.crash().random_image(&mut SimRandom::new(deleted));
        runtime.kill();
        let (disk, runtime) = machine(SimOptions::new(2), image);
        let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
        let check = async {
            let database = store.database("kept").await?;
            for id in 0..count {
                let found = database.get(id).await?.is_some();
                assert_eq!(found, deleted <= id, "id {id} of {count}, {deleted} deleted");
            }
            Ok::<(), Error>(())
        };
        done(runtime.run(check)).unwrap();
        runtime.kill();
    }
}

/// A machine with this image has these ids, among others.
#[track_caller]
fn assert_ids(expected: &[u64], image: Image) {
    let (disk, runtime) = machine(SimOptions::new(2), image);
    let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
    for id in expected {
        let get = async { store.database("kept").await?.get(*id).await };
        assert!(done(runtime.run(get)).unwrap().is_some(), "id {id}");
    }
    runtime.kill();
}

/// Seed 961 with failures: the manifest's change that named a log file failed in its sync, and yet
/// was on disk. The next attempt wrote the header of that file anew, a power cut tore it, and the
/// store was refused.
#[test]
fn a_log_file_that_the_manifest_may_name_is_not_written_again() {
    let (disk, runtime) = machine(SimOptions::new(1), empty());
    let store = done(runtime.run(open(disk.reopen(), runtime.clone()))).unwrap();
    done(runtime.run(keep(&store))).unwrap();
    done(runtime.run(store.close())).unwrap();
    let crash = disk.crash();
    let closed = crash.image(&vec![Fate::Kept; crash.pending()]);
    runtime.kill();
    for changes in 0.. {
        let options = SimOptions::new(1).crash_after(changes);
        let (disk, runtime) = machine(options, closed.clone());
        let ended = runtime.run(async {
            let store = open(disk.reopen(), runtime.clone()).await?;
            let rule = FaultRule::new(Fault::SyncKeeps, &[IoOperation::Sync]).path("manifest");
            disk.set_faults(FaultPlan::new().with(rule));
            let database = store.database("kept").await?;
            for id in 20..23 {
                let _ = database.put_with(id, &[5.0, 6.0], Durability::Synced).await;
            }
            Ok::<_, Error>(store)
        });
        let is_over = !matches!(ended, Ended::Crashed);
        let struck = disk.faults_struck();
        let crash = disk.crash();
        runtime.kill();
        drop(ended);
        let mut random = SimRandom::new(changes);
        for image in (0..30).map(|_| crash.random_image(&mut random)) {
            assert_kept(image);
        }
        if is_over {
            assert_eq!(struck, 1);
            return;
        }
    }
}

/// A log frame that a recovery had left out, since its bulk rows were missing, counted again when a
/// power cut took the frame that replaced it, and the rows were not asked for any more.
#[test]
fn a_log_frame_that_a_recovery_left_out_never_counts_again() {
    assert_eq!(left_out_frame(), Ok(()));
}

/// Seed 6 (`--steps 150 --faults failures`): the same frame counted although the segment behind it
/// began with the frame that replaced it, and the store was refused. Recovery overwrites such
/// frames since; what is left is a sync of that which fails.
#[test]
fn a_log_frame_that_a_later_segment_replaces_does_not_count() {
    assert_eq!(left_out_frame_after_failed_sync(), Ok(()));
}

/// A bug that is planted in compactions, and that seeds find too seldom.
#[test]
fn a_delete_of_a_record_in_an_old_segment_survives_the_merge_of_newer_ones() {
    assert_eq!(merged_tombstone(), Ok(()));
}

/// Bugs that are planted in the loan between cache and memtables, which no other store here is
/// large enough for.
#[test]
fn memory_that_the_cache_has_on_loan_is_given_back_before_writers_use_it() {
    assert_eq!(lent_memory(), Ok(()));
}
