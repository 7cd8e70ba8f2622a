//! Mending a page with one flipped bit, by its checksum.
//!
//! A checksum says that a page is wrong and not where. But a page has few enough bits to try: each
//! is flipped in turn, and when exactly one of these pages has the checksum that was stored, that
//! page is what was written. A flipped bit of the checksum itself leaves the page as it is.
//!
//! Guarantee: what is given back has its checksum for its place, like every page that is believed.
//! A page with more damage than one bit is taken for another one with probability 2^-49 (2^15
//! attempts at a checksum of 64 bits). Time: 32,704 checksums of a block, about 10 ms; callers that
//! meet many damaged pages limit how many they try.
//!
//! Not here: larger pages, for which the square of their size is too much; more than one bit.
//! Tested here and by `tests/it/repair*` of the workspace.

use crate::checksum::{PageIdentity, page_checksum};
use crate::cursor::u64_at;
use crate::header::FileHeader;
use crate::ids::{FileId, Generation, StoreId};
use crate::{BLOCK_BYTES, FORMAT_VERSION};

const CHECKSUM_OFFSET: usize = BLOCK_BYTES - 8;
const STORE_AT: usize = 24;
const FILE_AT: usize = 40;
const GENERATION_AT: usize = 48;
/// Where a header page says whose it is; its checksum is seeded by these bytes.
const IDENTITY_BYTES: std::ops::Range<usize> = STORE_AT..56;

/// The page as it was written, when one bit of it or of `stored`, its checksum, was flipped.
///
/// `None` also for a page that is longer than a block.
#[must_use]
pub fn mend_page(page: &[u8], stored: u64, identity: PageIdentity) -> Option<Vec<u8>> {
    if BLOCK_BYTES < page.len() {
        return None;
    }
    if (page_checksum(identity, page) ^ stored).count_ones() <= 1 {
        return Some(page.to_vec());
    }
    the_one_flip(page, |page, _| page_checksum(identity, page) == stored)
}

/// A page with its checksum in the last eight bytes: a footer, a page of a checksum table.
#[must_use]
pub fn mend_sealed(page: &[u8], identity: PageIdentity) -> Option<Vec<u8>> {
    let page: &[u8; BLOCK_BYTES] = page.try_into().ok()?;
    let stored = u64_at(page, CHECKSUM_OFFSET);
    let mut mended = mend_page(&page[..CHECKSUM_OFFSET], stored, identity)?;
    let checksum = page_checksum(identity, &mended);
    mended.extend_from_slice(&checksum.to_le_bytes());
    Some(mended)
}

/// A header page. Whose file it is stands in the page itself, so nothing else is needed; the
/// caller compares it with what was looked for.
#[must_use]
pub fn mend_header(page: &[u8]) -> Option<Vec<u8>> {
    let page: &[u8; BLOCK_BYTES] = page.try_into().ok()?;
    let stored = u64_at(page, CHECKSUM_OFFSET);
    let own = header_identity(page);
    let mended = if (page_checksum(own, &page[..CHECKSUM_OFFSET]) ^ stored).count_ones() <= 1 {
        page[..CHECKSUM_OFFSET].to_vec()
    } else {
        the_one_flip(&page[..CHECKSUM_OFFSET], |page, at| {
            let identity = if IDENTITY_BYTES.contains(&at) { header_identity(page) } else { own };
            page_checksum(identity, page) == stored
        })?
    };
    let checksum = page_checksum(header_identity(&mended), &mended);
    let whole = [&mended[..], &checksum.to_le_bytes()].concat();
    let is_known = crate::cursor::u32_at(&whole, 8) <= FORMAT_VERSION;
    (is_known && FileHeader::decode(&whole, "").is_ok()).then_some(whole)
}

/// The page with the only flip that `holds`, which is also told the byte that was changed.
fn the_one_flip(page: &[u8], holds: impl Fn(&[u8], usize) -> bool) -> Option<Vec<u8>> {
    let mut tried = page.to_vec();
    let mut found = None;
    for at in 0..page.len() {
        for bit in 0..8 {
            tried[at] ^= 1 << bit;
            let is_it = holds(&tried, at);
            tried[at] ^= 1 << bit;
            if is_it && found.replace((at, bit)).is_some() {
                return None;
            }
        }
    }
    let (at, bit) = found?;
    tried[at] ^= 1 << bit;
    Some(tried)
}

fn header_identity(page: &[u8]) -> PageIdentity {
    let store = page[STORE_AT..FILE_AT].first_chunk().expect("sixteen bytes");
    let file = FileId::new(u64_at(page, FILE_AT));
    PageIdentity::new(StoreId::new(*store), file, Generation::new(u64_at(page, GENERATION_AT)), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileDetail;

    const STEP: usize = if cfg!(miri) { 4001 } else { 211 };

    fn identity() -> PageIdentity {
        PageIdentity::new(StoreId::new([1; 16]), FileId::new(2), Generation::new(3), 8192)
    }

    fn sealed() -> Vec<u8> {
        let mut page: Vec<u8> = (0..4088_u32).map(|at| (at * at).to_le_bytes()[1]).collect();
        let checksum = page_checksum(identity(), &page);
        page.extend_from_slice(&checksum.to_le_bytes());
        page
    }

    fn header() -> Vec<u8> {
        let detail = FileDetail::Wal { position: 9, segment_bytes: 1 << 26 };
        let (store, file) = (StoreId::new([7; 16]), FileId::new(4));
        FileHeader { store, file, generation: Generation::new(9), detail }.encode().to_vec()
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of checksums each")]
    fn any_one_bit_of_a_sealed_page_is_mended() {
        let whole = sealed();
        for at in (0..BLOCK_BYTES).step_by(STEP).chain([4087, 4088, 4095]) {
            let mut page = whole.clone();
            page[at] ^= 1 << (at % 8);
            assert_eq!(mend_sealed(&page, identity()), Some(whole.clone()), "byte {at}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of checksums each")]
    fn any_one_bit_of_a_header_is_mended_its_identity_included() {
        let whole = header();
        for at in (0..BLOCK_BYTES).step_by(STEP).chain([0, 8, 24, 39, 40, 48, 130, 4088, 4095]) {
            let mut page = whole.clone();
            page[at] ^= 1 << (at % 8);
            assert_eq!(mend_header(&page), Some(whole.clone()), "byte {at}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of checksums each")]
    fn two_flipped_bits_are_not_mended() {
        let mut page = sealed();
        page[100] ^= 1;
        page[3000] ^= 4;
        assert_eq!(mend_sealed(&page, identity()), None);
        let mut page = header();
        page[100] ^= 1;
        page[130] ^= 4;
        assert_eq!(mend_header(&page), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of checksums each")]
    fn a_page_of_another_place_is_not_mended() {
        assert_eq!(mend_sealed(&sealed(), identity().at(4096)), None);
    }

    #[test]
    fn a_page_whose_stored_checksum_lost_a_bit_is_given_back_as_it_is() {
        let page = [5_u8; 4096];
        let stored = page_checksum(identity(), &page);
        assert_eq!(mend_page(&page, stored ^ 64, identity()), Some(page.to_vec()));
        assert_eq!(mend_page(&page, stored, identity()), Some(page.to_vec()));
    }

    #[test]
    fn pages_of_other_lengths_are_refused() {
        assert_eq!(mend_page(&[0; 8192], 1, identity()), None);
        assert_eq!(mend_sealed(&[0; 100], identity()), None);
        assert_eq!(mend_header(&[]), None);
    }
}
