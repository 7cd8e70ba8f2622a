//! The end of a sealed segment: checksum table and footer.
//!
//! ```text
//! header page | vector pages | id pages | fence pages | filter | checksum table | footer page
//! ```
//!
//! Sections lie back to back in the order of the footer's section table, from offset 4096 to the
//! footer. The checksum table has one checksum for every page of every section but itself, in
//! the order of the section table; its own pages and the footer carry their checksum at their end.
//!
//! A section of unknown kind is skipped when it is marked optional and refused when it is marked
//! required, so that later versions can add data without changing the format version.

mod checksum_table;
mod footer;
mod section;

pub use checksum_table::{
    CHECKSUMS_PER_PAGE, ChecksumTablePage, checksum_position, checksum_table_pages,
    encode_checksum_table,
};
pub(crate) use footer::FOOTER_MAGIC;
pub use footer::{MAX_SECTIONS, RowOrder, SegmentFooter, SegmentSummary};
pub use section::{Section, SectionKind};
