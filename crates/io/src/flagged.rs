//! Positional calls with flags, which `std` does not have. Linux only.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Writes at `offset`; what was written is durable when this returns.
pub(crate) fn write_through_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the descriptor is open, and the one part names bytes that are borrowed for the call,
    // which only reads them.
    let written =
        unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_DSYNC) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Reads what the system has in its cache at `offset`, without waiting for the device. Fewer bytes
/// than asked for, or an error, say that it takes a wait to get them, or why it cannot be told.
pub(crate) fn read_cached_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the descriptor is open, and the one part names bytes that are borrowed for the call
    // alone.
    let count =
        unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_NOWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
