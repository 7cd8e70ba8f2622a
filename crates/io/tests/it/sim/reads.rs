//! Faults of the read path.

use nephrite_io::sim::{Errno, Fault, FaultPlan, FaultRule, SimOptions};
use nephrite_io::{Disk, IoErrorKind, IoOperation, read_many};

use super::{Rig, filled};

/// Also those that end before the last one are nobody's.
#[test]
fn every_read_of_a_dropped_batch_counts_as_orphaned() {
    let rig = Rig::new(SimOptions::new(1));
    let before = rig.disk.stats();
    let ranges = (0..50).map(|_| (0, filled(0, 4096))).collect();

    drop(read_many(&rig.disk, &rig.file, ranges));
    rig.disk.run_until_idle();

    let after = rig.disk.stats();
    assert_eq!((after.orphaned - before.orphaned, after.delivered), (50, before.delivered));
}

#[test]
fn a_short_read_is_continued() {
    let rig = Rig::with_fault(Fault::Short, IoOperation::Read);

    assert_eq!(rig.read(0, 8192).unwrap(), [1; 8192]);
    assert_eq!(rig.disk.stats().short_counts, 1);
}

#[test]
fn a_read_past_the_end_says_so() {
    let rig = Rig::new(SimOptions::new(1));

    let error = rig.read(4096, 8192).unwrap_err();

    assert_eq!(error.kind(), IoErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("ends after 4096 of these bytes"), "{error}");
}

#[test]
fn one_bad_sector_fails_each_read_over_it_until_it_is_written() {
    let rig = Rig::with_fault(Fault::LatentSector, IoOperation::Read);

    assert!(rig.read(0, 4096).is_err());
    assert!(rig.read(0, 8192).is_err());
    assert_eq!(rig.read(4096, 4096).unwrap(), [1; 4096]);

    rig.write(0, 2, 4096).unwrap();
    assert_eq!(rig.read(0, 4096).unwrap(), [2; 4096]);
}

#[test]
fn a_bit_flips_on_its_way_to_memory_once() {
    let rig = Rig::with_fault(Fault::FlippedBit, IoOperation::Read);

    let wrong = rig.read(0, 4096).unwrap();

    assert_eq!(wrong.iter().filter(|byte| **byte != 1).count(), 1);
    assert_eq!(rig.read(0, 4096).unwrap(), [1; 4096]);
}

#[test]
fn a_transient_failure_is_followed_by_success() {
    let rig = Rig::with_fault(Fault::Error(Errno::Io), IoOperation::Read);

    assert!(rig.read(0, 4096).is_err());

    assert_eq!(rig.read(0, 4096).unwrap(), [1; 4096]);
    assert!(rig.file.poisoned().is_none());
}

#[test]
fn a_slow_read_takes_its_time_and_succeeds() {
    let delay = std::time::Duration::from_secs(3);
    let rig = Rig::new(SimOptions::new(1));
    let rule = FaultRule::new(Fault::Slow(delay), &[IoOperation::Read]);
    rig.disk.set_faults(FaultPlan::new().with(rule));
    let before = rig.disk.clock().now();

    assert_eq!(rig.read(0, 4096).unwrap(), [1; 4096]);

    assert!(before + delay <= rig.disk.clock().now());
}
