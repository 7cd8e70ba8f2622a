//! The checksum table: one 64-bit checksum per page, outside of the pages.
//!
//! A page of 4096 bytes holds 511 checksums and, in its last eight bytes, its own, seeded by its
//! place like every other.

use crate::checksum::{PageIdentity, page_checksum};
use crate::cursor::u64_at;
use crate::error::{FormatError, Result};
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64};

/// Checksums in one page of the table.
pub const CHECKSUMS_PER_PAGE: u32 = 511;

const OWN_OFFSET: usize = BLOCK_BYTES - 8;

/// Table pages for this many checksums.
#[must_use]
pub const fn checksum_table_pages(checksum_count: u32) -> u32 {
    checksum_count.div_ceil(CHECKSUMS_PER_PAGE)
}

/// Where checksum number `index` lies: table page, and position in it.
#[must_use]
pub const fn checksum_position(index: u32) -> (u32, u32) {
    (index / CHECKSUMS_PER_PAGE, index % CHECKSUMS_PER_PAGE)
}

/// The table pages for `checksums`; `identity` is that of the first table page.
#[must_use]
pub fn encode_checksum_table(checksums: &[u64], identity: PageIdentity) -> Vec<u8> {
    let page_count = checksums.len().div_ceil(CHECKSUMS_PER_PAGE as usize);
    let mut table = vec![0; page_count * BLOCK_BYTES];
    let chunks = checksums.chunks(CHECKSUMS_PER_PAGE as usize);
    let mut place = identity;
    for (page, chunk) in table.chunks_exact_mut(BLOCK_BYTES).zip(chunks) {
        for (field, checksum) in page.as_chunks_mut::<8>().0.iter_mut().zip(chunk) {
            *field = checksum.to_le_bytes();
        }
        let own = page_checksum(place, &page[..OWN_OFFSET]);
        page[OWN_OFFSET..].copy_from_slice(&own.to_le_bytes());
        place = place.at(place.offset + BLOCK_BYTES_U64);
    }
    table
}

/// A view of one verified table page.
#[derive(Clone, Copy, Debug)]
pub struct ChecksumTablePage<'a>(&'a [u8; BLOCK_BYTES]);

impl<'a> ChecksumTablePage<'a> {
    /// Checks the page's own checksum; `identity` is where it was read.
    ///
    /// # Errors
    /// `Corrupt` when length or checksum do not fit.
    pub fn verify(bytes: &'a [u8], identity: PageIdentity, file: &str) -> Result<Self> {
        let page = Self::assume_verified(bytes, identity.offset, file)?;
        let stored = u64_at(page.0, OWN_OFFSET);
        let computed = page_checksum(identity, &page.0[..OWN_OFFSET]);
        if stored != computed {
            let thing = "the checksum table page";
            return Err(FormatError::checksum(file, identity.offset, thing, stored, computed));
        }
        Ok(page)
    }

    /// The same view of a page that was verified before, when it was loaded.
    ///
    /// # Errors
    /// `Corrupt` when the length is not 4096.
    pub fn assume_verified(bytes: &'a [u8], offset: u64, file: &str) -> Result<Self> {
        <&[u8; BLOCK_BYTES]>::try_from(bytes).map(Self).map_err(|_| {
            let what = format!("the checksum table page has {} bytes", bytes.len());
            FormatError::corrupt(file, offset, what)
        })
    }

    /// The checksum at `position` of this page.
    ///
    /// # Panics
    /// When `position` is not below [`CHECKSUMS_PER_PAGE`].
    #[must_use]
    pub fn entry(&self, position: u32) -> u64 {
        assert!(position < CHECKSUMS_PER_PAGE, "checksum {position} of a table page");
        u64_at(self.0, 8 * position as usize)
    }
}
