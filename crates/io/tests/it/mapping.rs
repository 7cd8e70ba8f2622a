//! The mmap backend: what is mapped, what is not, and files that change although they should not.

use std::sync::Arc;

use nephrite_io::{
    BackendChoice, DiskOptions, FileHandle, IoError, IoErrorKind, OpenOptions, block_on, read,
    read_many, write,
};

use crate::support::{Bench, assert_balanced, buffer, buffer_of};

fn mapping_bench() -> Bench {
    Bench::new(DiskOptions::new().backend(BackendChoice::Mmap))
}

/// A sealed file of these bytes.
fn sealed_file(bench: &Bench, bytes: &[u8]) -> FileHandle {
    std::fs::write(bench.path("file"), bytes).unwrap();
    bench.sealed("file")
}

fn read_at(bench: &Bench, file: &FileHandle, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
    let bytes = block_on(read(&*bench.disk, file, offset, buffer(len)))?;
    Ok(bytes.as_slice().to_vec())
}

#[test]
fn sealed_files_are_read_from_mappings_and_others_are_not() {
    let bench = mapping_bench();
    let sealed = sealed_file(&bench, &[5; 10_000]);
    let unsealed =
        block_on(bench.disk.open(&bench.path("file"), OpenOptions::read_only())).unwrap();
    let writing = OpenOptions::read_write().sealed();
    let writable = block_on(bench.disk.open(&bench.path("file"), writing)).unwrap();

    for file in [&sealed, &unsealed, &writable] {
        assert_eq!(read_at(&bench, file, 1, 9999).unwrap(), [5; 9999]);
    }

    let stats = bench.disk.stats();
    assert_eq!((stats.reads, stats.maps, stats.map_reads), (3 + 1, 1, 1), "{stats:?}");
    assert_eq!((stats.map_fallbacks, stats.maps_refused), (0, 0), "{stats:?}");
    let report = bench.disk.report();
    assert_eq!((report.chosen, report.direct), (BackendChoice::Mmap, false), "{report}");
    assert_eq!(report.mapping.unwrap().files, 1);
}

#[cfg(not(target_os = "linux"))]
#[test]
fn auto_takes_mappings_where_there_are_no_rings() {
    let bench = Bench::new(DiskOptions::new());

    let report = bench.disk.report();
    assert_eq!((report.requested, report.chosen), (BackendChoice::Auto, BackendChoice::Mmap));
    assert_eq!(read_at(&bench, &sealed_file(&bench, &[5; 10_000]), 1, 9999).unwrap(), [5; 9999]);
    assert_eq!(bench.disk.stats().map_reads, 1);
}

#[test]
fn a_mapping_goes_with_the_last_handle_of_its_file() {
    let bench = mapping_bench();
    let first = sealed_file(&bench, &[5; 10_000]);
    let (clone, second) = (first.clone(), bench.sealed("file"));
    assert_eq!(bench.disk.stats().maps_open, 2);

    drop(first);
    assert_eq!(bench.disk.stats().maps_open, 2);
    drop(clone);
    assert_eq!(bench.disk.stats().maps_open, 1);
    drop(second);

    assert_eq!((bench.disk.stats().maps_open, bench.disk.stats().maps), (0, 2));
}

#[test]
fn an_empty_sealed_file_ends_at_once() {
    let bench = mapping_bench();
    let file = sealed_file(&bench, &[]);

    let error = read_at(&bench, &file, 0, 1).unwrap_err();

    assert_eq!(error.kind(), IoErrorKind::UnexpectedEof);
    assert_eq!((bench.disk.stats().maps, bench.disk.stats().maps_refused), (0, 0));
}

#[test]
fn a_read_beyond_the_end_of_a_mapped_file_says_how_much_there_was() {
    let bench = mapping_bench();
    let file = sealed_file(&bench, &[5; 5000]);

    let error = read_at(&bench, &file, 4096, 4096).unwrap_err();

    assert_eq!(error.kind(), IoErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("the file ends after 904 of these bytes"), "{error}");
    assert_eq!(bench.disk.stats().map_fallbacks, 2, "one for each piece that was asked for");
}

/// Windows allows nobody to cut a mapped file.
#[cfg(unix)]
#[test]
fn a_mapped_file_that_somebody_cuts_is_an_error_and_no_signal() {
    let bench = mapping_bench();
    let file = sealed_file(&bench, &[5; 100_000]);
    assert!(read_at(&bench, &file, 0, 100_000).is_ok());

    let other = std::fs::File::options().write(true).open(bench.path("file")).unwrap();
    other.set_len(50_000).unwrap();

    assert_eq!(read_at(&bench, &file, 0, 50_000).unwrap(), [5; 50_000]);
    for (offset, len) in [(0, 100_000), (49_999, 2), (49_152, 4096), (90_000, 10_000)] {
        let error = read_at(&bench, &file, offset, len).unwrap_err();
        assert_eq!(error.kind(), IoErrorKind::UnexpectedEof, "{len} at {offset}: {error}");
    }
}

