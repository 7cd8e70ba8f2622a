//! What rings cost the process around them.

use std::sync::atomic::{AtomicBool, Ordering};

use nephrite_io::{BackendChoice, DiskOptions, block_on, sync, write};

use crate::child::{is_child, run_alone};
use crate::support::{Bench, assert_balanced, backends, buffer};

/// Threads of the kernel that work for rings of this process.
fn kernel_workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        // A thread may end between the listing and the look.
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("iou-wrk"))
        .count()
}

/// Each counts against the limits of the user or container.
#[test]
fn the_kernels_workers_are_few() {
    if !is_child() {
        return run_alone("mistakes::environment::the_kernels_workers_are_few");
    }
    if !backends().contains(&BackendChoice::Uring) {
        return;
    }
    let bench = Bench::new(DiskOptions::new().backend(BackendChoice::Uring).ring_threads(1));
    let files: Vec<_> = (0..64).map(|index| bench.file_with(&index.to_string(), &[1])).collect();
    let over = AtomicBool::new(false);

    let workers_max = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let counts = std::iter::repeat_with(kernel_workers);
            counts.take_while(|_| !over.load(Ordering::Relaxed)).max()
        });
        for _ in 0..5 {
            let syncs: Vec<_> = files.iter().map(|file| sync(&*bench.disk, file)).collect();
            let writes: Vec<_> =
                files.iter().map(|file| write(&*bench.disk, file, 0, buffer(1 << 20))).collect();
            syncs.into_iter().for_each(|sync| block_on(sync).unwrap());
            writes.into_iter().for_each(|write| drop(block_on(write).unwrap()));
        }
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap().unwrap_or(0)
    });

    // Sixteen for files and four for the rest, per ring.
    assert!(workers_max <= 20, "{workers_max} workers");
    assert_balanced(bench.disk.stats());
}
