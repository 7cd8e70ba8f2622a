//! `bench`: the store under a workload, beside the drive it runs on; and the drive itself.
//!
//! Workloads have db_bench's names, options have db_bench's and fio's. The store is used through
//! its public interface, as a program would. Each workload is reported when it ends: as text, or as
//! one JSON object on a line; `--html` writes a report with plots when all have ended.
//!
//! Checked by: `tests/it/bench.rs` (every workload, JSON, HTML, refusals, signals), and the tests
//! of the modules.

mod device;
mod handle;
mod html;
mod keys;
mod limit;
mod machine;
mod operations;
mod outcome;
mod place;
mod plan;
mod recorder;
mod session;
mod svg;
mod vectors;
mod work;
mod workload;

use clap::{Args, Subcommand};

use self::plan::Plan;
use self::session::Session;
use crate::context::Context;
use crate::failure::Failure;

/// What `--help` says after the options.
const HELP: &str = r#"Buffered writes are flushed at the end of their workload, within its time.

JSON, one object for each workload: {"workload","operations","seconds","flush_seconds",
       "operations_per_second","bytes_per_second","latency_ns":{"count","mean","p50","p90","p99",
       "p999","p9999","max"},"warm_latency_ns","cold_latency_ns","write_latency_ns",
       "beside_writes_per_second","cpu_seconds","cpu_seconds_per_operation","bytes_read",
       "bytes_written","read_amplification","write_amplification","resident_bytes_peak","found",
       "missing","verified","caches","cache_bytes","memory_limit_bytes","vectors","dimension",
       "threads","iodepth","batch_size","distribution","rate","seed","backend","backend_reason",
       "direct","device_limit","device_limit_ratio","machine","interval_seconds","timeline"}
What could not be measured is null; "warm" are reads served from memory, "cold" the others."#;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    device: Option<Device>,
    #[command(flatten)]
    plan: plan::PlanArguments,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// Measure the drive itself, without a store
    Device(device::DeviceArguments),
}

pub(crate) fn run(arguments: &BenchArguments, context: &mut Context) -> Result<(), Failure> {
    if let Some(Device::Device(arguments)) = &arguments.device {
        return device::run(arguments, context);
    }
    let plan = Plan::new(&arguments.plan, context)?;
    // Made first: a report that cannot be written is known before hours of measurements.
    let report = plan.html.as_deref().map(html::create).transpose()?;
    let mut session = Session::open(&plan, context)?;
    let mut outcomes = Vec::new();
    for workload in &plan.workloads {
        let outcome = session.run(*workload, context)?;
        outcome.print(context)?;
        outcomes.push(outcome);
    }
    session.close()?;
    report.map_or(Ok(()), |file| html::write(file, &outcomes))
}
