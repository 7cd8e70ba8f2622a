//! The parts of a segment: its footer, its checksum table, and each page against it.
//!
//! Nothing is told of a segment whose footer is lost but that: where its sections lie is known from
//! the footer alone. A damaged page of the table takes no page along; their checksums are lost.
//! Tested in `inspect`, and over damaged stores by the tests of the command that prints parts.

use super::parts::{page_part, section_part};
use super::{Detail, Part, Walk};
use crate::BLOCK_BYTES_U64;
use crate::checksum::page_checksum;
use crate::header::{FileHeader, SegmentDetail};
use crate::segment::{CHECKSUMS_PER_PAGE, ChecksumTablePage, Section, SectionKind, SegmentFooter};

/// Checksum tables of up to this many entries are kept; what is beyond is not checked.
const CHECKSUMS_MAX: u64 = 1 << 27;

impl Walk<'_> {
    pub(super) fn segment(&mut self, header: &FileHeader, segment: &SegmentDetail) {
        let Some(at) = self.file_bytes.checked_sub(BLOCK_BYTES_U64) else { return };
        let page = self.block(at);
        let part = Part::new(at, BLOCK_BYTES_U64, "footer page");
        let footer = SegmentFooter::decode(&page, header.identity(at), &segment.layout, "file");
        let footer = match footer {
            Ok(footer) => footer,
            Err(error) => return (self.visit)(part.damaged(error)),
        };
        let summary = footer.summary();
        (self.visit)(
            part.field("rows", summary.row_count)
                .field("ids", summary.entry_count)
                .field("tombstones", summary.tombstone_count)
                .field("highest record", summary.max_lsn)
                .field("index", format!("{:?}", summary.id_index))
                .field("order of rows", format!("{:?}", summary.row_order)),
        );
        let checksums = self.checksums(header, &footer);
        let mut number = 0_usize;
        for section in footer.sections() {
            if section.kind != SectionKind::ChecksumTable {
                self.section(header, segment, section, &checksums, &mut number);
            }
        }
    }

    fn checksums(&mut self, header: &FileHeader, footer: &SegmentFooter) -> Vec<Option<u64>> {
        let mut checksums = Vec::new();
        let Some(table) = footer.section(SectionKind::ChecksumTable) else { return checksums };
        let pages = table.page_count().min(CHECKSUMS_MAX / u64::from(CHECKSUMS_PER_PAGE));
        let mut damaged = 0_u64;
        for page in 0..pages {
            let offset = table.offset + page * BLOCK_BYTES_U64;
            let bytes = self.block(offset);
            match ChecksumTablePage::verify(&bytes, header.identity(offset), "file") {
                Ok(page) => {
                    checksums.extend((0..CHECKSUMS_PER_PAGE).map(|at| Some(page.entry(at))))
                }
                Err(error) => {
                    damaged += 1;
                    let part = Part::new(offset, BLOCK_BYTES_U64, "page of the checksum table");
                    (self.visit)(part.damaged(error));
                    checksums.extend(std::iter::repeat_n(None, CHECKSUMS_PER_PAGE as usize));
                }
            }
        }
        (self.visit)(section_part(table, damaged));
        checksums
    }

    fn section(
        &mut self,
        header: &FileHeader,
        segment: &SegmentDetail,
        section: &Section,
        checksums: &[Option<u64>],
        number: &mut usize,
    ) {
        let mut damaged = 0_u64;
        for page in 0..section.page_count() {
            let offset = section.offset + page * u64::from(section.page_bytes);
            let bytes = (self.read)(offset, section.page_bytes as usize);
            let stored = checksums.get(*number).copied().flatten();
            *number += 1;
            let what = format!("page {page} of {:?}", section.kind);
            let part = Part::new(offset, u64::from(section.page_bytes), what);
            let found = page_checksum(header.identity(offset), &bytes);
            let problem = match stored {
                None => Some("its checksum is lost".to_owned()),
                Some(stored) if stored != found => {
                    Some(format!("checksum {found:#018x} where {stored:#018x} was stored"))
                }
                Some(_) => None,
            };
            if let Some(problem) = problem {
                damaged += 1;
                (self.visit)(part.damaged(problem));
            } else if self.detail == Detail::Pages {
                (self.visit)(page_part(part, segment, section, &bytes));
            }
        }
        (self.visit)(section_part(section, damaged));
    }
}
