//! Names, lengths, locks, and requests that are refused.

use std::path::Path;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use nephrite_io::memory::{AlignedBuf, Chunk};
use nephrite_io::{
    IoBuffer, IoErrorKind, IoOperation, OpenOptions, Operation, Request, at_once, block_on,
    open_disk, read, read_many, sync, write,
};

use crate::support::{Bench, assert_balanced, benches, buffer, buffer_of};

#[test]
fn files_are_created_listed_renamed_and_removed() {
    for bench in benches() {
        let disk = &bench.disk;
        block_on(disk.create_dir(&bench.path("a/b"))).unwrap();
        block_on(disk.create_dir(&bench.path("a/b"))).unwrap();
        let file = bench.create("a/one");
        block_on(write(&**disk, &file, 0, buffer(8192))).unwrap();
        block_on(sync(&**disk, &file)).unwrap();
        block_on(disk.rename(&bench.path("a/one"), &bench.path("a/two"))).unwrap();
        block_on(disk.sync_dir(&bench.path("a"))).unwrap();

        let mut entries = block_on(disk.list_dir(&bench.path("a"))).unwrap();
        entries.sort_by(|left, right| left.name.cmp(&right.name));

        let seen: Vec<_> = entries.iter().map(|entry| (&*entry.name, entry.is_directory)).collect();
        assert_eq!(seen, [("b", true), ("two", false)]);
        assert_eq!(entries[1].bytes, 8192);
        drop(file);
        block_on(disk.remove_file(&bench.path("a/two"))).unwrap();
        let left = block_on(disk.list_dir(&bench.path("a"))).unwrap();
        let names: Vec<_> = left.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["b"], "{}", bench.name());
    }
}

/// A thread that had told of the last sync of a file was kept from running before it let go of the
/// file. Under Wine, where a name stays until the last handle is closed, the file was then still
/// listed after its removal: rarely, and only on a busy machine.
#[test]
fn an_operation_has_let_go_of_its_file_when_it_tells() {
    for bench in benches() {
        let mut file = bench.create("file");
        for operation in [
            Operation::Write { offset: 0, buffer: buffer(8192) },
            Operation::Read { offset: 4096, buffer: buffer(4096) },
            Operation::Sync,
            Operation::WriteSynced { offset: 0, buffer: buffer(4096) },
            Operation::Read { offset: 1 << 40, buffer: buffer(4096) }, // past the end
            Operation::Read { offset: u64::MAX, buffer: buffer(4096) }, // refused
        ] {
            let what = format!("{}: {operation:?}", bench.name());
            let (sender, receiver) = mpsc::channel();
            let of_request = file.clone();
            let on_complete = Box::new(move |_| sender.send((file.is_shared(), file)).unwrap());
            bench.disk.submit_one(Request { file: of_request, operation, on_complete });

            let (shared, back) = receiver.recv().unwrap();

            assert!(!shared, "{what}");
            file = back;
        }
    }
}

