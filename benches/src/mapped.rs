//! A mapped file, for the rival that reads through one.

use std::{fs::File, io};

use memmap2::Mmap;

/// Maps a file of this run, which nobody writes to any more.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file lies in the temporary directory of this run, was written before, and is
    // neither written nor cut while it is mapped.
    unsafe { Mmap::map(file) }
}
