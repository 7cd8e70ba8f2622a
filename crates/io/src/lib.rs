//! The I/O layer of Nephrite: one [`Disk`] trait over `io_uring`, positional I/O and mapped files,
//! and the aligned memory that they move bytes into and out of.
//!
//! ```
//! use nephrite_io::memory::AlignedBuf;
//! use nephrite_io::{DiskOptions, OpenOptions, block_on, open_disk, read, sync, write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let disk = open_disk(DiskOptions::new(), directory.path())?;
//! println!("{}", disk.report());
//!
//! let path = directory.path().join("blocks");
//! let file = block_on(disk.open(&path, OpenOptions::read_write().create_new()))?;
//! let mut block = AlignedBuf::zeroed(4096)?;
//! block.fill(7);
//! let block = block_on(write(&*disk, &file, 0, block.into()))?;
//! block_on(sync(&*disk, &file))?;
//! let block = block_on(read(&*disk, &file, 0, block))?;
//! assert_eq!(block.as_slice()[0], 7);
//! block_on(disk.shutdown())?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds everywhere
//!
//! - A request owns its buffer and file until its end, so futures may be dropped at any point.
//! - Success means that every byte was transferred; short counts are continued here.
//! - After a failed write or sync, every later write and sync of that file fails with that error.
//! - [`open_disk`] chooses by trying: `auto` never fails because of `io_uring`, a forced backend
//!   fails with the cause and the cure, and [`BackendReport`] says what runs and why.
//! - Files bypass the system's cache where file system and device allow it, decided per file.
//!
//! # Map
//!
//! | module | what |
//! |---|---|
//! | [`memory`] | aligned buffers, the frame arena, append-only chunks |
//! | `disk`, `request`, `error`, `report`, `stats` | the public face |
//! | `file`, `direct`, `durable`, `metadata` | open files and operations on names |
//! | `transfer`, `ticket`, `completion`, `wakes` | the life of a request, common to all backends |
//! | `sync`, `planted` | the types of std or of the model checker; bugs for tests to find |
//! | `positional`, `pool`, `metadata_lane`, `threads` | threads that block in system calls |
//! | `mapping` | sealed files in memory, read by copy on the positional threads |
//! | `uring` | rings, Linux only |
//! | [`sim`] | a disk that exists only in memory, with crashes and faults by seed |
//! | `caller`, `fork` | rings that the calling thread drives; forks noticed |
//! | `options`, `select`, `probe`, `environment`, `system_disk` | choosing, and putting together |
//!
//! Unsafe code is in `memory`, `uring::ring`, `flagged` (one `pwritev2`), `fork`, `direct` (one
//! `statx`), `mapping` (one copy) and `probe` (one `memfd_create`).

pub mod memory;
pub mod sim;

mod batch;
mod caller;
mod completion;
mod direct;
mod disk;
mod durable;
mod environment;
mod error;
mod file;
#[cfg(target_os = "linux")]
mod flagged;
mod fork;
mod free_space;
mod mapping;
mod metadata;
mod metadata_lane;
mod options;
#[doc(hidden)]
pub mod planted;
mod pool;
mod positional;
mod priority;
mod probe;
mod report;
mod request;
mod select;
mod stats;
mod sync;
mod syncs;
mod system_disk;
mod threads;
mod ticket;
mod transfer;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(not(target_os = "linux"))]
#[path = "uring_absent.rs"]
mod uring;
mod wakes;

#[cfg(test)]
#[cfg(loom)]
mod loom_models;

pub use caller::{CallerRing, CallerRings, drive};
pub use completion::{block_on, note_orphaned};
pub use disk::{
    DirectoryEntry, Disk, FileLock, IoFuture, read, read_many, sync, write, write_many,
    write_synced,
};
pub use durable::DurableWrites;
pub use environment::open_files_max;
pub use error::{IoError, IoErrorKind, IoOperation};
pub use file::{FileHandle, FileIdentity, OpenOptions};
pub use metadata::look_at_lock;
pub use options::{
    DEFAULT_CALLER_RINGS, DEFAULT_DRAIN_TIMEOUT, DEFAULT_REGISTERED_BUFFERS, DEFAULT_RING_ENTRIES,
    DEFAULT_RING_THREADS, DiskOptions,
};
pub use priority::{give_way, take_turns_of};
pub use probe::PROBE_PREFIX;
pub use report::{BackendChoice, BackendReport, LimitsReport, MappingReport, UnknownBackend};
pub use request::{Completed, IoBuffer, OnComplete, Operation, Request};
pub use select::open_disk;
pub use stats::IoStats;
pub use threads::at_once;
pub use wakes::wake_later;
