//! What of a caller's ring begins before the caller waits for it.

use nephrite_io::{DiskOptions, drive, read, read_many};

use super::{blocks, ring};
use crate::support::{assert_balanced, buffer};

#[test]
fn a_large_read_begins_before_its_caller_waits() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let enters = || bench.disk.stats().ring_enters;
    let begun = |bytes: usize| {
        drive(&*bench.disk, async {
            let before = enters();
            let read = read(&*bench.disk, &file, 0, buffer(bytes));
            let begun = enters() - before;
            assert_eq!(read.await.unwrap().len(), bytes);
            begun
        })
    };

    assert_eq!((begun(64 << 10), begun(256 << 10)), (0, u64::from(file.is_direct())));
}

#[test]
fn many_reads_begin_before_their_caller_waits() {
    let Some(bench) = ring(DiskOptions::new()) else { return };
    let file = blocks(&bench);
    let enters = || bench.disk.stats().ring_enters;

    let (before, begun, read) = drive(&*bench.disk, async {
        let before = enters();
        let wanted = (0..16).map(|block| (block * 4096, buffer(4096))).collect();
        let reads = read_many(&*bench.disk, &file, wanted);
        (before, enters(), reads.await.unwrap())
    });

    assert!(before < begun);
    assert!(read.iter().zip(0u8..).all(|(bytes, block)| bytes.as_slice() == [block; 4096]));
    assert_balanced(bench.disk.stats());
}
