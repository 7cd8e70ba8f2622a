//! What the integration, crash and scale tests of Nephrite share: vectors that tell who they are,
//! stores in temporary directories, damage, crash children and the surroundings of a process.
//!
//! The tests themselves are one binary, `tests/it`, with a module per subject:
//!
//! | module | subject |
//! |---|---|
//! | `seed_lists` | storing, reading, updating, deleting, batches, restart, several databases |
//! | `recovery` | logs that took a turn: recycled, resized, torn, crashed over and over |
//! | `seed_crashes` | what is left after a crash, from images and killed children |
//! | `seed_scale` | large data sets and memory pressure |
//! | `kill_focus` | SIGKILL in the middle of a flush, compaction, recycling, drop, close |
//! | `many_databases` | ten thousand databases with few files and little memory |
//! | `kill_loop` | rounds of SIGKILL at random moments over mixed writes |
//! | `power_cut` | the same, on a disk that loses what was not synced |
//! | `damage` | truncated, emptied, removed, swapped and flipped files of each kind |
//! | `surroundings` | no permission, full disk, second process, few file descriptors |
//! | `refused` | memory that cannot be had, panics with a vector in hand |
//! | `concurrency` | executors, group commit, dropped futures, snapshots, close |
//! | `model` | random operations against a model in memory |
//! | `fuzzing` | the corpora and findings of the fuzz targets, replayed |
//!
//! # Scale
//!
//! `cargo test -p nephrite-tests` takes small counts where the full ones need minutes without
//! optimisation. `NEPHRITE_TEST_SCALE=full` runs the full counts; it is meant for
//! `cargo test -p nephrite-tests --profile checked` (optimised, assertions on). See [`Scale`].
//! `NEPHRITE_TEST_SEED=<number>` replaces the seeds of random tests; a failing test prints its own.
//!
//! Some tests need root (mounts, another user). Without it they print `SKIPPED` with the reason.
//! Nothing here waits for time to pass: tests wait for pipes, counters and threads.

pub mod crash;
pub mod damage;
pub mod directories;
pub mod focus;
pub mod fuzzing;
pub mod history;
pub mod log_frames;
#[cfg(all(target_os = "linux", feature = "power-cut"))]
pub mod power_cut;
pub mod process;
mod scale;
mod stores;
mod vectors;

pub use scale::{Scale, rounds, seed};
pub use stores::{new_store, roomy, small};
pub use vectors::{Stamp, assert_vector, read_stamp, same_bits, vector};
