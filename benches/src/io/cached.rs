//! One blocking read of a page that the system's cache holds: what a hand-off costs.
//!
//! The device has no part in it. `pread` is one system call; through a ring thread the request
//! crosses to another thread and its completion back; driven, it stays on the caller's thread. The
//! mmap backend reads a sealed file by copy, on a thread of its pool.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use nephrite_io::{
    BackendChoice, DiskOptions, IoBuffer, OpenOptions, block_on, drive, memory::AlignedBuf,
};

use crate::{Outcome, clock::Stopwatch, report::Figure, rows::Random, table::Table};

const BLOCK_BYTES: usize = 4096;
/// Pages of the file that are read: few enough to stay in the system's cache.
const PAGES: usize = 1024;
/// What a caller-driven read may take, in reads with `pread`.
const DRIVEN_MAX: f64 = 1.5;

/// Ours, on a ring of the calling thread.
const DRIVEN: &str = "ours, caller-driven";

/// A name, and a read of the page at an offset.
type Reader<'a> = (&'static str, Box<dyn FnMut(u64) -> Outcome<()> + 'a>);

pub(super) fn run(path: &Path, rounds: usize, reads: u64) -> Outcome<(Vec<Figure>, Table)> {
    let file = File::open(path)?;
    let mut page = vec![0; BLOCK_BYTES];
    let plain = move |offset| Ok(file.read_exact_at(&mut page, offset)?);
    let mut readers: Vec<Reader<'_>> = vec![
        ("pread", Box::new(plain)),
        (DRIVEN, through(BackendChoice::Uring, path, true)?),
        ("ours, ring thread", through(BackendChoice::Uring, path, false)?),
        ("ours, positional pool", through(BackendChoice::Positional, path, false)?),
        ("ours, mmap", through(BackendChoice::Mmap, path, false)?),
    ];
    let named = |(name, _): &Reader<'_>| Figure::new(*name, "us/read");
    let mut figures: Vec<Figure> = readers.iter().map(named).collect();
    for (_, read) in &mut readers {
        time(read, PAGES as u64)?; // now they are cached
    }
    for round in 0..rounds {
        for turn in 0..readers.len() {
            let reader = (round + turn) % readers.len();
            figures[reader].push(time(&mut readers[reader].1, reads)?);
        }
    }
    let columns = ["one cached page, blocking", "us/read", "/ pread", "goal"];
    let mut table = Table::new("Buffered reads of 4 KiB that the system has cached", &columns);
    table.note("A driven read is one plain call where the system has the page in its cache.");
    for (figure, (name, _)) in figures.iter().zip(&readers) {
        let ratio = figure.ratio_to(&figures[0], *name);
        let goal = match *name {
            DRIVEN if ratio.median() <= DRIVEN_MAX => format!("<= {DRIVEN_MAX}: reached"),
            DRIVEN => format!("<= {DRIVEN_MAX}: MISSED"),
            _ => String::new(),
        };
        table.push(vec![(*name).to_owned(), figure.cell(), ratio.cell(), goal]);
    }
    Ok((figures, table))
}

/// Our I/O layer with a sealed file that is not opened for direct I/O.
fn through<'a>(
    backend: BackendChoice,
    path: &Path,
    driven: bool,
) -> Outcome<Box<dyn FnMut(u64) -> Outcome<()> + 'a>> {
    let directory = path.parent().ok_or("a file is in a directory")?;
    let disk = nephrite_io::open_disk(DiskOptions::new().backend(backend), directory)?;
    let file = block_on(disk.open(path, OpenOptions::read_only().sealed().direct(false)))?;
    let mut buffer: Option<IoBuffer> = Some(AlignedBuf::zeroed(BLOCK_BYTES)?.into());
    Ok(Box::new(move |offset| {
        let free = buffer.take().ok_or("an earlier read failed")?;
        buffer = Some(match driven {
            // Submitted while it is driven: else the ring thread gets it.
            true => drive(&*disk, async { nephrite_io::read(&*disk, &file, offset, free).await })?,
            false => block_on(nephrite_io::read(&*disk, &file, offset, free))?,
        });
        Ok(())
    }))
}

/// Microseconds per read.
fn time(read: &mut dyn FnMut(u64) -> Outcome<()>, reads: u64) -> Outcome<f64> {
    let mut random = Random::new(9);
    let watch = Stopwatch::start();
    for _ in 0..reads {
        read((random.below(PAGES) * BLOCK_BYTES) as u64)?;
    }
    Ok(watch.seconds() * 1e6 / reads as f64)
}
