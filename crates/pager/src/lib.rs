//! The page cache of Nephrite: a bounded number of bytes in which pages of immutable files lie.
//!
//! - A **hit** is a table entry, one addition and a comparison: no lock, no copy, no allocation, no
//!   system call. The [`PageGuard`] it returns dereferences to the bytes and keeps them in place.
//! - A **miss** is answered with the duty to load: the first getter gets a [`Load`] with the
//!   frame's own memory as buffer, all later ones a [`LoadWait`]. A failed load is never cached.
//! - The **limit** holds: all frames lie in one arena of fixed size. When too much of it is pinned
//!   or loading, a look-up answers [`Lookup::Bypass`]: read this page past the cache; or, when too
//!   many do that already, [`Lookup::Full`], and says when to look again.
//!
//! ```
//! use nephrite_pager::{Lookup, Pager, PagerConfig};
//!
//! let pager = Pager::new(PagerConfig::new(1 << 20))?;
//! let file = pager.open_file(8192, 100)?;
//! let Lookup::Load(mut load) = file.get(7) else { panic!("nothing is resident yet") };
//! let wait = load.wait();
//! let mut buffer = load.take_buffer();
//! buffer.fill(7); // Here a real loader submits a read, and completes the load when it is done.
//! load.complete(buffer, Ok(()));
//! let page = pollster::block_on(wait)?;
//! assert_eq!(page[8191], 7);
//! assert!(matches!(file.get(7), Lookup::Hit(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate does no I/O. Of `nephrite-io` it uses the memory types only.
//! [`snapshot`] holds the publication cell of the engine and [`RowTable`] its memory of rows found
//! lately, which share the rules of this crate on concurrency and model checking.

mod budget;
mod bypass;
mod clock;
mod config;
mod error;
mod extents;
mod file;
mod file_keys;
mod frame;
mod frame_array;
mod frame_memory;
mod frame_state;
mod frame_wait;
mod frequency;
mod ghosts;
mod guard;
mod hit_counter;
mod load;
mod load_table;
mod page_table;
mod pager;
mod part;
mod planted;
mod policy;
pub mod replay;
mod retention;
mod row_table;
mod s3_fifo;
mod scan_queue;
mod shared;
mod slots;
pub mod snapshot;
mod stats;
mod sync;
mod trace;
mod word_array;

#[cfg(test)]
#[cfg(loom)]
mod loom_models;

pub use bypass::Bypass;
pub use config::{LARGEST_PAGE_BYTES, PagerConfig};
pub use error::{LoadError, PagerError};
pub use file::{CachedFile, Lookup};
pub use frame_wait::FrameWait;
pub use guard::PageGuard;
pub use load::{Load, LoadWait};
pub use pager::Pager;
pub use policy::CachePolicy;
pub use row_table::{BYTE_ID_MAX, FoundRow, Places, RowTable};
pub use stats::{ClassStats, PagerStats};
pub use trace::{PageRead, TRACE_UNIT_BYTES, TraceRecorder};