#[test]
fn what_is_started_at_once_is_done_when_its_future_is_there() {
    for bench in benches() {
        bench.create("present");
        let opened = at_once(|| {
            let mut opening = bench.disk.open(&bench.path("present"), OpenOptions::read_only());
            opening.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        let name = bench.name();
        assert!(matches!(opened, Poll::Ready(Ok(_))), "{name}: {opened:?}");

        let missing = at_once(|| block_on(bench.disk.list_dir(&bench.path("missing"))));
        assert_eq!(missing.unwrap_err().kind(), IoErrorKind::NotFound, "{name}");
        block_on(bench.disk.shutdown()).unwrap();
        let closed = at_once(|| block_on(bench.disk.list_dir(bench.directory())));
        assert_eq!(closed.unwrap_err().kind(), IoErrorKind::Closed, "{name}");
    }
}

#[test]
fn failures_of_names_tell_kind_and_path() {
    for bench in benches() {
        let (disk, missing) = (&bench.disk, bench.path("missing"));
        bench.create("present");

        let open = block_on(disk.open(&missing, OpenOptions::read_only())).unwrap_err();
        let present = bench.path("present");
        let create = block_on(disk.open(&present, OpenOptions::read_write().create_new()));
        let list = block_on(disk.list_dir(&missing)).unwrap_err();

        assert_eq!((open.kind(), open.path()), (IoErrorKind::NotFound, &*missing));
        assert_eq!(open.operation(), IoOperation::Open);
        assert_eq!(create.unwrap_err().kind(), IoErrorKind::AlreadyExists);
        assert_eq!(list.kind(), IoErrorKind::NotFound);
        assert!(block_on(disk.remove_file(&missing)).is_err());
        assert!(block_on(disk.rename(&missing, &present)).is_err());
    }
}

#[test]
fn a_second_lock_is_refused_until_the_first_is_dropped() {
    for bench in benches() {
        let path = bench.path("LOCK");
        let lock = block_on(bench.disk.lock(&path)).unwrap();

        let refused = block_on(bench.disk.lock(&path)).unwrap_err();

        assert_eq!(refused.kind(), IoErrorKind::Locked);
        assert!(refused.to_string().contains("close the other user"), "{refused}");
        assert_eq!(lock.path(), path);
        drop(lock);
        block_on(bench.disk.lock(&path)).unwrap();
    }
}

/// While another thread starts a child, the child has copies of all descriptors for a moment; a
/// lock that ends with its last copy outlived its owner by that moment.
#[cfg(target_os = "linux")]
#[test]
fn a_lock_ends_although_a_copy_of_its_descriptor_is_left() {
    for bench in benches() {
        let path = bench.path("LOCK");
        let lock = block_on(bench.disk.lock(&path)).unwrap();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut links = descriptors.filter_map(|entry| Some(entry.ok()?.path()));
        let link = links.find(|link| std::fs::read_link(link).is_ok_and(|target| target == path));
        let Some(link) = link else { continue }; // simulated
        let descriptor = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
        // SAFETY: the call takes a number and makes another one.
        let copy = unsafe { libc::dup(descriptor) };

        drop(lock);

        block_on(bench.disk.lock(&path)).unwrap();
        // SAFETY: nobody else knows of the copy.
        assert_eq!(unsafe { libc::close(copy) }, 0);
    }
}

#[test]
fn a_read_past_the_end_is_an_error_with_its_place() {
    for bench in benches() {
        let file = bench.file_with("file", &[7; 6000]);

        let beyond = block_on(read(&*bench.disk, &file, 4096, buffer(4096))).unwrap_err();
        let far = block_on(read(&*bench.disk, &file, 1 << 40, buffer(4096))).unwrap_err();

        assert_eq!(beyond.kind(), IoErrorKind::UnexpectedEof);
        assert_eq!((beyond.offset(), beyond.len()), (Some(4096), Some(4096)));
        assert!(beyond.to_string().contains("ends after 1904 of these bytes"), "{beyond}");
        assert_eq!(far.kind(), IoErrorKind::UnexpectedEof);
        assert_eq!(file.poisoned().map(|error| error.to_string()), None);
    }
}

#[test]
fn unaligned_requests_on_a_direct_file_are_refused_with_their_range() {
    for bench in benches() {
        let file = bench.file_with("file", &[7; 16_384]);
        if !file.is_direct() {
            continue;
        }
        let offset = block_on(read(&*bench.disk, &file, 1, buffer(4096))).unwrap_err();
        let len = block_on(write(&*bench.disk, &file, 0, buffer(100))).unwrap_err();

        assert_eq!(offset.kind(), IoErrorKind::InvalidRequest);
        assert!(offset.to_string().contains("4096 bytes at offset 1 "), "{offset}");
        assert!(len.to_string().contains("100 bytes at offset 0 "), "{len}");
        assert!(file.poisoned().is_none());
        assert!(file.alignment().is_power_of_two() && 1 < file.alignment());
    }
}

#[test]
fn files_opened_without_direct_io_take_any_range() {
    for bench in benches() {
        let options = OpenOptions::read_write().create().direct(false);
        let file = block_on(bench.disk.open(&bench.path("file"), options)).unwrap();

        block_on(write(&*bench.disk, &file, 3, buffer_of(b"hello"))).unwrap();
        let bytes = block_on(read(&*bench.disk, &file, 4, buffer(3))).unwrap();

        assert_eq!((bytes.as_slice(), file.alignment()), (&b"ell"[..], 1));
    }
}

#[test]
fn writes_through_a_read_only_handle_are_refused() {
    for bench in benches() {
        bench.file_with("file", &[0; 4096]);
        let path = bench.path("file");
        let file = block_on(bench.disk.open(&path, OpenOptions::read_only())).unwrap();

        let write = block_on(write(&*bench.disk, &file, 0, buffer(4096))).unwrap_err();
        let length = block_on(bench.disk.set_len(&file, 0)).unwrap_err();

        assert_eq!(write.kind(), IoErrorKind::InvalidRequest);
        assert_eq!(length.kind(), IoErrorKind::InvalidRequest);
    }
}

#[test]
fn committed_bytes_of_a_chunk_are_written_in_place() {
    for bench in benches() {
        let (mut appender, chunk) = Chunk::new(16_384).unwrap();
        appender.append_with(8192, |free| free.fill(5));
        let file = bench.create("file");
        let part = |start, len| IoBuffer::Chunk { chunk: chunk.clone(), start, len };

        block_on(write(&*bench.disk, &file, 0, part(4096, 4096))).unwrap();
        let beyond = block_on(write(&*bench.disk, &file, 0, part(4096, 8192))).unwrap_err();
        let read_into = block_on(read(&*bench.disk, &file, 0, part(0, 4096))).unwrap_err();

        assert_eq!(std::fs::read(bench.path("file")).unwrap(), [5; 4096]);
        assert_eq!(beyond.kind(), IoErrorKind::InvalidRequest);
        assert_eq!(read_into.kind(), IoErrorKind::InvalidRequest);
    }
}

#[test]
fn nothing_to_transfer_is_a_success() {
    for bench in benches() {
        let file = bench.create("file");

        let empty = IoBuffer::Owned(AlignedBuf::zeroed(0).unwrap());
        assert!(block_on(read(&*bench.disk, &file, 0, empty)).unwrap().is_empty());
        assert!(block_on(read_many(&*bench.disk, &file, Vec::new())).unwrap().is_empty());

        bench.disk.submit(Vec::new());
        assert_balanced(bench.disk.stats());
    }
}

#[test]
fn the_report_says_what_runs_and_why() {
    for bench in benches() {
        let report = bench.disk.report();

        assert_eq!(report.chosen, report.requested);
        assert!(!report.reason.is_empty());
        assert_eq!(report.direct, 1 < report.alignment);
        let text = report.to_string();
        assert!(text.contains(&bench.name()) && text.contains(&report.reason), "{text}");
        assert_eq!(report.degraded, None);
    }
}

#[test]
fn the_probe_leaves_nothing_behind() {
    for bench in benches() {
        assert_eq!(block_on(bench.disk.list_dir(bench.directory())).unwrap(), []);
    }
}

#[test]
fn a_missing_directory_is_an_error_with_its_path() {
    for bench in benches() {
        let options = nephrite_io::DiskOptions::new().backend(bench.disk.report().chosen);

        let error = open_disk(options, Path::new("/nephrite/does/not/exist")).unwrap_err();

        assert!(error.to_string().contains("/nephrite/does/not/exist"), "{error}");
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let bench = Bench::new(nephrite_io::DiskOptions::new());
    let defaults = nephrite_io::DiskOptions::new();
    for options in [
        defaults.ring_entries(100),
        defaults.ring_entries(16),
        defaults.ring_threads(0),
        defaults.positional_threads(1),
    ] {
        let error = open_disk(options, bench.directory()).unwrap_err();

        assert_eq!(error.kind(), IoErrorKind::InvalidRequest, "{error}");
    }
}

#[test]
fn a_failed_read_poisons_nothing() {
    for bench in benches() {
        let file = bench.file_with("file", &[1; 4096]);

        block_on(read(&*bench.disk, &file, 1 << 20, buffer(4096))).unwrap_err();

        block_on(write(&*bench.disk, &file, 0, buffer(4096))).unwrap();
        block_on(sync(&*bench.disk, &file)).unwrap();
    }
}

#[test]
fn futures_run_on_an_executor_that_knows_nothing_of_us() {
    for bench in benches() {
        let file = bench.create("file");
        let disk = &*bench.disk;

        let bytes = pollster::block_on(async {
            write(disk, &file, 4096, buffer_of(&[6; 4096])).await?;
            let (first, second) = (sync(disk, &file), read(disk, &file, 0, buffer(8192)));
            // Awaited in the other order than submitted.
            let bytes = second.await?;
            first.await?;
            Ok::<_, nephrite_io::IoError>(bytes)
        });

        assert_eq!(bytes.unwrap().as_slice()[4095..4097], [0, 6]);
    }
}
