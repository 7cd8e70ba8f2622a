//! `VectorRef`: a vector lent to the caller without a copy.
//!
//! It keeps alive what it points into: a pinned frame of the page cache, a chunk of a memtable,
//! what a scan has read in one transfer, or a copy of its own. The cast from bytes to `f32` happens
//! in [`as_f32`] and nowhere else.

use std::{fmt, ops::Deref, sync::Arc};

use nephrite_format::vector::decode_f32_vec;
use nephrite_io::memory::Chunk;
use nephrite_pager::PageGuard;

use crate::segment::BulkPages;

/// A stored vector; derefs to `&[f32]`.
///
/// It may be sent to other threads and held across an await. A vector that lies in the page cache
/// pins its page, one of a scan may keep what was read around it: hold only as many as are being
/// used, and copy what is kept (`to_vec`, [`VectorRef::into_owned`]). Its first element is 64-byte
/// aligned unless the vector was copied.
pub struct VectorRef(Inner);

enum Inner {
    Page { page: PageGuard, start: usize, len: usize },
    Memory { chunk: Arc<Chunk>, start: usize, len: usize },
    Bulk { pages: Arc<BulkPages>, start: usize, len: usize },
    Owned(Box<[f32]>),
}

impl VectorRef {
    /// The `len` bytes from `start` of a pinned page.
    #[inline]
    pub(crate) fn in_page(page: PageGuard, start: usize, len: usize) -> Self {
        assert!(start + len <= page.len(), "a row lies within its page");
        Self(Inner::Page { page, start, len }).in_host_order()
    }

    /// The `len` bytes from `start` of a memtable chunk.
    pub(crate) fn in_memory(chunk: Arc<Chunk>, start: usize, len: usize) -> Self {
        assert!(start + len <= chunk.committed(), "the index names only appended rows");
        Self(Inner::Memory { chunk, start, len }).in_host_order()
    }

    /// The `len` bytes from `start` of what was read in one transfer.
    #[inline]
    pub(crate) fn in_bulk(pages: Arc<BulkPages>, start: usize, len: usize) -> Self {
        assert!(start + len <= pages.bytes().len(), "a row lies within what was read");
        Self(Inner::Bulk { pages, start, len }).in_host_order()
    }

    /// A copy of the bytes of a vector.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self(Inner::Owned(decode_f32_vec(bytes).into()))
    }

    /// A copy that pins nothing.
    #[must_use]
    pub fn into_owned(self) -> Self {
        match self.0 {
            Inner::Owned(_) => self,
            _ => Self(Inner::Owned((*self).into())),
        }
    }

    /// Bytes on disk are little-endian; a big-endian host gets a converted copy.
    #[inline]
    fn in_host_order(self) -> Self {
        if cfg!(target_endian = "little") {
            return self;
        }
        Self::copied(self.bytes())
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Inner::Page { page, start, len } => &page[*start..*start + *len],
            Inner::Memory { chunk, start, len } => &chunk.bytes()[*start..*start + *len],
            Inner::Bulk { pages, start, len } => &pages.bytes()[*start..*start + *len],
            Inner::Owned(vector) => bytemuck::cast_slice(vector),
        }
    }
}

impl Deref for VectorRef {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        match &self.0 {
            Inner::Owned(vector) => vector,
            _ => as_f32(self.bytes()),
        }
    }
}

impl fmt::Debug for VectorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq<[f32]> for VectorRef {
    fn eq(&self, other: &[f32]) -> bool {
        **self == *other
    }
}

/// Rows are 64-byte aligned in pages that are 4096-byte aligned, and 4 bytes per element long.
#[inline]
fn as_f32(bytes: &[u8]) -> &[f32] {
    bytemuck::cast_slice(bytes)
}
