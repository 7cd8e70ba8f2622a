//! `rivals`: Nephrite beside what people use instead, in one run.
//!
//! Every round takes every rival through all workloads, one rival after the other; who begins moves
//! on by one each round. All store the same vectors under the same ids with the same durability.
//! Cold reads happen in a control group whose limit, an eighth of the data by default, counts the
//! system's cache as well; the files are dropped from that cache first. Readers and writers of
//! blocking rivals are threads, Nephrite's are tasks on two threads.
//!
//! LMDB, redb and fjall are built with the feature `rivals`, RocksDB with `rocksdb`. The device
//! itself takes part in every round as well, under a bare ring. Not here: foyer, which is a cache
//! and may forget what it was given; tokio-uring, which is in `targets io`.

#[cfg(feature = "rivals")]
mod byte_key;
mod cycle;
#[cfg(feature = "rivals")]
mod fjall;
mod flat;
mod goals;
mod limit;
#[cfg(feature = "rivals")]
mod lmdb;
mod memory;
mod nephrite;
mod raw;
#[cfg(feature = "rivals")]
mod redb;
mod rival;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod tokio_fs;

use std::{io::Write, process::ExitCode};

use clap::Parser;

use self::{
    cycle::{Cycle, WORKLOADS},
    rival::{Kind, Shape},
};
use crate::{
    Outcome, machine,
    place::{Place, PlaceArguments},
    report::{Figure, Report},
    table::Table,
    zipf::Zipf,
};

/// Measure Nephrite beside other stores
#[derive(Debug, Parser)]
#[command(name = "rivals", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Vectors to store
    #[arg(long, default_value_t = 1_000_000)]
    vectors: u64,
    /// Values per vector
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// Bytes of Nephrite's pages, and so of the device's random reads; Nephrite's own choice if
    /// not given, and 4096
    #[arg(long)]
    page_bytes: Option<u32>,
    /// Memory when cold, as a share of the data: one in so many
    #[arg(long, default_value_t = 8)]
    memory_share: u64,
    /// Reads per measurement
    #[arg(long, default_value_t = 200_000)]
    reads: u64,
    /// Durable updates of each writer
    #[arg(long, default_value_t = 500)]
    updates: u64,
    /// Readers at the same time when cold
    #[arg(long, default_value_t = 64)]
    depth: usize,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only rivals whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Memory below which a cold run would only measure the programs themselves.
const MEMORY_MIN: u64 = 64 << 20;

/// Runs all workloads and prints what they took.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printed = run(&arguments).and_then(|report| {
        let mut output = std::io::stdout().lock();
        match arguments.json {
            true => writeln!(output, "{}", report.to_json())?,
            false => writeln!(output, "{report}")?,
        }
        Ok(())
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rivals: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<Report> {
    let place = Place::prepare(&arguments.place)?;
    let mut shape = Shape {
        vectors: arguments.vectors,
        dimension: arguments.dim.max(2),
        page_bytes: arguments.page_bytes,
        memory_bytes: 0,
    };
    shape.memory_bytes = (shape.bytes() / arguments.memory_share.max(1)).max(MEMORY_MIN);
    let zipf = Zipf::new(shape.vectors);
    let mut rivals: Vec<(Kind, Vec<Figure>)> =
        kinds(&place, &arguments.only).into_iter().map(|kind| (kind, figures(&kind))).collect();
    let count = rivals.len();
    for round in 0..arguments.rounds {
        for turn in 0..count {
            let (kind, figures) = &mut rivals[(round + turn) % count];
            let cycle = Cycle {
                place: &place,
                kind: *kind,
                shape,
                zipf: &zipf,
                reads: arguments.reads,
                updates: arguments.updates,
                depth: arguments.depth,
                seed: round as u64,
            };
            let samples = match kind.open {
                Some(open) => cycle.run(open),
                None => raw::run(&cycle),
            };
            let samples = samples.map_err(|error| format!("{}: {error}", kind.name))?;
            for (workload, sample) in samples {
                figures[workload].push(sample);
            }
        }
    }
    let mut machine = machine::describe(&place);
    machine.push(("date", date().unwrap_or_else(|| "unknown".to_owned())));
    let tables = tables(arguments, &shape, &rivals);
    let figures = rivals.into_iter().flat_map(|(_, figures)| figures).collect();
    Ok(Report { machine, figures, tables })
}

fn kinds(place: &Place, only: &[String]) -> Vec<Kind> {
    let mut kinds =
        vec![raw::KIND, nephrite::KIND, memory::KIND, flat::MAPPED, flat::READ, tokio_fs::KIND];
    #[cfg(feature = "rivals")]
    kinds.extend([lmdb::KIND, redb::KIND, fjall::KIND]);
    #[cfg(feature = "rocksdb")]
    kinds.push(rocksdb::KIND);
    if !raw::possible(place) {
        eprintln!("rivals: no direct I/O by io_uring here: the device itself is not measured");
        kinds.retain(|kind| kind.open.is_some());
    }
    let named = |kind: &Kind| only.iter().any(|part| kind.name.contains(part.as_str()));
    kinds.retain(|kind| only.is_empty() || named(kind));
    if !cfg!(feature = "rivals") {
        eprintln!("rivals: built without LMDB, redb and fjall; `--features rivals` adds them");
    }
    if !cfg!(feature = "rocksdb") {
        eprintln!("rivals: built without RocksDB; `--features rocksdb` adds it (and libclang)");
    }
    kinds
}

fn figures(kind: &Kind) -> Vec<Figure> {
    WORKLOADS
        .iter()
        .map(|workload| Figure::new(format!("{}: {}", kind.name, workload.0), workload.1))
        .collect()
}

/// Tables narrow enough to read; a cell is a median and its range.
fn tables(arguments: &Arguments, shape: &Shape, rivals: &[(Kind, Vec<Figure>)]) -> Vec<Table> {
    const GROUPS: [(&str, std::ops::Range<usize>); 3] =
        [("load, space, open, scan", 0..6), ("reads", 6..13), ("durable updates", 13..16)];
    let table = |(title, workloads): (&str, std::ops::Range<usize>)| {
        let title = format!(
            "{title}: {} vectors of {} values, {} MiB of memory when cold, {} rounds",
            shape.vectors,
            shape.dimension,
            shape.memory_bytes >> 20,
            arguments.rounds,
        );
        let names: Vec<String> = WORKLOADS[workloads.clone()]
            .iter()
            .map(|(workload, unit)| format!("{workload}, {unit}"))
            .collect();
        let columns: Vec<&str> =
            ["rival"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut table = Table::new(title, &columns);
        for (kind, figures) in rivals {
            let cells = figures[workloads.clone()].iter().map(Figure::cell);
            table.push([kind.name.to_owned()].into_iter().chain(cells).collect());
        }
        table
    };
    GROUPS.map(table).into_iter().chain(goals::table(shape, rivals)).collect()
}

/// Today, as the system says it.
fn date() -> Option<String> {
    let output = std::process::Command::new("date").arg("+%F").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
