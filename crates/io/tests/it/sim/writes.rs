//! Faults of the write path.

use nephrite_io::sim::{Errno, Fate, Fault, FaultPlan, FaultRule, Repeat, SimOptions};
use nephrite_io::{Disk, IoErrorKind, IoOperation, OpenOptions, write};

use super::{Rig, SECTOR, create, filled};

#[test]
fn a_torn_write_ends_at_any_sector_of_a_page() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(0, 2, 4096).unwrap();

    for cut in 0..=8 {
        let bytes = rig.after_crash(&Fate::Torn(0..cut)).unwrap();
        assert!(bytes[..cut * SECTOR].iter().all(|byte| *byte == 2));
        assert!(bytes[cut * SECTOR..].iter().all(|byte| *byte == 1));
        let bytes = rig.after_crash(&Fate::Torn(cut..8)).unwrap();
        assert!(bytes[..cut * SECTOR].iter().all(|byte| *byte == 1));
        assert!(bytes[cut * SECTOR..4096].iter().all(|byte| *byte == 2));
    }
}

#[test]
fn a_torn_write_may_keep_its_second_page_only() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(0, 2, 8192).unwrap();

    let bytes = rig.after_crash(&Fate::Torn(8..16)).unwrap();

    assert!(bytes[..4096].iter().all(|byte| *byte == 1));
    assert!(bytes[4096..].iter().all(|byte| *byte == 2));
}

#[test]
fn a_torn_write_may_leave_garbage_in_one_sector() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(0, 2, 4096).unwrap();

    let bytes = rig.after_crash(&Fate::Garbled(0..3, 9)).unwrap();

    assert!(bytes[..3 * SECTOR].iter().all(|byte| *byte == 2));
    assert!(bytes[3 * SECTOR..4 * SECTOR].iter().any(|byte| ![1, 2].contains(byte)));
    assert!(bytes[4 * SECTOR..].iter().all(|byte| *byte == 1));
}

#[test]
fn a_lost_write_is_acknowledged_and_never_lands() {
    let rig = Rig::with_fault(Fault::Lost, IoOperation::Write);

    rig.write(0, 2, 4096).unwrap();
    rig.sync().unwrap();

    assert_eq!(rig.read(0, 4096).unwrap(), [1; 4096]);
    assert_eq!(rig.after_crash(&Fate::Kept).unwrap(), [1; 8192]);
}

#[test]
fn the_later_of_two_unsynced_writes_may_survive_alone() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(0, 2, 4096).unwrap();
    rig.write(4096, 3, 4096).unwrap();

    let bytes = rig.disk.crash_state().image(&[Fate::Lost, Fate::Kept]).file(super::path());

    assert_eq!(bytes.unwrap(), [vec![1; 4096], vec![3; 4096]].concat());
}

#[test]
fn a_failed_sync_is_not_healed_by_a_later_one() {
    let rig = Rig::with_fault(Fault::SyncForgets, IoOperation::Sync);
    rig.write(0, 2, 4096).unwrap();

    assert!(rig.sync().is_err());

    // The handle is poisoned; a fresh one syncs without complaint, and makes nothing durable.
    assert_eq!(rig.sync().unwrap_err().kind(), IoErrorKind::Poisoned);
    let again = create(&rig.disk, super::path());
    rig.wait(nephrite_io::sync(&rig.disk, &again)).unwrap();
    assert_eq!(rig.after_crash(&Fate::Kept).unwrap(), [1; 8192]);
}

#[test]
fn after_a_failed_sync_reads_show_what_the_disk_does_not_have() {
    let rig = Rig::with_fault(Fault::SyncForgets, IoOperation::Sync);
    rig.write(0, 2, 4096).unwrap();

    assert!(rig.sync().is_err());

    assert_eq!(rig.read(0, 4096).unwrap(), [2; 4096]);
    assert_eq!(rig.after_crash(&Fate::Kept).unwrap(), [1; 8192]);
}

#[test]
fn a_failed_sync_may_have_kept_everything() {
    let rig = Rig::with_fault(Fault::SyncKeeps, IoOperation::Sync);
    rig.write(0, 2, 8192).unwrap();

    assert!(rig.sync().is_err());

    assert_eq!(rig.after_crash(&Fate::Lost).unwrap(), [2; 8192]);
}

