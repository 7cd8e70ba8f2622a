//! How a durable write is carried out: a write and then a sync, or one write through the cache.
//!
//! `RWF_DSYNC` makes one write durable by itself. On a device with a volatile cache that is slower
//! than a write and a flush (more than twice on one consumer drive), and on one without it saves
//! the sync's hop through a worker thread of the kernel. So it is used only where the kernel
//! reports `write through` for the device that the file really lies on.
//!
//! Guarantee: either way, what had completed before is durable too. A write through covers earlier
//! writes only if they went to the device at once, so files that are not direct never use it.
//! Tested in `tests/it/durable.rs`, by force, since the machine decides what `Auto` means.

use std::fs::File;
use std::path::Path;

/// How [`crate::Operation::WriteSynced`] is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DurableWrites {
    /// Through the cache where the kernel reports that the device has no volatile one and the file
    /// is direct; else write, then sync.
    #[default]
    Auto,
    /// Always write, then sync.
    WriteThenSync,
    /// One write with `RWF_DSYNC` for every direct file. Right on every device, but slower on one
    /// with a volatile cache: for measurements and tests. Linux only; elsewhere without effect.
    WriteThrough,
}

/// For which files a durable write is one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteThrough {
    Never,
    /// For those on the device of this number.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has the flag"))]
    On(u64),
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has the flag"))]
    Always,
}

#[cfg(target_os = "linux")]
impl WriteThrough {
    pub(crate) fn decide(wanted: DurableWrites, directory: &Path) -> Self {
        use std::os::linux::fs::MetadataExt;

        match wanted {
            DurableWrites::WriteThenSync => Self::Never,
            DurableWrites::WriteThrough => Self::Always,
            DurableWrites::Auto => {
                let device = crate::environment::device(directory);
                let write_cache = device.and_then(|device| device.write_cache);
                match (write_cache.as_deref(), std::fs::metadata(directory)) {
                    (Some("write through"), Ok(metadata)) => Self::On(metadata.st_dev()),
                    _ => Self::Never,
                }
            }
        }
    }

    pub(crate) fn applies_to(self, file: &File) -> bool {
        use std::os::linux::fs::MetadataExt;

        match self {
            Self::Never => false,
            Self::Always => true,
            // A file system mounted below the directory is on another device.
            Self::On(device) => file.metadata().is_ok_and(|metadata| metadata.st_dev() == device),
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl WriteThrough {
    pub(crate) fn decide(_wanted: DurableWrites, _directory: &Path) -> Self {
        Self::Never
    }

    pub(crate) fn applies_to(self, _file: &File) -> bool {
        false
    }
}
