//! What the machine says about itself: kernel release, limits of this process, the block device
//! under a directory and the file system on it.
//!
//! Everything here is for reports. What cannot be found out is none, never an error. Only Linux is
//! asked; what it says is parsed below, where the parsers are tested too.

use std::path::Path;

use crate::report::LimitsReport;

/// The kernel release, like `6.8.0`.
#[cfg(target_os = "linux")]
pub(crate) fn kernel() -> Option<String> {
    line_of(Path::new("/proc/sys/kernel/osrelease"))
}

/// The kernel release: not looked up on this platform.
#[cfg(not(target_os = "linux"))]
pub(crate) fn kernel() -> Option<String> {
    None
}

/// How many files this process may have open at a time, where the system tells (Linux).
#[cfg(target_os = "linux")]
#[must_use]
pub fn open_files_max() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many files this process may have open at a time: not looked up on this platform.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn open_files_max() -> Option<u64> {
    None
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// `write back` (a sync has to flush it) or `write through`.
    pub(crate) write_cache: Option<String>,
    /// The request scheduler in use, `none` for no reordering.
    pub(crate) scheduler: Option<String>,
    pub(crate) rotational: Option<bool>,
    /// Most bytes of one request.
    pub(crate) transfer_bytes_max: Option<u64>,
    /// Whether it has queues whose completions can be polled for.
    pub(crate) polls: Option<bool>,
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
    let setting = |name: &str| line_of(&disk.join("queue").join(name));
    let kibibytes = setting("max_sectors_kb").and_then(|text| text.parse::<u64>().ok());
    Some(Device {
        name,
        write_cache: setting("write_cache"),
        scheduler: setting("scheduler").map(|text| parse::chosen(&text)),
        rotational: setting("rotational").map(|text| text == "1"),
        polls: setting("io_poll").map(|text| text != "0"),
        transfer_bytes_max: kibibytes.map(|kibibytes| kibibytes.saturating_mul(1024)),
    })
}

/// The device under a directory: not looked up on this platform.
#[cfg(not(target_os = "linux"))]
pub(crate) fn device(_directory: &Path) -> Option<Device> {
    None
}

/// The type of the file system that a directory lies on, like `ext4`.
#[cfg(target_os = "linux")]
pub(crate) fn file_system(directory: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    parse::file_system(&mounts, &std::fs::canonicalize(directory).ok()?)
}

/// The type of the file system: not looked up on this platform.
#[cfg(not(target_os = "linux"))]
pub(crate) fn file_system(_directory: &Path) -> Option<String> {
    None
}

/// What this process may use.
#[cfg(target_os = "linux")]
pub(crate) fn limits() -> LimitsReport {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (limits, status) = (text("/proc/self/limits"), text("/proc/self/status"));
    let disabled = line_of(Path::new("/proc/sys/kernel/io_uring_disabled"));
    LimitsReport {
        locked_memory_bytes: parse::limit(&limits, "Max locked memory"),
        open_files: parse::limit(&limits, "Max open files"),
        io_uring_disabled: disabled.and_then(|text| text.parse().ok()),
        seccomp: parse::seccomp(&status),
    }
}

/// How much memory this user's processes may lock together; none where there is no limit, as for
/// those with the right to exceed it, or none is known.
#[cfg(target_os = "linux")]
pub(crate) fn lockable_bytes() -> Option<u64> {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let limit = parse::limit(&text("/proc/self/limits"), "Max locked memory");
    let limit = limit.filter(|limit| *limit < u64::MAX)?;
    (!parse::may_exceed_locks(&text("/proc/self/status"))).then_some(limit)
}

/// What this process may use: not looked up on this platform.
#[cfg(not(target_os = "linux"))]
pub(crate) fn limits() -> LimitsReport {
    LimitsReport::default()
}

#[cfg(target_os = "linux")]
fn line_of(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(target_os = "linux")]
mod parse {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::{Path, PathBuf};

    /// The word in brackets, or all of it: `[none] mq-deadline` is `none`.
    pub(super) fn chosen(text: &str) -> String {
        let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        inside.map_or(text, |(word, _)| word).to_owned()
    }

