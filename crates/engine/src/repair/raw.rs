//! Reading files that may be cut, foreign or unreadable in places.
//!
//! What cannot be read is no error here but a page that is not there. Errors are left for what is
//! no damage: want of memory, a closed disk, missing rights.

use std::{path::Path, sync::Arc};

use nephrite_format::{BLOCK_BYTES, FileHeader, FormatError, mend::mend_header};
use nephrite_io::{Disk, FileHandle, IoBuffer, IoErrorKind, OpenOptions};

use crate::{error::Error, log_file::aligned, recovery::is_damage};

/// Bytes read at once.
const TRANSFER_BYTES: usize = 1 << 20;
/// Where the version of the format is in a header page.
const VERSION_AT: std::ops::Range<usize> = 8..12;

/// An open file of unknown health.
pub(super) struct Raw {
    disk: Arc<dyn Disk>,
    file: FileHandle,
    /// Its length.
    pub(super) bytes: u64,
}

/// Neighbouring pages, some of which may not be there.
pub(super) struct Pages {
    bytes: Vec<u8>,
    page_bytes: usize,
    readable: Vec<bool>,
}

impl Pages {
    /// Page number `index` of those that were asked for.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let start = index * self.page_bytes;
        let readable = *self.readable.get(index)?;
        readable.then(|| &self.bytes[start..start + self.page_bytes])
    }
}

impl Raw {
    /// `None` when there is no such file.
    pub(super) async fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<Option<Self>, Error> {
        let file = match disk.open(path, OpenOptions::read_only()).await {
            Ok(file) => file,
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let bytes = disk.file_len(&file).await?;
        Ok(Some(Self { disk: Arc::clone(disk), file, bytes }))
    }

    /// How many pages of this size one call of [`Self::pages`] should ask for.
    pub(super) fn pages_at_once(page_bytes: usize) -> usize {
        (TRANSFER_BYTES / page_bytes).max(1)
    }

    /// `count` pages from `offset` on.
    pub(super) async fn pages(
        &self,
        offset: u64,
        page_bytes: usize,
        count: usize,
    ) -> Result<Pages, Error> {
        let whole = page_bytes * count;
        if let Some(bytes) = self.piece(offset, whole).await? {
            return Ok(Pages { bytes, page_bytes, readable: vec![true; count] });
        }
        let mut pages = Pages { bytes: vec![0; whole], page_bytes, readable: vec![false; count] };
        for index in 0..count {
            let start = index * page_bytes;
            let Some(bytes) = self.piece(offset + start as u64, page_bytes).await? else {
                continue;
            };
            pages.bytes[start..start + page_bytes].copy_from_slice(&bytes);
            pages.readable[index] = true;
        }
        Ok(pages)
    }

    /// One block.
    pub(super) async fn block(&self, offset: u64) -> Result<Option<Vec<u8>>, Error> {
        self.piece(offset, BLOCK_BYTES).await
    }

    /// All whole blocks, with zeros for those that cannot be read.
    pub(super) async fn content(&self) -> Result<Vec<u8>, Error> {
        let blocks = usize::try_from(self.bytes).unwrap_or(usize::MAX) / BLOCK_BYTES;
        let mut content = Vec::with_capacity(blocks * BLOCK_BYTES);
        while content.len() < blocks * BLOCK_BYTES {
            let left = blocks - content.len() / BLOCK_BYTES;
            let count = left.min(Self::pages_at_once(BLOCK_BYTES));
            let pages = self.pages(content.len() as u64, BLOCK_BYTES, count).await?;
            content.extend_from_slice(&pages.bytes);
        }
        Ok(content)
    }

    async fn piece(&self, offset: u64, len: usize) -> Result<Option<Vec<u8>>, Error> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| self.bytes < end) {
            return Ok(None);
        }
        let buffer = IoBuffer::Owned(aligned(len)?);
        match nephrite_io::read(&*self.disk, &self.file, offset, buffer).await {
            Ok(buffer) => Ok(Some(buffer.as_slice().to_vec())),
            Err(error) => match Error::from(error) {
                error if is_damage(&error) => Ok(None),
                error => Err(error),
            },
        }
    }
}

/// A header page, and what is wrong with it. One flipped bit is mended; a changed version is told
/// from a newer one by the checksum.
///
/// # Errors
/// `VersionUnsupported`, and `Corrupt` for a feature of a later build: nothing is damaged then.
pub(super) fn header_of(
    page: Option<&[u8]>,
    name: &str,
) -> Result<(Option<FileHeader>, Option<String>), Error> {
    let Some(page) = page else {
        return Ok((None, Some("the header page cannot be read".to_owned())));
    };
    match FileHeader::decode(page, name) {
        Ok(header) => Ok((Some(header), None)),
        Err(error @ FormatError::VersionUnsupported { .. }) => {
            let mut patched = page.to_vec();
            patched[VERSION_AT].copy_from_slice(&nephrite_format::FORMAT_VERSION.to_le_bytes());
            match FileHeader::decode(&patched, name) {
                Ok(header) => {
                    Ok((Some(header), Some("the version of the format was changed".to_owned())))
                }
                Err(_) => Err(error.into()),
            }
        }
        Err(error @ FormatError::FeatureUnsupported { .. }) => Err(error.into()),
        Err(error) => {
            let mended = mend_header(page).and_then(|page| FileHeader::decode(&page, name).ok());
            Ok((mended, Some(error.to_string())))
        }
    }
}