#[test]
fn a_sealed_file_can_be_removed_and_read_on() {
    let bench = mapping_bench();
    let file = sealed_file(&bench, &[5; 10_000]);
    assert!(read_at(&bench, &file, 0, 10_000).is_ok());

    block_on(bench.disk.remove_file(&bench.path("file"))).unwrap();

    assert_eq!(bench.disk.stats().maps_open, 0);
    assert_eq!(read_at(&bench, &file, 0, 10_000).unwrap(), [5; 10_000]);
    drop(file);
    block_on(bench.disk.shutdown()).unwrap();
    assert!(!bench.path("file").exists());
}

#[test]
fn a_sealed_file_can_be_cut_through_the_disk() {
    let bench = mapping_bench();
    let sealed = sealed_file(&bench, &[5; 10_000]);
    let writable =
        block_on(bench.disk.open(&bench.path("file"), OpenOptions::read_write())).unwrap();

    block_on(bench.disk.set_len(&writable, 5000)).unwrap();
    assert_eq!(read_at(&bench, &sealed, 0, 5000).unwrap(), [5; 5000]);
    assert_eq!(read_at(&bench, &sealed, 0, 5001).unwrap_err().kind(), IoErrorKind::UnexpectedEof);
}

/// Wine replaces no file that is open, mapped or not.
#[cfg(unix)]
#[test]
fn a_sealed_file_can_be_replaced_and_read_on() {
    let bench = mapping_bench();
    let before = sealed_file(&bench, &[5; 5000]);
    std::fs::write(bench.path("new"), [6; 100]).unwrap();

    block_on(bench.disk.rename(&bench.path("new"), &bench.path("file"))).unwrap();

    assert_eq!(read_at(&bench, &bench.sealed("file"), 0, 100).unwrap(), [6; 100]);
    assert_eq!(read_at(&bench, &before, 0, 5000).unwrap(), [5; 5000]);
}

#[test]
fn a_mapping_shows_what_the_disk_wrote_before() {
    let bench = mapping_bench();
    let file = bench.create("file");
    for index in 0..16u8 {
        let offset = u64::from(index) * 4096;
        block_on(write(&*bench.disk, &file, offset, buffer_of(&[index; 4096]))).unwrap();
        let sealed = bench.sealed("file");
        assert_eq!(read_at(&bench, &sealed, offset, 4096).unwrap(), [index; 4096]);
    }
    assert_eq!(bench.disk.stats().map_reads, 16);
}

#[test]
fn mapped_reads_and_removals_from_many_threads_end_well() {
    let bench = Arc::new(mapping_bench());
    for round in 0..20u8 {
        // Windows keeps a removed name until the last handle is closed.
        let name = round.to_string();
        std::fs::write(bench.path(&name), [round; 65_536]).unwrap();
        let file = bench.sealed(&name);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let ranges = (0..64).map(|index| (index * 1000, buffer(1000))).collect();
                    let buffers = block_on(read_many(&*bench.disk, &file, ranges)).unwrap();
                    assert!(buffers.iter().all(|bytes| bytes.as_slice() == [round; 1000]));
                });
            }
            block_on(bench.disk.remove_file(&bench.path(&name))).unwrap();
        });
        drop(file);
    }
    assert_eq!(bench.disk.stats().maps_open, 0);
    assert_balanced(bench.disk.stats());
}

/// A process whose address space is used up: the file is read all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_mapped_is_read_positionally_and_counted() {
    use crate::child::{is_child, run_alone};

    const FILE_BYTES: u64 = 1 << 40;

    if !is_child() {
        return run_alone("mapping::a_file_that_cannot_be_mapped_is_read_positionally_and_counted");
    }
    let bench = mapping_bench();
    let file = std::fs::File::create(bench.path("file")).unwrap();
    file.set_len(FILE_BYTES).unwrap();
    let limit = libc::rlimit { rlim_cur: 1 << 36, rlim_max: 1 << 36 };
    // SAFETY: the limit lives until the call returns.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);

    let file = bench.sealed("file");

    assert_eq!(read_at(&bench, &file, FILE_BYTES - 4096, 4096).unwrap(), [0; 4096]);
    let (stats, report) = (bench.disk.stats(), bench.disk.report());
    assert_eq!((stats.maps, stats.maps_refused, stats.map_reads), (0, 1, 0), "{stats:?}");
    assert!(report.to_string().contains("0 files, 1 refused (first: "), "{report}");
}
