//! A deterministic disk: virtual time, any order of completion, crashes at any call, and faults.
//!
//! ```
//! use nephrite_io::memory::AlignedBuf;
//! use nephrite_io::sim::{Fate, SimDisk, SimOptions};
//! use nephrite_io::{Disk, OpenOptions, sync, write};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (path, disk) = (Path::new("blocks"), SimDisk::new(SimOptions::new(7)));
//! let options = OpenOptions::read_write().create_new();
//! let file = disk.block_on(disk.open(path, options)).expect("the machine runs")?;
//! let mut block = AlignedBuf::zeroed(4096)?;
//! block.fill(7);
//! disk.block_on(write(&disk, &file, 0, block.into())).expect("the machine runs")?;
//! disk.block_on(sync(&disk, &file)).expect("the machine runs")?;
//!
//! // The bytes are durable; the name is not, since nobody synced the directory.
//! let crash = disk.crash();
//! assert_eq!(crash.pending(), 1);
//! assert_eq!(crash.image(&[Fate::Lost]).file(path), None);
//! assert_eq!(crash.image(&[Fate::Kept]).file(path), Some(vec![7; 4096]));
//! # Ok(())
//! # }
//! ```
//!
//! | file | what |
//! |---|---|
//! | `disk`, `options` | the [`crate::Disk`], how it is driven, how it behaves |
//! | `machine` | the queue of system calls and what each does |
//! | `storage` | what is visible, durable, and pending in between |
//! | `crash` | what a crash may leave |
//! | `fault` | what can go wrong, and when |
//! | `image`, `content` | whole disks as values that share their bytes |
//! | `random`, `trace` | chance by seed, and the proof that two runs did the same |
//!
//! Assumed of a real disk: a sync that succeeds keeps what was written before it was asked for,
//! and a sector that nobody writes to does not change. Everything else may go wrong here.

mod content;
mod crash;
mod disk;
mod fault;
mod image;
mod machine;
mod off;
mod options;
mod random;
mod room;
mod storage;
mod trace;

pub use crash::{CrashState, Fate, Scope};
pub use disk::SimDisk;
pub use fault::{Errno, Fault, FaultPlan, FaultRule, Repeat};
pub use image::Image;
pub(crate) use machine::SimFile;
pub use machine::{SimClock, Stepped};
pub use options::SimOptions;
pub use random::SimRandom;
pub use trace::{TraceEvent, TraceHash};
