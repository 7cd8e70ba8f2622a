//! The ring whose completions its thread polls for (IOPOLL), beside the others.
//!
//! ```text
//! submit -> direct read or write, and polling works -> the polled ring
//!        -> everything else                         -> the other rings
//! ```
//!
//! The kernel takes nothing else on such a ring: no sync, no buffered file, no read of an event. So
//! its thread waits for requests parked, and for completions in the kernel, which asks the device
//! over and over; an idle one costs nothing, a busy one a whole processor.
//!
//! Guarantee: what polling refuses is done without it. A device without queues for polling is known
//! beforehand; a file that refuses all the same is served by a positional thread, and all later
//! requests go to the other rings.
//! Does not: limit the wait for a device that never answers, which the kernel does not either here.
//! Tested with a scripted kernel in `tests/polled.rs`, and in `tests/it/polling.rs`.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::driver::DriverContext;
use super::intake::Intake;
use super::{RingKind, Shard, start_shard};
use crate::environment;
use crate::options::DiskOptions;
use crate::request::{Class, Request};

/// The polled ring of a disk that was to have one.
pub(super) struct Polled {
    shard: Option<Shard>,
    /// Why it is not used, or not any more.
    refusal: Arc<OnceLock<String>>,
}

impl Polled {
    /// Starts it for the device under `directory`.
    pub(super) fn start(
        options: &DiskOptions,
        directory: &Path,
        context: impl FnOnce(Arc<Intake>, Arc<OnceLock<String>>) -> DriverContext,
    ) -> Self {
        let refusal: Arc<OnceLock<String>> = Arc::default();
        let started = match refusal_of(environment::device(directory).as_ref()) {
            Some(reason) => Err(reason),
            None => start_shard("polled".to_owned(), options, RingKind::Polled, |intake| {
                context(intake, Arc::clone(&refusal))
            }),
        };
        let shard = started.map(|(shard, _)| shard);
        let shard = shard.map_err(|reason| refusal.get_or_init(|| reason)).ok();
        Self { shard, refusal }
    }

    pub(super) fn shard(&self) -> Option<&Shard> {
        self.shard.as_ref()
    }

    /// Where this request goes if it is for a polled ring.
    pub(super) fn shard_for(&self, request: &Request) -> Option<&Shard> {
        let suits = suits(request.file.is_direct(), request.operation.class());
        self.shard().filter(|_| suits && self.refusal.get().is_none())
    }

    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.get().cloned()
    }
}

/// What the kernel takes on a polled ring. A durable write is a write and then, perhaps, a sync.
fn suits(is_direct: bool, class: Class) -> bool {
    is_direct && class != Class::Sync
}

/// Why a device cannot be polled, with the cure. One that tells nothing is tried.
fn refusal_of(device: Option<&environment::Device>) -> Option<String> {
    let device = device.filter(|device| device.polls == Some(false))?;
    let name = &device.name;
    Some(format!(
        "the device {name} has no queues for polling (/sys/block/{name}/queue/io_poll is 0); an \
         NVMe device has some when the module nvme is loaded with poll_queues=N"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(polls: Option<bool>) -> environment::Device {
        environment::Device {
            name: "sdx".to_owned(),
            write_cache: None,
            scheduler: None,
            rotational: None,
            transfer_bytes_max: None,
            polls,
        }
    }

    #[test]
    fn syncs_and_buffered_files_never_go_to_a_polled_ring() {
        assert!(suits(true, Class::Read) && suits(true, Class::Write));
        assert!(!suits(true, Class::Sync));
        assert!(Class::ALL.into_iter().all(|class| !suits(false, class)));
    }

    #[test]
    fn a_device_without_queues_for_polling_is_named_with_the_cure() {
        let refusal = refusal_of(Some(&device(Some(false)))).unwrap();

        assert!(refusal.contains("sdx") && refusal.contains("poll_queues=N"), "{refusal}");
    }

    #[test]
    fn a_device_that_has_them_or_does_not_tell_is_tried() {
        assert_eq!(refusal_of(Some(&device(Some(true)))), None);
        assert_eq!(refusal_of(Some(&device(None))), None);
        assert_eq!(refusal_of(None), None);
    }
}
