//! The report of `--html`: one file with a table and plots, which opens without a network.
//!
//! No script, no font, no image from elsewhere. It is well-formed XML as well, so that any program
//! can read it. Checked by: `tests/it/bench.rs`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::outcome::Outcome;
use super::recorder::Latencies;
use super::svg::{Axis, Series, escape, plot};
use crate::failure::Failure;
use crate::figures::{bytes, count, latency, rate};

/// Points of a line of throughput: more are drawn over each other.
const POINTS_MAX: usize = 200;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --faint: #ddd; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --faint: #444; --paper: #181818; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1200px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; }
th, td { border-bottom: 1px solid var(--faint); padding: .3em .7em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; max-width: 860px; }
.grid { stroke: var(--faint); }
.label { fill: var(--ink); font-size: 12px; }
";

/// A report that is being written.
pub(super) struct Report {
    path: PathBuf,
    file: File,
}

/// Makes the file, empty.
pub(super) fn create(path: &Path) -> Result<Report, Failure> {
    let path = path.to_owned();
    let file = File::create(&path).map_err(|error| trouble(&path, &error))?;
    Ok(Report { path, file })
}

/// Writes the whole report.
pub(super) fn write(mut report: Report, outcomes: &[Outcome]) -> Result<(), Failure> {
    let text = page(outcomes);
    report.file.write_all(text.as_bytes()).map_err(|error| trouble(&report.path, &error))
}

fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    Failure::error(format_args!(
        "--html: writing {}: {error}; name a file that can be written",
        path.display()
    ))
}

fn page(outcomes: &[Outcome]) -> String {
    let machine = outcomes.first().map(|first| first.machine.describe()).unwrap_or_default();
    let backend = outcomes
        .first()
        .map(|first| format!("Backend: {} ({}).", first.backend, first.backend_reason));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width\"/>\n\
         <title>nephrite bench</title><style>{STYLE}</style></head><body>\n\
         <h1>nephrite bench</h1>\n<p>{}</p>\n<p>{}</p>\n{}\n\
         <h2>Latency by share of the calls</h2>\n{}\n\
         <h2>Throughput over time</h2>\n{}\n</body></html>\n",
        escape(&machine),
        escape(&backend.unwrap_or_default()),
        table(outcomes),
        latencies(outcomes),
        throughput(outcomes),
    )
}

const COLUMNS: [&str; 17] = [
    "workload",
    "vectors",
    "dim",
    "threads x depth",
    "batch",
    "operations/s",
    "MB/s",
    "p50",
    "p99",
    "p99.9",
    "p99.99",
    "max",
    "CPU/op",
    "read/byte",
    "written/byte",
    "resident peak",
    "device ratio",
];

