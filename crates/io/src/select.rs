//! Choosing a backend, once, with the reason on record.
//!
//! `auto` takes rings on Linux and mappings elsewhere, where they pass the probe, and positional
//! threads else; it never fails because of rings or mappings. A forced backend that does not work
//! is an error with the cause and the cure.
//! The environment is not consulted: whoever calls decides.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::durable::WriteThrough;
use crate::environment;
use crate::error::{IoError, IoErrorKind, IoOperation};
use crate::options::DiskOptions;
use crate::positional::SystemCalls;
use crate::probe::{Probed, try_out, try_out_mapping};
use crate::report::{BackendChoice, BackendReport};
use crate::system_disk::SystemDisk;
use crate::uring::Rings;

/// Opens the disk that `directory` (which exists) lies on, after trying it out there.
///
/// Blocks for a few milliseconds, since the probe waits for one real sync: not for an executor's
/// thread.
///
/// # Errors
///
/// - `InvalidRequest` when an option is out of range.
/// - `Unsupported` when a forced backend does not work here; the message has the cure.
/// - What the operating system said, when plain reads or writes fail in the directory. One that
///   cannot be written is no error.
pub fn open_disk(options: DiskOptions, directory: &Path) -> Result<Arc<dyn Disk>, IoError> {
    if let Some(fault) = options.fault() {
        let kind = IoErrorKind::InvalidRequest;
        return Err(IoError::refused(IoOperation::Probe, directory, kind, fault));
    }
    let disk = match options.backend {
        BackendChoice::Positional => {
            positional(&options, directory, "positional I/O was asked for".to_owned())?
        }
        BackendChoice::Uring => uring(&options, directory).map_err(|reason| {
            let reason = format!("io_uring was asked for, but {reason}");
            IoError::refused(IoOperation::Probe, directory, IoErrorKind::Unsupported, reason)
        })?,
        BackendChoice::Mmap => mmap(&options, directory)?.map_err(|reason| {
            let reason =
                format!("mmap was asked for, but {reason}; choose positional on this file system");
            IoError::refused(IoOperation::Probe, directory, IoErrorKind::Unsupported, reason)
        })?,
        BackendChoice::Simulated => {
            let reason = "a simulated disk is not opened but made, with sim::SimDisk::new";
            let kind = IoErrorKind::Unsupported;
            return Err(IoError::refused(IoOperation::Probe, directory, kind, reason));
        }
        BackendChoice::Auto => automatic(&options, directory)?,
    };
    Ok(Arc::new(disk))
}

#[cfg(target_os = "linux")]
fn automatic(options: &DiskOptions, directory: &Path) -> Result<SystemDisk, IoError> {
    uring(options, directory).or_else(|reason| positional(options, directory, reason))
}

#[cfg(not(target_os = "linux"))]
fn automatic(options: &DiskOptions, directory: &Path) -> Result<SystemDisk, IoError> {
    mmap(options, directory)?.or_else(|reason| positional(options, directory, reason))
}

fn uring(options: &DiskOptions, directory: &Path) -> Result<SystemDisk, String> {
    let mut refusal = None;
    let disk =
        SystemDisk::new(options, directory, Box::new(SystemCalls), |counters, positional| {
            Rings::start(options, directory, counters, positional)
                .map_err(|reason| refusal = Some(reason))
                .ok()
        });
    if let Some(reason) = refusal {
        return Err(reason);
    }
    let probed = try_out(&disk, directory, options.direct)
        .map_err(|error| format!("a trial in the directory failed: {error}"))?;
    if let Some(degraded) = disk.rings().and_then(Rings::degraded) {
        return Err(format!("its operations are refused: {degraded}"));
    }
    let reason = "a write, a sync and a read through the ring succeeded".to_owned();
    settle(&disk, options, directory, BackendChoice::Uring, probed, reason);
    Ok(disk)
}

fn positional(
    options: &DiskOptions,
    directory: &Path,
    reason: String,
) -> Result<SystemDisk, IoError> {
    let disk = SystemDisk::new(options, directory, Box::new(SystemCalls), |_, _| None);
    let probed = try_out(&disk, directory, options.direct)?;
    settle(&disk, options, directory, BackendChoice::Positional, probed, reason);
    Ok(disk)
}

/// The outer error is one of the directory itself; the inner one says why mapping does not work.
fn mmap(options: &DiskOptions, directory: &Path) -> Result<Result<SystemDisk, String>, IoError> {
    let disk = SystemDisk::new(options, directory, Box::new(SystemCalls), |_, _| None);
    let disk = disk.with_mappings();
    let probed = try_out(&disk, directory, false)?;
    if let Err(error) = try_out_mapping(directory) {
        return Ok(Err(format!("a file in the directory could not be mapped ({error})")));
    }
    let reason = match options.backend {
        BackendChoice::Mmap => "mmap was asked for, and a file in the directory could be mapped",
        _ => "there is no io_uring here, and a file in the directory could be mapped",
    };
    settle(&disk, options, directory, BackendChoice::Mmap, probed, reason.to_owned());
    Ok(Ok(disk))
}

/// Writes the report, and drops direct I/O for the whole disk where the probe could not use it.
fn settle(
    disk: &SystemDisk,
    options: &DiskOptions,
    directory: &Path,
    chosen: BackendChoice,
    probed: Probed,
    mut reason: String,
) {
    if probed.alignment.is_none() && probed.note.is_none() {
        disk.forbid_direct();
    }
    if let Some(note) = probed.note {
        reason = format!("{reason}; {note}");
    }
    let device = environment::device(directory);
    disk.set_report(BackendReport {
        requested: options.backend,
        chosen,
        reason,
        degraded: None,
        kernel: environment::kernel(),
        ring_flags: disk.rings().map_or_else(Vec::new, Rings::flags),
        ring_entries: disk.rings().map_or(0, Rings::entries),
        ring_threads: disk.rings().map_or(0, Rings::threads),
        positional_threads: options.positional_threads_max(),
        direct: probed.alignment.is_some(),
        alignment: probed.alignment.unwrap_or(1),
        memory_alignment: probed.memory_alignment,
        file_system: environment::file_system(directory),
        limits: environment::limits(),
        scheduler: device.as_ref().and_then(|device| device.scheduler.clone()),
        rotational: device.as_ref().and_then(|device| device.rotational),
        transfer_bytes_max: device.as_ref().and_then(|device| device.transfer_bytes_max),
        device_polls: device.as_ref().and_then(|device| device.polls),
        device: device.as_ref().map(|device| device.name.clone()),
        write_cache: device.and_then(|device| device.write_cache),
        caller_rings: disk.rings().map_or(0, |_| options.caller_rings),
        caller_refusal: None,
        polling_refusal: disk.rings().and_then(Rings::polling_refusal),
        completions_polled: false,
        completion_refusal: None,
        writes_through: disk.write_through() != WriteThrough::Never,
        registered_bytes: 0,
        registration_refusal: None,
        mapping: None,
    });
}
