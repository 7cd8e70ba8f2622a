//! Nephrite: an embedded, asynchronous storage engine for vectors.
//!
//! A [`Store`] is a directory of databases; a [`Database`] holds vectors of one dimension under
//! `u64` or byte-string ids. One bounded page cache of our own serves all of them; io_uring does
//! the I/O on Linux, positional I/O elsewhere or where io_uring is blocked
//! ([`Store::backend_report`] says which and why).
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nephrite::{Config, DatabaseOptions, Durability, blocking};
//!
//! let directory = tempfile::tempdir()?;
//! let store = blocking::Store::create(directory.path(), Config::default())?;
//! let images = store.create_database("images", DatabaseOptions::new(3))?;
//! images.put(7, &[0.1, 0.2, 0.3])?; // durable at the next flush
//! images.put_with(8, &[1.0, 0.0, 0.0], Durability::Synced)?; // durable now
//! let vector = images.get(7)?.expect("it was just stored");
//! assert_eq!(&vector[..], &[0.1, 0.2, 0.3]);
//! drop(vector);
//! store.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Async and blocking
//!
//! The types at the crate root are async and need no particular executor: futures are `Send` and
//! wake from the engine's own threads. [`blocking`] has the same names for threads.
//!
//! # Durability
//!
//! [`Durability::Buffered`] writes are durable at the next flush, [`Durability::Synced`] ones when
//! they are acknowledged; writers that wait at the same time share one sync. Every write is wholly
//! there after a crash or wholly absent.
//!
//! # Bytes from disk are input
//!
//! Every page is verified against a checksum that also covers its place before anyone sees it.
//! Damage is an [`Error::Corrupt`] that names file and offset.
//!
//! # Features
//!
//! - `signals` (off by default): `ShutdownSignals`, which closes stores on SIGTERM and SIGINT.
//!
//! - `metrics` (off by default): `metric::Facade`, which hands figures to the `metrics` facade.
//!
//! # Watching it
//!
//! [`Store::stats`] and [`Database::stats`] are plain numbers; [`metric`] names each for a
//! recorder. `tracing` spans: `open`, `recover`, `flush`, `compact`, `close`; none per read or
//! write.
//!
//! # Broken invariants
//!
//! What can go wrong while operating is an [`Error`]. A panic on one of the engine's own threads is
//! a bug that could acknowledge what is not there: it aborts the process.
#![forbid(unsafe_code)]

mod batch;
pub mod blocking;
mod compaction;
pub mod config;
mod core;
mod database;
mod directory;
mod error;
mod files;
mod flush;
mod jobs;
mod known_rows;
mod loan;
mod log_file;
mod lookup;
mod manifest;
mod memtable;
pub mod metric;
mod opening;
mod paths;
mod planted;
mod recovery;
mod relief;
pub mod repair;
pub mod replay;
mod reserve;
mod resident;
pub mod runtime;
mod scan;
mod segment;
mod service;
#[cfg(feature = "signals")]
pub mod signals;
mod snapshot;
mod stats;
mod store;
mod together;
mod trace;
mod vector;
mod verify;
mod version;
mod wal;
mod write;

pub use nephrite_format::inspect;
pub use nephrite_format::{ElementType, Id, IdKind, IdRef, MAX_ID_BYTES, layout::MAX_DIMENSION};
pub use nephrite_io::{
    BackendChoice, BackendReport, Disk, DiskOptions, IoError, IoErrorKind, IoStats, LimitsReport,
    MappingReport, open_disk,
};

pub use nephrite_pager::CachePolicy;

pub use crate::{
    batch::{Batch, Ids},
    config::{Config, DatabaseOptions, Durability, Profile, Settings},
    database::Database,
    error::Error,
    scan::Scan,
    snapshot::Snapshot,
    stats::{DatabaseStats, StoreStats},
    store::{DROP_WAIT, DatabaseInfo, Store},
    vector::VectorRef,
    verify::{Damage, VerifyOptions, VerifyProgress, VerifyReport},
};

/// What `blocking` does with its writes, for the simulation, which cannot block.
#[doc(hidden)]
pub use crate::wal::led;