fn table(outcomes: &[Outcome]) -> String {
    let head: String = COLUMNS.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let body: String = outcomes.iter().map(row).collect();
    format!("<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
}

/// A workload, and below it its parts where it has several.
fn row(outcome: &Outcome) -> String {
    let parts = [
        ("warm", &outcome.warm_latency_ns),
        ("cold", &outcome.cold_latency_ns),
        ("writes", &outcome.write_latency_ns),
    ];
    let several = 1 < parts.iter().filter(|(_, part)| part.is_some()).count();
    let ratio = |it: Option<f64>| it.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
    let cpu = outcome.cpu_seconds_per_operation;
    let [p50, p99, p999, p9999, max] = tail(&outcome.latency_ns);
    let cells = [
        format!("{} ({})", outcome.workload, outcome.caches),
        count(outcome.vectors),
        outcome.dimension.to_string(),
        format!("{} x {}", outcome.threads, outcome.iodepth),
        outcome.batch_size.to_string(),
        rate(outcome.operations_per_second),
        format!("{:.1}", outcome.bytes_per_second / 1e6),
        p50,
        p99,
        p999,
        p9999,
        max,
        cpu.map_or_else(|| "-".to_owned(), |it| format!("{:.2} us", it * 1e6)),
        ratio(outcome.read_amplification),
        ratio(outcome.write_amplification),
        outcome.resident_bytes_peak.map_or_else(|| "-".to_owned(), bytes),
        ratio(outcome.device_limit_ratio),
    ];
    let mut text = cells_row(&cells);
    for (name, part) in parts {
        if let (true, Some(part)) = (several, part) {
            let mut cells: [String; COLUMNS.len()] = Default::default();
            cells[0] = format!("  {name}, {} calls", count(part.count));
            cells[7..12].clone_from_slice(&tail(part));
            text += &cells_row(&cells);
        }
    }
    text
}

fn cells_row(cells: &[String; COLUMNS.len()]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
    format!("<tr>{cells}</tr>")
}

fn tail(of: &Latencies) -> [String; 5] {
    [of.p50, of.p99, of.p999, of.p9999, of.max].map(latency)
}

/// Shares on a scale on which each further nine takes the same room.
fn latencies(outcomes: &[Outcome]) -> String {
    let series: Vec<Series> = outcomes
        .iter()
        .map(|outcome| Series {
            name: outcome.workload.to_owned(),
            points: outcome
                .curve
                .iter()
                .map(|(share, nanoseconds)| {
                    let nines = -(1.0 - share).log10();
                    (nines, (*nanoseconds).max(1) as f64)
                })
                .map(|(nines, nanoseconds)| (nines, nanoseconds.log10()))
                .collect(),
        })
        .collect();
    let points = || series.iter().flat_map(|of_one| &of_one.points);
    let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let nines = points().map(|point| point.0).fold(0.0, f64::max);
    if !low.is_finite() {
        return "<p>No call was made.</p>".to_owned();
    }
    let across = Axis::powers("share of the calls", 0.0, nines, |nines| {
        // Two nines are 99 %, three are 99.9 %.
        let decimals = if nines < 2.5 { 0 } else { 1 + usize::from(3.5 < nines) };
        let share = 100.0 * (1.0 - 10_f64.powf(-nines));
        if 4.5 < nines { format!("1 in 1e{nines:.0}") } else { format!("{share:.decimals$} %") }
    });
    let up = Axis::powers("latency", low, high, |power| {
        let names = ["1 ns", "10 ns", "100 ns", "1 us", "10 us", "100 us", "1 ms", "10 ms"];
        let later = ["100 ms", "1 s", "10 s", "100 s", "1000 s"];
        let found = names.iter().chain(&later).zip(0_u8..);
        let found = found.map(|(name, at)| (name, f64::from(at)));
        let mut found = found.filter(|(_, at)| (at - power).abs() < 0.5);
        found.next().map_or_else(String::new, |(name, _)| (*name).to_owned())
    });
    plot("latency by share of the calls", &across, &up, &series)
}

fn throughput(outcomes: &[Outcome]) -> String {
    let series: Vec<Series> = outcomes
        .iter()
        .map(|outcome| Series {
            name: outcome.workload.to_owned(),
            points: over_time(&outcome.timeline, outcome.interval_seconds, outcome.seconds),
        })
        .collect();
    let points = || series.iter().flat_map(|of_one| &of_one.points);
    let across = points().map(|point| point.0).fold(0.0, f64::max);
    let up = points().map(|point| point.1).fold(0.0, f64::max);
    let across = Axis::linear("seconds", across, |seconds| format!("{seconds}"));
    let up = Axis::linear("operations/s", up, rate);
    plot("throughput over time", &across, &up, &series)
}

/// The middle of each stretch of time, and the rate in it.
fn over_time(timeline: &[u64], interval: f64, seconds: f64) -> Vec<(f64, f64)> {
    let together = timeline.len().div_ceil(POINTS_MAX).max(1);
    let chunks = timeline.chunks(together).zip(0_u32..);
    chunks
        .map(|(chunk, number)| {
            let start = f64::from(number) * together as f64 * interval;
            // The last interval may be cut short.
            let end = (start + chunk.len() as f64 * interval).min(seconds);
            let length = (end - start).max(interval / 10.0);
            (start + length / 2.0, chunk.iter().sum::<u64>() as f64 / length)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_drawn_with_few_points_and_none_of_its_operations_lost() {
        let timeline = vec![5; 10_000];
        let points = over_time(&timeline, 0.05, 500.0);
        assert!(points.len() <= POINTS_MAX);
        assert!(points.iter().all(|point| (point.1 - 100.0).abs() < 1e-6), "{points:?}");
        assert_eq!(over_time(&[4, 1], 0.05, 0.06).len(), 2);
        assert!(over_time(&[], 0.05, 1.0).is_empty());
    }
}