    /// The soft limit of that name in `/proc/self/limits`; `u64::MAX` where there is none.
    pub(super) fn limit(limits: &str, name: &str) -> Option<u64> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_whitespace().next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    }

    /// The state of system call filters in `/proc/self/status`.
    pub(super) fn seccomp(status: &str) -> Option<String> {
        let line = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
        let state = match line.trim() {
            "0" => "none",
            "1" => "strict",
            "2" => "filter",
            other => other,
        };
        Some(state.to_owned())
    }

    /// Whether `/proc/self/status` lists the capability CAP_IPC_LOCK as effective.
    pub(super) fn may_exceed_locks(status: &str) -> bool {
        const IPC_LOCK: u64 = 1 << 14;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let set = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        set.is_some_and(|set| set & IPC_LOCK != 0)
    }

    /// The type of the innermost mount that holds `path`, by `/proc/self/mountinfo`.
    pub(super) fn file_system(mounts: &str, path: &Path) -> Option<String> {
        let mount = |line: &str| -> Option<(PathBuf, String)> {
            let (place, kind) = line.split_once(" - ")?;
            let point = unescaped(place.split(' ').nth(4)?);
            Some((point, kind.split(' ').next()?.to_owned()))
        };
        let holding = mounts.lines().filter_map(mount).filter(|(point, _)| path.starts_with(point));
        // Of several at one place the last hides the others, and is what `max_by_key` takes.
        let innermost = holding.max_by_key(|(point, _)| point.components().count());
        innermost.map(|(_, kind)| kind)
    }

    /// Spaces, tabs, newlines and backslashes are octal in mount tables.
    fn unescaped(text: &str) -> PathBuf {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((first, after)) = rest.split_first() {
            let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
            match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
                Some(byte) if *first == b'\\' => {
                    bytes.push(byte);
                    rest = &after[3..];
                }
                _ => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        PathBuf::from(OsString::from_vec(bytes))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_scheduler_in_use_is_the_one_in_brackets() {
            assert_eq!(chosen("mq-deadline kyber [none]"), "none");
            assert_eq!(chosen("none"), "none");
            assert_eq!(chosen("[broken"), "[broken");
        }

        #[test]
        fn limits_are_numbers_or_unlimited() {
            let text = "Limit          Soft Limit  Hard Limit  Units\n\
                        Max locked memory         65536                8388608      bytes\n\
                        Max open files            unlimited            unlimited    files\n";

            assert_eq!(limit(text, "Max locked memory"), Some(65_536));
            assert_eq!(limit(text, "Max open files"), Some(u64::MAX));
            assert_eq!(limit(text, "Max processes"), None);
        }

        #[test]
        fn filters_are_named_by_their_state() {
            assert_eq!(seccomp("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n").unwrap(), "filter");
            assert_eq!(seccomp("Seccomp:\t0\n").unwrap(), "none");
            assert_eq!(seccomp("Name:\tx\n"), None);
        }

        #[test]
        fn the_right_to_lock_more_is_one_bit() {
            assert!(may_exceed_locks("Name:\tx\nCapEff:\t0000000000004000\n"));
            assert!(!may_exceed_locks("Name:\tx\nCapEff:\tffffffffffffbfff\n"));
            assert!(!may_exceed_locks("CapEff:\tnonsense\n"));
        }

        #[test]
        fn a_path_lies_on_the_innermost_mount_of_those_above_it() {
            let mounts = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                          22 21 0:20 / /data rw - tmpfs tmpfs rw\n\
                          23 21 0:21 / /data\\040two rw master:1 - xfs /dev/sdb rw\n\
                          24 22 0:22 / /data rw - btrfs /dev/sdc rw\n\
                          nonsense\n";
            let kind = |path| file_system(mounts, Path::new(path));

            assert_eq!(kind("/data/store").unwrap(), "btrfs");
            assert_eq!(kind("/data two/store").unwrap(), "xfs");
            assert_eq!(kind("/database").unwrap(), "ext4");
            assert_eq!(file_system("", Path::new("/")), None);
        }
    }
}
