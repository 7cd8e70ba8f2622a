//! `fio` with its `io_uring` engine, run as a child: the yardstick that storage people trust.
//!
//! Two forms: as it comes, where every operation is a system call of its own, and in batches as
//! our ring threads work. Its CPU time is what it reports of its own worker, not of its start-up.

use std::process::Command;

use serde_json::Value;

use super::job::{Access, Contender, Job, Measured};
use crate::Outcome;

/// `fio`, as it comes or in batches.
#[derive(Debug)]
pub(super) struct Fio {
    pub(super) batched: bool,
}

/// The version of the program, or why there is none.
pub(super) fn version() -> Outcome<String> {
    let output = Command::new("fio").arg("--version").output()?;
    if !output.status.success() {
        return Err(format!("fio --version: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl Contender for Fio {
    fn name(&self) -> &str {
        if self.batched { "fio io_uring, batches" } else { "fio io_uring" }
    }

    fn takes(&self, job: &Job) -> bool {
        !self.batched || 1 < job.depth && job.access == Access::RandomRead
    }

    fn run(&self, job: &Job) -> Outcome<Measured> {
        let output = self.command(job).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("fio failed ({}): {said}", output.status).into());
        }
        measured(&serde_json::from_slice(&output.stdout)?, job)
    }
}

impl Fio {
    fn command(&self, job: &Job) -> Command {
        let rw = match job.access {
            Access::RandomRead => "randread",
            Access::SequentialRead => "read",
            Access::SequentialWrite => "write",
        };
        let mut command = Command::new("fio");
        command.arg("--name=yardstick").arg(format!("--filename={}", job.path.display()));
        command.args(["--ioengine=io_uring", "--direct=1", "--thread", "--time_based"]);
        command.args(["--norandommap", "--allow_file_create=0", "--output-format=json"]);
        command.args(["--lat_percentiles=1", "--clat_percentiles=0", "--percentile_list=50:99"]);
        command.arg(format!("--rw={rw}")).arg(format!("--randseed={}", job.seed));
        command.arg(format!("--size={}", job.file_bytes)).arg(format!("--bs={}", job.block_bytes));
        command.arg(format!("--iodepth={}", job.depth));
        command.arg(format!("--runtime={}ms", (job.seconds * 1e3).ceil()));
        if self.batched {
            let most = (job.depth / 2).max(1);
            command.arg(format!("--iodepth_batch_submit={most}"));
            command.arg("--iodepth_batch_complete_min=1");
            command.arg(format!("--iodepth_batch_complete_max={}", job.depth));
        }
        command
    }
}

/// Reads the figures of the only job of a report.
fn measured(report: &Value, job: &Job) -> Outcome<Measured> {
    let of_job = &report["jobs"][0];
    let of_kind = &of_job[if job.writes() { "write" } else { "read" }];
    let number = |value: &Value, what: &str| {
        value.as_f64().ok_or_else(|| format!("fio's report has no number for `{what}`"))
    };
    let operations = number(&of_kind["total_ios"], "total_ios")?;
    let percent = number(&of_job["usr_cpu"], "usr_cpu")? + number(&of_job["sys_cpu"], "sys_cpu")?;
    let cpu_seconds = percent / 100.0 * number(&of_job["job_runtime"], "job_runtime")? / 1e3;
    let percentiles = &of_kind["lat_ns"]["percentile"];
    Ok(Measured {
        rate: number(&of_kind["iops"], "iops")?,
        cpu_microseconds: cpu_seconds * 1e6 / operations,
        p50_microseconds: number(&percentiles["50.000000"], "50th percentile")? / 1e3,
        p99_microseconds: number(&percentiles["99.000000"], "99th percentile")? / 1e3,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn job() -> Job {
        Job {
            path: PathBuf::from("file"),
            file_bytes: 1 << 20,
            block_bytes: 4096,
            depth: 8,
            access: Access::RandomRead,
            seconds: 0.5,
            seed: 1,
        }
    }

    #[test]
    fn a_report_gives_rate_cpu_and_percentiles() {
        let percentile = json!({ "50.000000": 100_000, "99.000000": 300_000 });
        let read = json!({ "iops": 5e4, "total_ios": 1e5, "lat_ns": { "percentile": percentile } });
        let of_job = json!({ "read": read, "usr_cpu": 5, "sys_cpu": 15, "job_runtime": 2000 });
        let measured = measured(&json!({ "jobs": [of_job] }), &job()).unwrap();
        assert!((measured.rate - 5e4).abs() < 1e-6);
        assert!((measured.cpu_microseconds - 4.0).abs() < 1e-6);
        assert!((measured.p50_microseconds - 100.0).abs() < 1e-6);
        assert!((measured.p99_microseconds - 300.0).abs() < 1e-6);
    }

    #[test]
    fn a_report_without_a_number_names_it() {
        let error = measured(&json!({ "jobs": [{}] }), &job()).unwrap_err().to_string();
        assert!(error.contains("total_ios"), "{error}");
    }
}