#[test]
fn a_short_write_is_continued() {
    let rig = Rig::with_fault(Fault::Short, IoOperation::Write);

    rig.write(0, 2, 8192).unwrap();

    assert_eq!(rig.read(0, 8192).unwrap(), [2; 8192]);
    assert_eq!(rig.disk.stats().short_counts, 1);
}

#[test]
fn writes_that_are_always_short_end_all_the_same() {
    let rig = Rig::new(SimOptions::new(1).direct(None));
    let rule = FaultRule::new(Fault::Short, &[IoOperation::Write]).repeat(Repeat::Forever);
    rig.disk.set_faults(FaultPlan::new().with(rule));

    rig.write(100, 2, 5000).unwrap();

    assert_eq!(rig.read(100, 5000).unwrap(), [2; 5000]);
    assert!(1 < rig.disk.stats().short_counts);
}

#[test]
fn a_write_of_zero_bytes_is_an_error() {
    let rig = Rig::with_fault(Fault::Zero, IoOperation::Write);

    let error = rig.write(0, 2, 4096).unwrap_err();

    assert!(error.to_string().contains("stopped accepting data after 0 bytes"), "{error}");
    assert!(rig.file.poisoned().is_some());
}

#[test]
fn a_full_disk_takes_what_fits_and_then_nothing() {
    let rig = Rig::new(SimOptions::new(1).capacity(16 << 10));

    let error = rig.write(4096, 2, 64 << 10).unwrap_err();

    assert_eq!(error.kind(), IoErrorKind::Full);
    assert_eq!(rig.disk.used(), 16 << 10);
    assert_eq!(rig.read(4096, 12 << 10).unwrap(), vec![2; 12 << 10]);
    assert_eq!(rig.disk.stats().short_counts, 1);
}

#[test]
fn removing_a_file_gives_its_room_back() {
    let rig = Rig::new(SimOptions::new(1).capacity(16 << 10));
    let other = std::path::Path::new("/data/other");
    let file = create(&rig.disk, other);
    rig.wait(write(&rig.disk, &file, 0, filled(5, 8192))).unwrap();
    assert_eq!(rig.disk.used(), 16 << 10);

    rig.wait(rig.disk.remove_file(other)).unwrap();
    assert_eq!(rig.disk.used(), 16 << 10, "a handle keeps it");
    drop(file);

    rig.write(8192, 2, 8192).unwrap();
    assert_eq!(rig.disk.used(), 16 << 10);
}

#[test]
fn a_file_whose_name_another_one_takes_gives_its_room_back() {
    let rig = Rig::new(SimOptions::new(1).capacity(16 << 10));
    for name in ["/data/new", "/data/old"] {
        let file = create(&rig.disk, name.as_ref());
        rig.wait(write(&rig.disk, &file, 0, filled(5, 4096))).unwrap();
    }
    assert_eq!(rig.disk.used(), 16 << 10);

    rig.wait(rig.disk.rename("/data/new".as_ref(), "/data/old".as_ref())).unwrap();

    assert_eq!(rig.disk.used(), 12 << 10);
}

#[test]
fn no_space_is_reported_on_data_and_on_a_length() {
    for operation in [IoOperation::Write, IoOperation::SetLength] {
        let rig = Rig::with_fault(Fault::Error(Errno::NoSpace), operation);

        let error = match operation {
            IoOperation::Write => rig.write(0, 2, 4096).unwrap_err(),
            _ => rig.wait(rig.disk.set_len(&rig.file, 1 << 20)).unwrap_err(),
        };

        assert_eq!((error.kind(), error.operation()), (IoErrorKind::Full, operation));
        assert_eq!(rig.read(0, 8192).unwrap(), [1; 8192]);
    }
}

#[test]
fn a_write_that_fails_may_have_reached_some_sectors() {
    let mut reached = [false; 2];
    for seed in 0..20 {
        let rig = Rig::new(SimOptions::new(seed));
        let rule = FaultRule::new(Fault::Error(Errno::Io), &[IoOperation::Write]);
        rig.disk.set_faults(FaultPlan::new().with(rule));

        assert!(rig.write(0, 2, 8192).is_err());

        let bytes = rig.after_crash(&Fate::Kept).unwrap();
        reached[usize::from(bytes[0] == 2)] = true;
        assert_eq!(bytes[8191], 1);
    }
    assert_eq!(reached, [true, true]);
}

