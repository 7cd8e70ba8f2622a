//! A disk whose power can be cut: a FUSE file system that keeps what was synced and forgets what
//! was not, under the real engine with its threads, rings, mappings and system calls.
//!
//! ```text
//! Image --PowerCutDisk::mount--> a child works on it --cut--> Image, less what was not synced
//! ```
//!
//! The simulation asks the same of the engine on one thread; here nothing below the engine is
//! ours. Model: every change waits until the file or the directory it belongs to is synced, or it
//! was a write with `O_DSYNC`. The cut comes before a chosen change and is the same for all
//! threads. Then each change that waits is kept, lost, or torn between sectors of 512 bytes,
//! whatever happened to the ones before it; a new file may be there without its bytes, its bytes
//! may be there without its name. A rename within a directory is there or not; one into another
//! directory is refused (`EXDEV`), since the model has no atomic one.
//!
//! Assumed: as in `docs/testing.md`, what a sync promises is kept. `syncfs` does not reach file
//! systems in user space and counts for nothing here; nothing in the engine calls it.
//!
//! No part of libfuse is needed, but `/dev/fuse` and the right to mount.
//! Tested by `tests/tests/it/power_cut.rs`.

mod disk;
mod image;
mod tree;

pub use disk::PowerCutDisk;
pub use image::Image;
pub use tree::Losses;
