//! Order: completions come in any, a sync covers what it must and no more, and a seed replays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nephrite_io::sim::{Fate, Fault, FaultPlan, FaultRule, SimDisk, SimOptions, Stepped};
use nephrite_io::{
    Completed, Disk, IoErrorKind, IoOperation, Operation, Request, note_orphaned, sync, write,
    write_synced,
};

use super::{Rig, filled, path};

/// Writes one block each; returns in which order they ended.
fn order(disk: &SimDisk, seed: u64) -> Vec<u64> {
    let file = super::create(disk, format!("/data/{seed}").as_ref());
    let ended = Arc::new(Mutex::new(Vec::new()));
    let request = |at: u64| {
        let ended = Arc::clone(&ended);
        let on_complete = Box::new(move |completed: Completed| {
            completed.result.unwrap();
            ended.lock().unwrap().push(at);
        });
        let operation = Operation::Write { offset: at * 4096, buffer: filled(1, 4096) };
        Request { file: file.clone(), operation, on_complete }
    };
    disk.submit((0..6).map(request).collect());
    disk.run_until_idle();
    Arc::into_inner(ended).unwrap().into_inner().unwrap()
}

#[test]
fn operations_in_flight_together_end_in_any_order() {
    let orders = (0..200).map(|seed| {
        let rig = Rig::new(SimOptions::new(seed));
        order(&rig.disk, seed)
    });
    let orders: std::collections::BTreeSet<_> = orders.collect();
    assert!(orders.len() > 100, "{}", orders.len());
    assert!(orders.iter().any(|order| order[0] == 5) && orders.iter().any(|order| order[5] == 0));
}

#[test]
fn a_sync_does_not_cover_a_write_still_in_flight() {
    let mut early = false;
    for seed in 0..50 {
        let rig = Rig::new(SimOptions::new(seed));
        let written = write(&rig.disk, &rig.file, 0, filled(2, 4096));
        let synced = sync(&rig.disk, &rig.file);
        rig.wait(synced).unwrap();
        early |= rig.disk.stats().writes == 1;

        assert_eq!(rig.after_crash(&Fate::Lost).unwrap(), [1; 8192], "seed {seed}");
        rig.wait(written).unwrap();
    }
    assert!(early, "a sync came back before the write that was submitted earlier");
}

#[test]
fn a_seed_replays_exactly_and_another_differs() {
    let run = |seed| {
        let rig = Rig::new(SimOptions::new(seed).keep_events());
        order(&rig.disk, 0);
        (rig.disk.trace_hash(), rig.disk.events())
    };

    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
    let text = run(5).1.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("write `/data/file` 8192 at 0 -> 8192"), "{text}");
}

#[test]
fn time_moves_only_with_what_is_served() {
    let rig = Rig::new(SimOptions::new(1).latency_max(Duration::from_millis(5)));
    let before = rig.disk.clock().now();
    assert_eq!((rig.disk.next_due(), rig.disk.step()), (None, Stepped::Idle));
    assert_eq!(rig.disk.clock().now(), before);

    let written = write(&rig.disk, &rig.file, 0, filled(2, 4096));
    let due = rig.disk.next_due().unwrap();
    rig.wait(written).unwrap();

    assert_eq!(rig.disk.clock().now(), due);
    assert!(due <= before + Duration::from_millis(5));
}

#[test]
fn a_dropped_future_leaves_its_operation_running() {
    let rig = Rig::new(SimOptions::new(1));
    drop(write(&rig.disk, &rig.file, 0, filled(2, 4096)));

    rig.disk.run_until_idle();

    assert_eq!(rig.read(0, 4096).unwrap(), [2; 4096]);
    assert_eq!(rig.disk.stats().orphaned, 1);
}

#[test]
fn a_completion_may_submit_more() {
    let rig = Rig::new(SimOptions::new(1));
    let (disk, file) = (rig.disk.clone(), rig.file.clone());
    let on_complete = Box::new(move |_: Completed| {
        let operation = Operation::Write { offset: 4096, buffer: filled(3, 4096) };
        let on_complete = Box::new(|_: Completed| note_orphaned());
        disk.submit(vec![Request { file, operation, on_complete }]);
    });
    let operation = Operation::Write { offset: 0, buffer: filled(2, 4096) };
    rig.disk.submit(vec![Request { file: rig.file.clone(), operation, on_complete }]);

    rig.disk.run_until_idle();

    assert_eq!(rig.read(0, 8192).unwrap(), [vec![2; 4096], vec![3; 4096]].concat());
}

