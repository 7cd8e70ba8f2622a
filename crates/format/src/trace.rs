//! Trace files: what was read of which page, in the order of reading.
//!
//! A header page, then blocks of 4096 bytes with up to [`READS_PER_BLOCK`] reads each and a
//! checksum of their own, so that a trace that was cut off is good up to the cut. A trace belongs
//! to no store's directory and opening a store never reads it; `nephrite cache-replay` does.
//! `docs/format.md` has the tables. Tested here: round trip, every flipped bit, foreign bytes.

use crate::checksum::{PageIdentity, page_checksum};
use crate::cursor::{u32_at, u64_at};
use crate::error::{FormatError, Result};
use crate::ids::{FileId, Generation, StoreId};
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64};

/// The first eight bytes of a trace.
pub const TRACE_MAGIC: [u8; 8] = *b"\x89NPT\r\n\x1a\n";

/// The newest version of the trace format.
pub const TRACE_VERSION: u32 = 1;

/// Reads in a full block.
pub const READS_PER_BLOCK: usize = (BLOCK_BYTES - BLOCK_HEAD_BYTES) / READ_BYTES;

const BLOCK_HEAD_BYTES: usize = 16;
const READ_BYTES: usize = 16;
const CHECKSUM_OFFSET: usize = BLOCK_BYTES - 8;
const PAGE_UNITS_MAX: u8 = 16;

/// One read: which part of which page.
#[expect(clippy::exhaustive_structs, reason = "a plain record of the format")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceRead {
    /// The file, numbered in the order of opening.
    pub file: u32,
    /// The page in the file.
    pub page: u32,
    /// Where in the page what was read begins, in units of 64 bytes.
    pub start: u16,
    /// How long it is, in units of 64 bytes.
    pub length: u16,
    /// The length of the page in units of 4096 bytes, 1 to 16.
    pub page_units: u8,
}

