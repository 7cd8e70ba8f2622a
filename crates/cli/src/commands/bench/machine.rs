//! What the operating system says: processor time, memory, and where figures were measured.
//!
//! What a system does not tell is `None`, and `null` in JSON; nothing is guessed.

use std::fs;
use std::path::Path;

use nephrite::BackendReport;
use serde::Serialize;

use crate::clock;
use crate::failure::Failure;

/// Where figures were measured: they mean nothing without it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) version: &'static str,
    pub(super) date: String,
    pub(super) kernel: Option<String>,
    pub(super) cpu: Option<String>,
    pub(super) cores: usize,
    pub(super) memory_bytes: Option<u64>,
    pub(super) file_system: Option<String>,
    pub(super) device: Option<String>,
    pub(super) scheduler: Option<String>,
}

impl Machine {
    pub(super) fn new(report: &BackendReport) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            date: clock::date(),
            kernel: report.kernel.clone(),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kilobytes("/proc/meminfo", "MemTotal"),
            file_system: report.file_system.clone(),
            device: report.device.clone(),
            scheduler: report.scheduler.clone(),
        }
    }

    /// One line for people.
    pub(super) fn describe(&self) -> String {
        let unknown = || "unknown".to_owned();
        format!(
            "nephrite {} | {} | kernel {} | {} x {} | {} on {}",
            self.version,
            self.date,
            self.kernel.clone().unwrap_or_else(unknown),
            self.cores,
            self.cpu.clone().unwrap_or_else(unknown),
            self.file_system.clone().unwrap_or_else(unknown),
            self.device.clone().unwrap_or_else(unknown),
        )
    }
}

/// Seconds of processor time of this process, all threads, kernel included.
#[cfg(unix)]
pub(super) fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// Not told without unsafe code of ours.
#[cfg(not(unix))]
pub(super) fn cpu_seconds() -> Option<f64> {
    None
}

/// Starts a new peak of resident memory, where the kernel can.
pub(super) fn reset_peak() {
    // Where it cannot, the peak is that of the process, which is never less.
    let _not_reset = fs::write("/proc/self/clear_refs", "5");
}

/// The most resident memory since [`reset_peak`].
pub(super) fn resident_bytes_peak() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM")
}

/// Drops what the system's cache holds of the files below a directory.
#[cfg(target_os = "linux")]
pub(super) fn evict(directory: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::error(format_args!("--cold: dropping {} from memory: {error}", path.display()))
    };
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let path = entry.map_err(|error| failed(directory, error))?.path();
        if path.is_dir() {
            evict(&path)?;
            continue;
        }
        let file = fs::File::open(&path).map_err(|error| failed(&path, error))?;
        // Dirty pages are not dropped.
        file.sync_data().map_err(|error| failed(&path, error))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| failed(&path, error.into()))?;
    }
    Ok(())
}

/// There is no such call here: files that bypass the system's cache do not need it.
#[cfg(not(target_os = "linux"))]
pub(super) fn evict(_: &Path) -> Result<(), Failure> {
    Ok(())
}

/// The value of a line `name: value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let number: u64 = field(path, name)?.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_processor_time_and_memory() {
        reset_peak();
        let before = cpu_seconds().unwrap();
        let memory = vec![1_u8; 8 << 20];
        let sum: u64 = memory.iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(sum, 8 << 20);
        assert!(before < cpu_seconds().unwrap());
        assert!(8 << 20 < resident_bytes_peak().unwrap());
    }

    #[test]
    fn what_is_not_there_is_not_told() {
        assert_eq!(field("/nowhere/at/all", "VmHWM"), None);
    }
}
