//! One section of a segment as the footer lists it: what it holds, where, in pages of which size.
//!
//! A section that a reader does not know is either optional, and skipped, or refuses the file. A
//! decoded section is whole pages; that sections tile the file is for the footer to check.
//! Tested in `tests/it/segment`.

use crate::cursor::{Cursor, Writer};
use crate::error::{FormatError, Result};

/// Bytes of a section in the footer.
pub(super) const SECTION_BYTES: usize = 32;
/// Bytes of a page of every section but that of vectors.
pub(super) const BLOCK_U32: u32 = 4096;

const FLAG_REQUIRED: u16 = 1;

/// What a section holds.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SectionKind {
    /// Rows, laid out by [`VectorLayout`](crate::VectorLayout).
    VectorPages,
    /// Pages of the id run.
    IdPages,
    /// Fences of the id run.
    Fences,
    /// Checksums of the pages of all other sections.
    ChecksumTable,
    /// Filter of the ids; optional.
    Filter,
    /// A kind this build does not know and may skip. Kinds 16 payload and 18 quantized vectors are
    /// set aside.
    Optional(u16),
}

impl SectionKind {
    const fn code(self) -> u16 {
        match self {
            Self::VectorPages => 1,
            Self::IdPages => 2,
            Self::Fences => 3,
            Self::ChecksumTable => 4,
            Self::Filter => 17,
            Self::Optional(code) => code,
        }
    }

    const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::VectorPages,
            2 => Self::IdPages,
            3 => Self::Fences,
            4 => Self::ChecksumTable,
            17 => Self::Filter,
            other => Self::Optional(other),
        }
    }

    /// Whether a reader that does not know the kind must refuse the file.
    const fn is_required(self) -> bool {
        !matches!(self, Self::Filter | Self::Optional(_))
    }
}

/// One section of a segment file.
#[expect(clippy::exhaustive_structs, reason = "the engine reads it; a new field is a new format")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Byte offset in the file.
    pub offset: u64,
    /// Length in bytes: a multiple of `page_bytes`.
    pub bytes: u64,
    /// Bytes of one page of this section.
    pub page_bytes: u32,
}

impl Section {
    /// Pages of the section.
    #[must_use]
    pub const fn page_count(&self) -> u64 {
        self.bytes / self.page_bytes as u64
    }

    /// Byte offset in the file of a page of this section.
    #[must_use]
    pub const fn page_offset(&self, page: u32) -> u64 {
        self.offset + page as u64 * self.page_bytes as u64
    }
}

pub(super) fn encode_section(writer: &mut Writer<'_>, section: &Section) {
    writer.u16(section.kind.code());
    writer.u16(if section.kind.is_required() { FLAG_REQUIRED } else { 0 });
    writer.u32(section.page_bytes);
    writer.u64(section.offset);
    writer.u64(section.bytes);
    writer.zeros(8);
}

pub(super) fn decode_section(cursor: &mut Cursor<'_>, file: &str) -> Result<Section> {
    let start = *cursor;
    let code = cursor.u16("section kind")?;
    let flags = cursor.u16("section flags")?;
    let page_bytes = cursor.u32("section page size")?;
    let offset = cursor.u64("section offset")?;
    let bytes = cursor.u64("section length")?;
    cursor.zeros(8, "section")?;
    let kind = SectionKind::from_code(code);
    match (kind.is_required(), flags) {
        (true, FLAG_REQUIRED) | (false, 0) => {}
        (false, FLAG_REQUIRED) => {
            let (file, offset) = (file.to_owned(), start.offset());
            let what = format!("section of kind {code}");
            return Err(FormatError::FeatureUnsupported { file, offset, what });
        }
        _ => return Err(start.corrupt(format!("section {code} has flags {flags:#06x}"))),
    }
    if page_bytes == 0 || !page_bytes.is_multiple_of(BLOCK_U32) {
        return Err(start.corrupt(format!("section {code} has pages of {page_bytes} bytes")));
    }
    if !bytes.is_multiple_of(u64::from(page_bytes)) {
        return Err(start.corrupt(format!("section {code} of {bytes} bytes is not whole pages")));
    }
    Ok(Section { kind, offset, bytes, page_bytes })
}