#[test]
fn interruptions_and_stray_cancellations_are_repeated() {
    for errno in [Errno::Interrupted, Errno::Again, Errno::Cancelled] {
        if errno == Errno::Cancelled && cfg!(not(unix)) {
            continue; // there is no such error elsewhere
        }
        let rig = Rig::with_fault(Fault::Error(errno), IoOperation::Write);

        rig.write(0, 2, 4096).unwrap();

        assert_eq!(rig.read(0, 4096).unwrap(), [2; 4096]);
        assert_eq!(rig.disk.stats().retries, 1);
    }
}

#[test]
fn interruptions_for_ever_become_an_error() {
    let rig = Rig::new(SimOptions::new(1));
    let rule = FaultRule::new(Fault::Error(Errno::Interrupted), &[IoOperation::Write]);
    rig.disk.set_faults(FaultPlan::new().with(rule.repeat(Repeat::Forever)));

    assert!(rig.write(0, 2, 4096).is_err());
    assert!(rig.disk.stats().retries > 100);
}

#[test]
fn a_length_may_be_lost_while_later_bytes_are_kept() {
    let rig = Rig::new(SimOptions::new(1));
    rig.wait(rig.disk.set_len(&rig.file, 1 << 20)).unwrap();
    rig.write(0, 2, 4096).unwrap();

    let bytes = rig.disk.crash_state().image(&[Fate::Lost, Fate::Kept]).file(super::path());

    assert_eq!(bytes.unwrap(), [vec![2; 4096], vec![1; 4096]].concat());
}

#[test]
fn a_length_may_be_kept_while_the_bytes_are_lost() {
    let rig = Rig::new(SimOptions::new(1));
    rig.write(8192, 2, 4096).unwrap();

    let bytes = rig.after_crash(&Fate::LengthOnly).unwrap();

    assert_eq!(bytes, [vec![1; 8192], vec![0; 4096]].concat());
}

#[test]
fn a_misdirected_write_lands_further_on() {
    let rig = Rig::with_fault(Fault::Misdirected(8), IoOperation::Write);

    rig.write(0, 2, 4096).unwrap();

    assert_eq!(rig.read(0, 8192).unwrap(), [vec![1; 4096], vec![2; 4096]].concat());
}

#[test]
fn a_misdirected_write_lands_in_another_file() {
    let rig = Rig::new(SimOptions::new(1));
    let other = create(&rig.disk, "/data/other".as_ref());
    rig.wait(write(&rig.disk, &other, 0, filled(5, 4096))).unwrap();
    let rule = FaultRule::new(Fault::WrongFile, &[IoOperation::Write]);
    rig.disk.set_faults(FaultPlan::new().with(rule));

    rig.write(0, 2, 4096).unwrap();

    assert_eq!(rig.read(0, 4096).unwrap(), [1; 4096]);
    assert_eq!(rig.disk.visible_image().file("/data/other".as_ref()).unwrap(), [2; 4096]);
}

#[test]
fn a_bit_flips_on_its_way_to_the_disk() {
    let rig = Rig::with_fault(Fault::FlippedBit, IoOperation::Write);

    rig.write(0, 0, 4096).unwrap();

    let bytes = rig.read(0, 4096).unwrap();
    assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
}

#[test]
fn unaligned_direct_transfers_are_refused() {
    let rig = Rig::new(SimOptions::new(1));
    assert!(rig.file.is_direct());

    for (offset, len) in [(512, 4096), (0, 512)] {
        assert_eq!(rig.write(offset, 2, len).unwrap_err().kind(), IoErrorKind::InvalidRequest);
    }

    let options = OpenOptions::read_write().direct(false);
    let buffered = rig.wait(rig.disk.open(super::path(), options)).unwrap();
    rig.wait(write(&rig.disk, &buffered, 10, filled(2, 3))).unwrap();
    assert_eq!(rig.read(0, 4096).unwrap()[9..14], [1, 2, 2, 2, 1]);
}

#[test]
fn rules_strike_by_operation_path_and_count() {
    let rig = Rig::new(SimOptions::new(1));
    let rule = |path: &str| {
        let rule = FaultRule::new(Fault::Error(Errno::Io), &[IoOperation::Sync]);
        FaultPlan::new().with(rule.nth(2).path(path))
    };
    rig.disk.set_faults(rule("another"));
    rig.sync().unwrap();
    rig.sync().unwrap();

    rig.disk.set_faults(rule("file"));
    rig.sync().unwrap();
    assert!(rig.sync().is_err());

    assert_eq!(rig.disk.faults_struck(), 1);
}
