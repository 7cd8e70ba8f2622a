//! The device itself: what a bare ring and plain direct writes give, in the same rounds.
//!
//! No ids, no index, no checksums: a limit to compare with, not something that people could use.
//! Reads are of 4 KiB, the least that a device moves, or as large as the pages asked for; its scan
//! and its load move 1 MiB at a time.

use super::{
    cycle::{COLD, COLD_CPU, COLD_P99, Cycle, LOAD, MANY, MANY_IDS, SCAN, Samples, UPDATES},
    rival::Kind,
};
use crate::{
    Outcome,
    device::{self, LogBlocks},
    io::{self, Access, Job, Measured},
    place::Place,
};

pub(super) const KIND: Kind = Kind { name: "the device", persists: true, open: None };

/// Bytes of a random read, if nothing else is asked for.
const BLOCK_BYTES: usize = 4096;
/// Size and depth of sequential reads.
const SEQUENTIAL: (usize, usize) = (1 << 20, 8);
/// Seconds of a measurement.
const SECONDS: f64 = 1.0;

/// Whether a bare ring can read past the system's cache here.
pub(super) fn possible(place: &Place) -> bool {
    place.disk.report().direct && io_uring::IoUring::new(8).is_ok()
}

pub(super) fn run(cycle: &Cycle<'_>) -> Outcome<Samples> {
    let (place, shape) = (cycle.place, &cycle.shape);
    place.remove("raw")?;
    let path = place.join("raw");
    let bytes = shape.bytes().next_multiple_of(SEQUENTIAL.0 as u64);
    let seconds = device::sequential_write(&place.disk, &path, bytes)?;
    let read = |access: Access, block_bytes: usize, depth: usize| -> Outcome<Measured> {
        io::bare_ring(&Job {
            path: path.clone(),
            file_bytes: bytes,
            block_bytes,
            depth,
            access,
            seconds: SECONDS,
            seed: cycle.seed,
        })
    };
    let block_bytes = shape.page_bytes.map_or(BLOCK_BYTES, |bytes| bytes as usize);
    let cold = read(Access::RandomRead, block_bytes, cycle.depth)?;
    let many = read(Access::RandomRead, block_bytes, MANY_IDS)?;
    let scan = read(Access::SequentialRead, SEQUENTIAL.0, SEQUENTIAL.1)?;
    let vectors_per_block = SEQUENTIAL.0 as f64 / shape.vector_bytes() as f64;
    place.remove("raw")?;
    let appends = device::synced_appends(&place.disk, &path, LogBlocks::Growing, SECONDS)?;
    place.remove("raw")?;
    Ok(vec![
        (LOAD, shape.vectors as f64 / seconds),
        (SCAN, scan.rate * vectors_per_block),
        (COLD, cold.rate),
        (COLD_P99, cold.p99_microseconds),
        (COLD_CPU, cold.cpu_microseconds),
        (MANY, many.rate),
        (UPDATES[0].0, appends),
    ])
}