/// The header page of a trace of a store.
#[must_use]
pub fn encode_header(store: StoreId) -> Vec<u8> {
    let mut page = vec![0; BLOCK_BYTES];
    page[..8].copy_from_slice(&TRACE_MAGIC);
    page[8..12].copy_from_slice(&TRACE_VERSION.to_le_bytes());
    page[16..32].copy_from_slice(&store.get());
    let checksum = page_checksum(identity(store, 0), &page[..CHECKSUM_OFFSET]);
    page[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// The store that a trace was taken of, from its header page.
///
/// # Errors
/// `Corrupt` for bytes that are no trace or were changed; `VersionUnsupported` for a newer one.
pub fn decode_header(page: &[u8], file: &str) -> Result<StoreId> {
    if page.len() < BLOCK_BYTES || page[..8] != TRACE_MAGIC {
        return Err(FormatError::corrupt(file, 0, "this is no trace of page reads"));
    }
    let version = u32_at(page, 8);
    if TRACE_VERSION < version {
        let (file, newest) = (file.to_owned(), TRACE_VERSION);
        return Err(FormatError::VersionUnsupported { file, found: version, newest });
    }
    let store: [u8; 16] = page[16..32].try_into().expect("sixteen bytes");
    let store = StoreId::new(store);
    let stored = u64_at(page, CHECKSUM_OFFSET);
    let computed = page_checksum(identity(store, 0), &page[..CHECKSUM_OFFSET]);
    if stored != computed {
        let offset = CHECKSUM_OFFSET as u64;
        return Err(FormatError::checksum(file, offset, "the trace's header", stored, computed));
    }
    Ok(store)
}

/// A block of at most [`READS_PER_BLOCK`] reads at `offset`, before which `dropped` were lost.
///
/// # Panics
/// When there are more reads than fit.
#[must_use]
pub fn encode_block(store: StoreId, offset: u64, reads: &[TraceRead], dropped: u32) -> Vec<u8> {
    assert!(reads.len() <= READS_PER_BLOCK, "{} reads in a block", reads.len());
    let mut block = vec![0; BLOCK_BYTES];
    let count = u16::try_from(reads.len()).expect("at most 255");
    block[8..10].copy_from_slice(&count.to_le_bytes());
    block[12..16].copy_from_slice(&dropped.to_le_bytes());
    for (bytes, read) in block[BLOCK_HEAD_BYTES..].chunks_exact_mut(READ_BYTES).zip(reads) {
        bytes[0..4].copy_from_slice(&read.file.to_le_bytes());
        bytes[4..8].copy_from_slice(&read.page.to_le_bytes());
        bytes[8..10].copy_from_slice(&read.start.to_le_bytes());
        bytes[10..12].copy_from_slice(&read.length.to_le_bytes());
        bytes[12] = read.page_units;
    }
    let checksum = page_checksum(identity(store, offset), &block[8..]);
    block[..8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// Decodes the block at `offset`: appends its reads, returns how many were lost before it.
///
/// # Errors
/// `Corrupt` for bytes that are not a block of this trace at this place.
pub fn decode_block(
    block: &[u8],
    store: StoreId,
    offset: u64,
    file: &str,
    reads: &mut Vec<TraceRead>,
) -> Result<u32> {
    let corrupt = |at: usize, what: String| FormatError::corrupt(file, offset + at as u64, what);
    if block.len() < BLOCK_BYTES {
        return Err(corrupt(block.len(), format!("a block of {} bytes", block.len())));
    }
    let (stored, block) = (u64_at(block, 0), &block[..BLOCK_BYTES]);
    let computed = page_checksum(identity(store, offset), &block[8..]);
    if stored != computed {
        return Err(FormatError::checksum(file, offset, "the block", stored, computed));
    }
    let count = usize::from(u16_at(block, 8));
    if READS_PER_BLOCK < count {
        return Err(corrupt(8, format!("{count} reads in a block")));
    }
    for index in 0..count {
        let at = BLOCK_HEAD_BYTES + index * READ_BYTES;
        let read = decode_read(&block[at..at + READ_BYTES]);
        if !(1..=PAGE_UNITS_MAX).contains(&read.page_units) {
            return Err(corrupt(at + 12, format!("a page of {} units", read.page_units)));
        }
        reads.push(read);
    }
    Ok(u32_at(block, 12))
}

fn decode_read(bytes: &[u8]) -> TraceRead {
    TraceRead {
        file: u32_at(bytes, 0),
        page: u32_at(bytes, 4),
        start: u16_at(bytes, 8),
        length: u16_at(bytes, 10),
        page_units: bytes[12],
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// A trace is no file of the store: it has number 0, which no file of a store has.
const fn identity(store: StoreId, offset: u64) -> PageIdentity {
    PageIdentity::new(store, FileId::new(0), Generation::new(0), offset)
}

/// The offset of a block, counted from 0.
#[must_use]
pub const fn block_offset(index: u64) -> u64 {
    (index + 1) * BLOCK_BYTES_U64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId::new([7; 16]);

    fn reads(count: usize) -> Vec<TraceRead> {
        let read = |page| TraceRead { file: 3, page, start: 8, length: 4, page_units: 16 };
        (0..).map(read).take(count).collect()
    }

    fn decode(block: &[u8], offset: u64) -> Result<(Vec<TraceRead>, u32)> {
        let mut reads = Vec::new();
        let dropped = decode_block(block, STORE, offset, "trace", &mut reads)?;
        Ok((reads, dropped))
    }

    #[test]
    fn a_trace_is_read_back() {
        assert_eq!(decode_header(&encode_header(STORE), "trace").unwrap(), STORE);
        for count in [0, 1, READS_PER_BLOCK] {
            let block = encode_block(STORE, block_offset(4), &reads(count), 9);

            assert_eq!(decode(&block, block_offset(4)).unwrap(), (reads(count), 9));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (header, block) = (encode_header(STORE), encode_block(STORE, 4096, &reads(3), 0));
        for bit in 0..8 * BLOCK_BYTES {
            let flip = |bytes: &[u8]| {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                flipped
            };
            assert!(decode_header(&flip(&header), "trace").is_err(), "bit {bit}");
            assert!(decode(&flip(&block), 4096).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn blocks_elsewhere_and_cut_off_are_refused() {
        let block = encode_block(STORE, 4096, &reads(3), 0);

        assert!(decode(&block, 8192).is_err());
        assert!(decode(&block[..4095], 4096).is_err() && decode(&[], 4096).is_err());
        assert!(decode_header(&block, "trace").is_err() && decode_header(&[], "trace").is_err());
    }

    #[test]
    fn a_page_of_no_size_is_refused_even_if_the_checksum_holds() {
        let mut wrong = reads(1);
        wrong[0].page_units = 17;
        let error = decode(&encode_block(STORE, 4096, &wrong, 0), 4096).unwrap_err();

        assert!(error.to_string().contains("17 units"), "{error}");
    }

    #[test]
    fn a_newer_trace_is_named_as_such() {
        let mut header = encode_header(STORE);
        header[8] = 2;

        let error = decode_header(&header, "trace").unwrap_err();

        assert!(matches!(error, FormatError::VersionUnsupported { found: 2, newest: 1, .. }));
    }
}
