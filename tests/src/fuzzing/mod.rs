//! Drivers of the fuzz targets that need more than one crate: each takes arbitrary bytes, makes
//! a run of them, and returns unless a promise was broken.
//!
//! | driver | what the bytes are |
//! |---|---|
//! | [`store_ops`] | operations on two databases, each read checked against a model |
//! | [`store_crash`] | a fault, a crash, an image it leaves, and operations |
//! | [`open_store`] | damage to the files of a store |
//! | [`pager_ops`] | operations on a page cache |
//!
//! What must hold is said by each of them, and in `docs/fuzzing.md`.
//!
//! The targets in `fuzz/` and the replay in `tests/it/fuzzing` call the same functions. Everything
//! runs on the simulated disk and runtime, on one thread: the same bytes give the same run.
//!
//! Not here: single decoders (`nephrite_format::fuzzing`) and foreign files (in the program).

mod damage;
mod input;
mod machine;
mod model;
mod pager;
mod script;
mod seal;

pub use damage::open_store;
pub use pager::pager_ops;
pub use script::{store_crash, store_ops};

/// A fuzz target: its name and its driver.
pub type Target = (&'static str, fn(&[u8]));

/// The targets whose drivers are here.
pub const TARGETS: [Target; 4] = [
    ("open_store", open_store),
    ("pager_ops", pager_ops),
    ("store_crash", store_crash),
    ("store_ops", store_ops),
];