#[test]
fn shutdown_waits_for_what_is_in_flight_and_refuses_the_rest() {
    let rig = Rig::new(SimOptions::new(1));
    let early = write(&rig.disk, &rig.file, 0, filled(2, 4096));
    let ended = rig.disk.shutdown();
    let late = write(&rig.disk, &rig.file, 0, filled(3, 4096));
    let named = rig.disk.remove_file(path());

    assert_eq!(rig.wait(late).unwrap_err().kind(), IoErrorKind::Closed);
    assert_eq!(rig.wait(named).unwrap_err().kind(), IoErrorKind::Closed);
    rig.wait(ended).unwrap();

    assert_eq!(rig.disk.stats().writes, 2);
    rig.wait(early).unwrap();
}

#[test]
fn an_immediate_disk_needs_nobody_to_drive_it() {
    let disk = SimDisk::new(SimOptions::new(1).immediate());
    let options = nephrite_io::OpenOptions::read_write().create_new();
    let file = nephrite_io::block_on(disk.open(path().file_name().unwrap().as_ref(), options));
    let file = file.unwrap();

    nephrite_io::block_on(write(&disk, &file, 0, filled(2, 4096))).unwrap();
    nephrite_io::block_on(sync(&disk, &file)).unwrap();
    let bytes = nephrite_io::block_on(nephrite_io::read(&disk, &file, 0, filled(0, 4096))).unwrap();

    assert_eq!(bytes.as_slice(), [2; 4096]);
    nephrite_io::block_on(disk.shutdown()).unwrap();
}

#[test]
fn a_durable_write_covers_itself_and_what_was_written_before() {
    for options in [SimOptions::new(1), SimOptions::new(1).write_through()] {
        let rig = Rig::new(options);
        rig.write(0, 2, 4096).unwrap();

        rig.wait(write_synced(&rig.disk, &rig.file, 4096, filled(3, 4096))).unwrap();

        let both = [vec![2; 4096], vec![3; 4096]].concat();
        assert_eq!(rig.after_crash(&Fate::Lost).unwrap(), both);
    }
}

#[test]
fn a_durable_write_that_fails_to_sync_is_durable_or_not() {
    let rig = Rig::with_fault(Fault::SyncForgets, IoOperation::Sync);

    let error = rig.wait(write_synced(&rig.disk, &rig.file, 0, filled(3, 4096))).unwrap_err();

    assert_eq!(error.operation(), IoOperation::Sync);
    assert_eq!(rig.after_crash(&Fate::Kept).unwrap(), [1; 8192]);
    assert!(rig.file.poisoned().is_some());
}

/// The kernel reports lost writes to one of the syncs that waited for them; the other succeeds.
#[test]
fn of_two_syncs_at_once_none_succeeds_after_one_has_failed() {
    for (seed, nth) in (0..20).flat_map(|seed| [(seed, 1), (seed, 2)]) {
        let rig = Rig::new(SimOptions::new(seed));
        let forgets = FaultRule::new(Fault::SyncForgets, &[IoOperation::Sync]).nth(nth);
        rig.disk.set_faults(FaultPlan::new().with(forgets));
        rig.write(0, 2, 4096).unwrap();

        let both = [sync(&rig.disk, &rig.file), sync(&rig.disk, &rig.file)];
        let outcomes = both.map(|sync| rig.wait(sync).map_err(|error| error.kind()));

        assert!(outcomes.iter().all(Result::is_err), "seed {seed}: {outcomes:?}");
        assert!(outcomes.contains(&Err(IoErrorKind::Poisoned)), "{outcomes:?}");
    }
}

#[test]
fn without_a_volatile_cache_completed_writes_are_durable() {
    let rig = Rig::new(SimOptions::new(1).write_through());
    rig.write(0, 2, 4096).unwrap();
    assert_eq!(rig.after_crash(&Fate::Lost).unwrap(), [vec![2; 4096], vec![1; 4096]].concat());

    let pending = write(&rig.disk, &rig.file, 0, filled(3, 4096));
    assert_eq!(rig.after_crash(&Fate::Torn(0..1)).unwrap()[510..514], [3, 3, 2, 2]);
    rig.wait(pending).unwrap();
}

/// Where a file gets longer, or a hole is filled, the file system has to write as well.
#[test]
fn without_a_volatile_cache_a_file_is_no_longer_until_it_is_synced() {
    for set_len in [false, true] {
        let rig = Rig::new(SimOptions::new(1).write_through());
        if set_len {
            rig.wait(rig.disk.set_len(&rig.file, 12_288)).unwrap();
            rig.sync().unwrap();
        }
        let synced = rig.after_crash(&Fate::Lost).unwrap();
        rig.write(8192, 2, 4096).unwrap();
        assert!(rig.after_crash(&Fate::Lost).unwrap() == synced, "set_len: {set_len}");

        rig.sync().unwrap();

        assert!(rig.after_crash(&Fate::Lost).unwrap()[8192..] == [2; 4096]);
    }
}
