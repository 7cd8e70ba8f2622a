//! Vector segments: immutable files of rows and the ids that name them.
//!
//! | file | concept |
//! |---|---|
//! | `sink` | the file while it is being written |
//! | `id_pages` | the id pages while they are being written |
//! | `seal` | everything behind the rows: id run, fences, checksum table, footer |
//! | `filter_memory` | what large filters lie in |
//! | `memory_index` | fences and filters, and the memory they take |
//! | `seen_ids` | which ids flushes wrote, over all segments |
//! | `traffic` | how much of that may be in flight while readers wait for the disk |
//! | `work_memory` | what flushes and compactions hold while they run |
//! | `reader` | an open segment: from ids to rows |
//! | `garbage` | files that nobody reads any more, for whoever removes them |
//! | `live_rows` | how many of its rows are not garbage, and which are |
//! | `row_set` | some rows of a segment, a bit for each |
//! | `vectors` | from rows to vectors |
//! | `pages` | from page numbers to pinned, verified pages |
//! | `prefetch` | many pages at once |
//! | `bulk` | consecutive pages in one transfer, ahead of a scan |
//! | `ahead` | the memory of those |
//! | `bypass` | reads past the cache, when no frame can be had |

mod ahead;
mod bulk;
mod bypass;
mod filter_memory;
mod garbage;
pub(crate) mod id_pages;
mod live_rows;
mod memory_index;
#[cfg(test)]
mod no_frame;
mod pages;
mod prefetch;
pub(crate) mod reader;
pub(crate) mod row_set;
pub(crate) mod seal;
mod seen_ids;
pub(crate) mod sink;
pub(crate) mod traffic;
mod vectors;
pub(crate) mod work_memory;

pub(crate) use self::{
    ahead::{AheadMemory, AheadRoom},
    bulk::{BulkPages, BulkRead, bulk_pages},
    garbage::Garbage,
    live_rows::LiveRows,
    memory_index::MetadataMemory,
    pages::Purpose,
    prefetch::{prefetch_id_pages, prefetch_vector_pages},
    reader::{ReadContext, Segment},
    seal::IdSummary,
    seen_ids::{Seen, SeenGeneration, SeenIds},
    traffic::PIECE_BYTES,
    vectors::LastCopied,
    work_memory::WorkMemory,
};
