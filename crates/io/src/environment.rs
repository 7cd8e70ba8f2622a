//! What the machine says about itself: kernel release, block device and its write cache.
//!
//! Everything here is for reports. What cannot be found out is none, never an error.

use std::path::Path;

/// The kernel release, like `6.8.0`.
#[cfg(target_os = "linux")]
pub(crate) fn kernel() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}

/// The kernel release: not looked up on this platform.
#[cfg(not(target_os = "linux"))]
pub(crate) fn kernel() -> Option<String> {
    None
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// `write back` (a sync has to flush it) or `write through`.
    pub(crate) write_cache: Option<String>,
}

/// The device under a directory. File systems over several devices or none show nothing.
#[cfg(target_os = "linux")]
pub(crate) fn device(directory: &Path) -> Option<Device> {
    use std::os::linux::fs::MetadataExt;

    let number = std::fs::metadata(directory).ok()?.st_dev();
    let (major, minor) = (libc::major(number), libc::minor(number));
    let node = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = node.file_name()?.to_string_lossy().into_owned();
    // A partition's queue is the one of its disk, which is the directory above.
    let disk = if node.join("partition").exists() { node.parent()? } else { node.as_path() };
    let write_cache = std::fs::read_to_string(disk.join("queue/write_cache")).ok();
    Some(Device { name, write_cache: write_cache.map(|setting| setting.trim().to_owned()) })
}

/// The device under a directory: not looked up on this platform.
#[cfg(not(target_os = "linux"))]
pub(crate) fn device(_directory: &Path) -> Option<Device> {
    None
}
