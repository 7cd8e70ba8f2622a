//! Benchmarks of Nephrite; the programs are in `src/bin`, one function each here.

mod clock;
mod cold;
mod device;
mod hot;
mod hot_rivals;
mod import;
mod io;
mod machine;
mod mapped;
mod npy;
mod open;
mod place;
mod report;
pub mod rivals;
mod rows;
mod space;
mod sustained;
mod synced;
mod table;
pub mod targets;
mod tasks;
mod zipf;

/// A benchmark ends with the first thing that goes wrong.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
