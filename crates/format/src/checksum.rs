//! Checksums: XXH3-64 with a seed made from the identity of what is protected.
//!
//! `seed = XXH3-64(store id ‖ file id ‖ generation ‖ byte offset)`, 40 bytes, integers
//! little-endian; `checksum = XXH3-64(bytes, seed)`. XXH3 is specified in the xxHash repository
//! (`doc/xxhash_spec.md`, the XXH3 part) and its output is frozen since version 0.8.0.
//!
//! Found: flipped bits, torn and stale pages, pages written to or read from the wrong offset,
//! file or store, frames of an earlier life of a recycled file. One random change in 2^64 passes.
//! Not found: deliberate forgery (the hash is not cryptographic; that is what the room for an
//! authentication tag in the header is for).

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use crate::ids::{FileId, Generation, StoreId};

const IDENTITY_BYTES: usize = 40;

/// Which bytes a checksum speaks about: the place they were written to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageIdentity {
    /// The store.
    pub store: StoreId,
    /// The file within the store.
    pub file: FileId,
    /// Which life of the file.
    pub generation: Generation,
    /// Byte offset in the file of the first protected byte. A byte offset and not a page number,
    /// so that pages of different sizes in one file never share an identity.
    pub offset: u64,
}

impl PageIdentity {
    /// The bytes at `offset` of one life of a file.
    #[must_use]
    pub const fn new(store: StoreId, file: FileId, generation: Generation, offset: u64) -> Self {
        Self { store, file, generation, offset }
    }

    /// The same file at another offset.
    #[must_use]
    pub const fn at(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    fn seed(self) -> u64 {
        let mut bytes = [0_u8; IDENTITY_BYTES];
        bytes[0..16].copy_from_slice(&self.store.get());
        bytes[16..24].copy_from_slice(&self.file.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        xxh3_64(&bytes)
    }
}

/// Checksum of bytes at the place that `identity` names.
#[must_use]
pub fn page_checksum(identity: PageIdentity, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, identity.seed())
}

/// Checksum of the rows of a bulk record, fed piece by piece; how the rows are cut into pieces
/// makes no difference.
///
/// The identity is that of the first row: the segment file and the byte offset of that row in it
/// ([`crate::VectorLayout::row_offset`]). Fed are the `dimension * element` bytes of each row in
/// row order, without the padding between rows and pages.
#[derive(Clone)]
pub struct RowsChecksum(Xxh3);

impl RowsChecksum {
    /// Starts at the row that `identity` places.
    #[must_use]
    pub fn new(identity: PageIdentity) -> Self {
        Self(Xxh3::with_seed(identity.seed()))
    }

    /// Adds bytes of one or more rows.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of everything fed so far.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}

impl fmt::Debug for RowsChecksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RowsChecksum({:#018x})", self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> PageIdentity {
        PageIdentity::new(StoreId::new([1; 16]), FileId::new(2), Generation::new(3), 4096)
    }

    #[test]
    fn every_part_of_the_identity_counts() {
        let bytes = [5_u8; 4096];
        let own = page_checksum(identity(), &bytes);
        let others = [
            PageIdentity { store: StoreId::new([9; 16]), ..identity() },
            PageIdentity { file: FileId::new(4), ..identity() },
            PageIdentity { generation: Generation::new(4), ..identity() },
            identity().at(8192),
        ];
        for other in others {
            assert_ne!(page_checksum(other, &bytes), own, "{other:?}");
        }
    }

    #[test]
    fn streaming_equals_one_call_however_it_is_cut() {
        let length: u32 = if cfg!(miri) { 1100 } else { 10_000 };
        let bytes: Vec<u8> = (0..length).map(|index| index.to_le_bytes()[0]).collect();
        let whole = page_checksum(identity(), &bytes);
        let pieces = [1, 7, 64, 255, 256, 257, 1024, 9_999];
        for piece in pieces.into_iter().skip(if cfg!(miri) { 5 } else { 0 }) {
            let mut rows = RowsChecksum::new(identity());
            bytes.chunks(piece).for_each(|chunk| rows.update(chunk));
            assert_eq!(rows.finish(), whole, "pieces of {piece}");
        }
    }

    /// The hash must be XXH3 itself and not merely consistent: values of the reference
    /// implementation for the empty input.
    #[test]
    fn hash_is_xxh3() {
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(xxh3_64_with_seed(b"", 0x9e37_79b1_85eb_ca8d), 0xa8a6_b918_b2f0_364a);
    }
}
