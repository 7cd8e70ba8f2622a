//! What the device gives at the block size and depth of a workload: `--with-device-limit`.
//!
//! Measured in the same directory right before and right after the workload, the mean of both, so
//! that a device that slows down does so for both sides. The file is made once and removed.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tempfile::TempPath;

use super::device::open_target;
use super::device::transfer::{self, Access, Interrupt, Job, Measured, Submitter, Target};
use super::workload::Workload;
use crate::failure::Failure;
use crate::figures::rate;

/// The size of its file follows the data within these bounds.
const FILE_BYTES_MIN: u64 = 16 << 20;
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Time of one measurement.
const SECONDS: f64 = 0.5;
/// The longest ramp before a measurement.
const RAMP: Duration = Duration::from_millis(100);
/// Sequential transfers that reach the bandwidth.
const SEQUENTIAL_BYTES: u64 = 1 << 20;
const SEQUENTIAL_DEPTH: usize = 8;
/// Blocks of a log.
const LOG_BYTES: u64 = 4096;
/// Reads in flight beyond which no device does more.
const DEPTH_MAX: u64 = 256;

/// The limit beside a workload.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DeviceLimit {
    pub(super) access: &'static str,
    pub(super) block_bytes: u64,
    pub(super) iodepth: usize,
    pub(super) operations_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) p99_latency_ns: u64,
    pub(super) cpu_seconds_per_operation: Option<f64>,
}

impl DeviceLimit {
    pub(super) fn describe(&self) -> String {
        format!(
            "{} of {} bytes, {} in flight: {}, {:.0} MB/s",
            self.access,
            self.block_bytes,
            self.iodepth,
            rate(self.operations_per_second),
            self.bytes_per_second / 1e6,
        )
    }
}

/// The file, and what is to be measured on it.
pub(super) struct Yardstick {
    target: Target,
    _file: Option<TempPath>,
}

/// The measurement of one workload, of which each sample is one.
pub(super) struct Samples {
    job: Job,
    measured: Vec<Measured>,
}

impl Yardstick {
    /// Makes the file, about as large as the data.
    pub(super) fn new(
        options: nephrite::DiskOptions,
        directory: &Path,
        data_bytes: u64,
        interrupt: Interrupt<'_>,
    ) -> Result<Self, Failure> {
        let bytes = data_bytes.clamp(FILE_BYTES_MIN, FILE_BYTES_MAX);
        let bytes = bytes.next_multiple_of(SEQUENTIAL_BYTES);
        let (target, file) = open_target(options, directory, bytes)?;
        transfer::fill(&target, interrupt)?;
        Ok(Self { target, _file: file })
    }

    pub(super) fn sample(
        &self,
        samples: &mut Samples,
        interrupt: Interrupt<'_>,
    ) -> Result<(), Failure> {
        samples.job.seed += 1;
        samples.measured.push(transfer::run(&self.target, &samples.job, interrupt)?);
        Ok(())
    }
}

impl Samples {
    /// What is to be measured beside a workload with this many calls in flight.
    pub(super) fn new(
        workload: Workload,
        page_bytes: u64,
        in_flight: u64,
        batch_size: u64,
        duration: Option<Duration>,
    ) -> Self {
        let depth =
            |ids: u64| usize::try_from(ids.clamp(1, DEPTH_MAX)).expect("at most a few hundred");
        let (access, block_bytes, depth) = match workload {
            Workload::ReadSeq => (Access::SequentialRead, SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH),
            Workload::FillSeq | Workload::FillRandom | Workload::Overwrite => {
                (Access::SequentialWrite, SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH)
            }
            Workload::FillSync => (Access::Synced, LOG_BYTES, 1),
            Workload::MultiReadRandom => {
                (Access::RandomRead, page_bytes, depth(in_flight * batch_size))
            }
            Workload::ReadRandom
            | Workload::ReadWhileWriting
            | Workload::UpdateRandom
            | Workload::DeleteRandom
            | Workload::MixGraph => (Access::RandomRead, page_bytes, depth(in_flight)),
        };
        let seconds = duration.map_or(SECONDS, |it| it.as_secs_f64().min(SECONDS));
        let duration = Duration::from_secs_f64(seconds);
        let ramp = duration.min(RAMP);
        let submitter = Submitter::Caller;
        let job = Job { access, block_bytes, depth, ramp, duration, submitter, seed: 0 };
        Self { job, measured: Vec::new() }
    }

    /// The mean of the samples, and this workload's share of it: of bytes where blocks have no
    /// equal in the workload, else of operations.
    pub(super) fn compare(
        &self,
        operations_per_second: f64,
        bytes_per_second: f64,
    ) -> (DeviceLimit, Option<f64>) {
        let count = self.measured.len().max(1) as f64;
        let mean = |of: fn(&Measured) -> f64| self.measured.iter().map(of).sum::<f64>() / count;
        let cpu = |measured: &Measured| {
            measured.cpu_seconds.map(|cpu| cpu / measured.operations.max(1) as f64)
        };
        let cpus: Option<Vec<f64>> = self.measured.iter().map(cpu).collect();
        let limit = DeviceLimit {
            access: self.job.access.name(),
            block_bytes: self.job.block_bytes,
            iodepth: self.job.depth,
            operations_per_second: mean(|it| it.operations_per_second),
            bytes_per_second: mean(|it| it.bytes_per_second),
            p99_latency_ns: self.measured.iter().map(|it| it.latencies.p99).max().unwrap_or(0),
            cpu_seconds_per_operation: cpus.map(|cpus| cpus.iter().sum::<f64>() / count),
        };
        let sequential =
            matches!(self.job.access, Access::SequentialRead | Access::SequentialWrite);
        let (own, of_device) = match sequential {
            true => (bytes_per_second, limit.bytes_per_second),
            false => (operations_per_second, limit.operations_per_second),
        };
        let ratio = (0.0 < of_device).then(|| own / of_device);
        (limit, ratio)
    }
}
