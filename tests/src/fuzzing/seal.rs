//! Checksums for bytes that were changed on purpose, so that what lies behind them is reached.

use nephrite_format::{
    BLOCK_BYTES, FileDetail, FileHeader, FileId, Generation, PageIdentity, StoreId,
    frame::peek_frame_bytes,
    page_checksum,
    segment::{SectionKind, SegmentFooter, checksum_position},
};

const SEALED_BYTES: usize = BLOCK_BYTES - 8;

/// Gives the page or frame around `at` the checksum of its bytes. `before` is the file as it was,
/// which says where its parts lie.
pub(super) fn reseal(before: &[u8], content: &mut [u8], at: usize) {
    if at < BLOCK_BYTES {
        return seal_header(content);
    }
    let Some(Ok(header)) = before.get(..BLOCK_BYTES).map(|page| FileHeader::decode(page, ""))
    else {
        return;
    };
    match header.detail {
        FileDetail::Segment(detail) => {
            let end = before.len() - BLOCK_BYTES.min(before.len());
            let place = header.identity(end as u64);
            let footer = SegmentFooter::decode(&before[end..], place, &detail.layout, "");
            if let Ok(footer) = footer {
                seal_segment(&footer, header.identity(0), content, at);
            }
        }
        _ => seal_frame(before, header.identity(0), content, at),
    }
}

/// A header says itself whose it is.
fn seal_header(content: &mut [u8]) {
    let Some(page) = content.first_chunk_mut::<BLOCK_BYTES>() else { return };
    let mut store = [0; 16];
    store.copy_from_slice(&page[24..40]);
    let (file, generation) = (u64_at(page, 40), u64_at(page, 48));
    let (file, generation) = (FileId::new(file), Generation::new(generation));
    let place = PageIdentity::new(StoreId::new(store), file, generation, 0);
    seal_page(page, place);
}

fn seal_page(page: &mut [u8], place: PageIdentity) {
    let checksum = page_checksum(place, &page[..SEALED_BYTES]);
    page[SEALED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
}

/// The frame around `at`: its checksum is in its first eight bytes.
fn seal_frame(before: &[u8], place: PageIdentity, content: &mut [u8], at: usize) {
    let mut start = BLOCK_BYTES;
    while start < before.len() {
        let bytes = peek_frame_bytes(&before[start..]).unwrap_or(BLOCK_BYTES);
        let end = start + peek_frame_bytes(&content[start..]).unwrap_or(bytes);
        if at < start + bytes {
            if let Some(frame) = content.get_mut(start..end) {
                let checksum = page_checksum(place.at(start as u64), &frame[8..]);
                frame[..8].copy_from_slice(&checksum.to_le_bytes());
            }
            return;
        }
        start += bytes;
    }
}

/// The footer, a page of the checksum table, or a page with its entry in that table.
fn seal_segment(footer: &SegmentFooter, place: PageIdentity, content: &mut [u8], at: usize) {
    let within = |offset: u64, bytes: u64| (offset..offset + bytes).contains(&(at as u64));
    if within(footer.footer_offset(), BLOCK_BYTES as u64) {
        return seal_block(content, footer.footer_offset(), place);
    }
    let Some(table) = footer.section(SectionKind::ChecksumTable) else { return };
    let Some(section) = footer.sections().iter().find(|it| within(it.offset, it.bytes)) else {
        return;
    };
    let number = (at as u64 - section.offset) / u64::from(section.page_bytes);
    let Ok(number) = u32::try_from(number) else { return };
    let offset = section.page_offset(number);
    let Some(index) = footer.checksum_index(section.kind, number) else {
        return seal_block(content, offset, place);
    };
    let start = usize::try_from(offset).expect("files of a run are small");
    let page = &content[start..start + section.page_bytes as usize];
    let checksum = page_checksum(place.at(offset), page);
    let (table_page, position) = checksum_position(index);
    let table_offset = table.page_offset(table_page);
    let entry =
        usize::try_from(table_offset).expect("files of a run are small") + 8 * position as usize;
    content[entry..entry + 8].copy_from_slice(&checksum.to_le_bytes());
    seal_block(content, table_offset, place);
}

fn seal_block(content: &mut [u8], offset: u64, place: PageIdentity) {
    let start = usize::try_from(offset).expect("files of a run are small");
    if let Some(page) = content.get_mut(start..start + BLOCK_BYTES) {
        seal_page(page, place.at(offset));
    }
}

fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*page[at..].first_chunk().expect("a field within a page"))
}
