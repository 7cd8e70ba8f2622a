//! What is told about one workload: as JSON, and as text.
//!
//! The names of the JSON fields are promised; what could not be measured is null.

use serde::Serialize;

use super::limit::DeviceLimit;
use super::machine::Machine;
use super::recorder::{INTERVAL, Kind, Latencies, Recorder};
use crate::context::Context;
use crate::failure::Failure;
use crate::figures::{bytes, count, latency, per_second, rate};

/// One workload.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) workload: &'static str,
    /// Vectors stored, read, looked for or deleted.
    pub(super) operations: u64,
    /// With the flush that makes the writes durable.
    pub(super) seconds: f64,
    pub(super) flush_seconds: Option<f64>,
    pub(super) operations_per_second: f64,
    pub(super) bytes_per_second: f64,
    /// Of calls: one call moves `batch_size` vectors.
    pub(super) latency_ns: Latencies,
    /// Reads that were served from memory, reads that were not, and writes.
    pub(super) warm_latency_ns: Option<Latencies>,
    pub(super) cold_latency_ns: Option<Latencies>,
    pub(super) write_latency_ns: Option<Latencies>,
    /// The writer beside the readers.
    pub(super) beside_writes_per_second: Option<f64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) cpu_seconds_per_operation: Option<f64>,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    /// Bytes read, or written, for each byte of vectors read, or written.
    pub(super) read_amplification: Option<f64>,
    pub(super) write_amplification: Option<f64>,
    pub(super) resident_bytes_peak: Option<u64>,
    pub(super) found: u64,
    pub(super) missing: u64,
    /// With `--verify`: vectors that were read again and compared after a workload that writes.
    pub(super) verified: Option<u64>,
    pub(super) caches: &'static str,
    pub(super) cache_bytes: u64,
    pub(super) memory_limit_bytes: u64,
    pub(super) vectors: u64,
    pub(super) dimension: u32,
    pub(super) threads: u64,
    pub(super) iodepth: u64,
    pub(super) batch_size: u64,
    pub(super) distribution: Option<String>,
    pub(super) rate: Option<u64>,
    pub(super) seed: u64,
    pub(super) backend: String,
    pub(super) backend_reason: String,
    pub(super) direct: bool,
    pub(super) device_limit: Option<DeviceLimit>,
    pub(super) device_limit_ratio: Option<f64>,
    pub(super) machine: Machine,
    /// Operations that ended in each interval.
    pub(super) interval_seconds: f64,
    pub(super) timeline: Vec<u64>,
    /// Shares of the calls, and the latency that they stayed within, in nanoseconds.
    #[serde(skip)]
    pub(super) curve: Vec<(f64, u64)>,
}

impl Outcome {
    /// Takes over what the workers recorded.
    pub(super) fn record(&mut self, recorder: &Recorder) {
        (self.latency_ns, self.curve) = recorder.all();
        self.warm_latency_ns = recorder.latencies(Kind::Hit);
        self.cold_latency_ns = recorder.latencies(Kind::Miss);
        self.write_latency_ns = recorder.latencies(Kind::Write);
        self.operations = recorder.operations;
        (self.found, self.missing) = (recorder.found, recorder.missing);
        self.timeline = recorder.timeline().to_vec();
        self.interval_seconds = INTERVAL.as_secs_f64();
    }

    /// The rates that follow from the counts; `vector_bytes` each.
    pub(super) fn divide(&mut self, vector_bytes: u64) {
        self.operations_per_second = per_second(self.operations, self.seconds);
        self.bytes_per_second = per_second(self.operations * vector_bytes, self.seconds);
        self.cpu_seconds_per_operation = self
            .cpu_seconds
            .filter(|_| self.operations != 0)
            .map(|cpu| cpu / self.operations as f64);
    }

    /// Tells people, or programs.
    pub(super) fn print(&self, context: &mut Context) -> Result<(), Failure> {
        if context.output.json() {
            context.output.document(self)?;
        } else {
            for line in self.lines() {
                context.output.line(format_args!("{line}"))?;
            }
        }
        context.output.flush()
    }

    /// The first line has the form that db_bench prints.
    fn lines(&self) -> Vec<String> {
        let micros = 1e6 / self.operations_per_second.max(f64::MIN_POSITIVE);
        let mut lines = vec![format!(
            "{:<16} : {micros:11.3} micros/op {:.0} ops/sec {:.3} seconds {} operations; \
             {:.1} MB/s",
            self.workload,
            self.operations_per_second,
            self.seconds,
            self.operations,
            self.bytes_per_second / 1e6,
        )];
        if self.found + self.missing != 0 {
            let looked_for = count(self.found + self.missing);
            lines[0] += &format!(" ({} of {looked_for} found)", count(self.found));
        }
        lines.push(latency_line("latency", &self.latency_ns));
        let parts = [
            ("  warm", &self.warm_latency_ns),
            ("  cold", &self.cold_latency_ns),
            ("  writes", &self.write_latency_ns),
        ];
        let several = 1 < parts.iter().filter(|(_, part)| part.is_some()).count();
        for (name, part) in parts {
            if let (true, Some(part)) = (several, part) {
                lines.push(latency_line(name, part));
            }
        }
        lines.push(self.cost_line());
        if let Some(writes) = self.beside_writes_per_second {
            lines.push(format!("  beside it: one writer, {}", rate(writes)));
        }
        if let (Some(limit), Some(ratio)) = (&self.device_limit, self.device_limit_ratio) {
            lines.push(format!("  device_limit_ratio {ratio:.3}: {}", limit.describe()));
        }
        if let Some(verified) = self.verified {
            lines.push(format!("  verified: {} vectors, bit for bit", count(verified)));
        }
        lines
    }

    fn cost_line(&self) -> String {
        let unknown = || "unknown".to_owned();
        let cpu = self
            .cpu_seconds_per_operation
            .map_or_else(unknown, |seconds| format!("{:.2} us", seconds * 1e6));
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |it| format!("{it:.2}"));
        format!(
            "  cpu/op {cpu}; bytes read per byte {}, written per byte {}; resident peak {}; {} \
             ({}), caches {}",
            ratio(self.read_amplification),
            ratio(self.write_amplification),
            self.resident_bytes_peak.map_or_else(unknown, bytes),
            self.backend,
            if self.direct { "direct" } else { "through the system's cache" },
            self.caches,
        )
    }
}

fn latency_line(name: &str, of: &Latencies) -> String {
    format!(
        "  {name:<9} p50 {}  p90 {}  p99 {}  p99.9 {}  p99.99 {}  max {}  ({} calls)",
        latency(of.p50),
        latency(of.p90),
        latency(of.p99),
        latency(of.p999),
        latency(of.p9999),
        latency(of.max),
        count(of.count),
    )
}
