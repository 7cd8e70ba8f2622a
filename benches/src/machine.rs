//! The line that says where figures were measured: a number without it means nothing.

use std::{fs, path::Path};

use crate::place::Place;

/// Names and values; what cannot be found out is `unknown`.
pub(crate) fn describe(place: &Place) -> Vec<(&'static str, String)> {
    let report = place.disk.report();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        ("kernel", report.kernel.clone().unwrap_or_else(unknown)),
        ("cpu", cpu_model().unwrap_or_else(unknown)),
        ("cores", cores.to_string()),
        ("filesystem", filesystem(place.path()).unwrap_or_else(unknown)),
        ("device", report.device.clone().unwrap_or_else(unknown)),
        ("backend", report.chosen.to_string()),
        ("direct", report.direct.to_string()),
        ("commit", env!("NEPHRITE_COMMIT").to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Type of the file system with the longest mount point above `path`.
fn filesystem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let text = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(mounted_on, _)| path.starts_with(mounted_on));
    above.max_by_key(|(mounted_on, _)| mounted_on.len()).map(|(_, kind)| kind.to_owned())
}
