//! File keys: the numbers by which frames name the files of their pages.

use crate::error::PagerError;

/// Keys of open files: each is used by one file at a time.
#[derive(Debug, Default)]
pub(crate) struct FileKeys {
    returned: Vec<u32>,
    fresh: u32,
}

impl FileKeys {
    pub(crate) fn take(&mut self) -> Result<u32, PagerError> {
        if let Some(key) = self.returned.pop() {
            return Ok(key);
        }
        // The largest key stays unused: it belongs to `Owner::NOBODY`.
        if self.fresh == u32::MAX {
            return Err(PagerError::TooManyFiles);
        }
        self.fresh += 1;
        Ok(self.fresh - 1)
    }

    pub(crate) fn give(&mut self, key: u32) {
        self.returned.push(key);
    }

    pub(crate) fn in_use(&self) -> usize {
        self.fresh as usize - self.returned.len()
    }
}
