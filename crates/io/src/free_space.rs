//! How much room a file system has left.

use std::path::Path;

/// Bytes that this process may still write below this directory (root has blocks that others have
/// not); none where the system does not say. Neither quotas nor what others write meanwhile are
/// foreseen: a write may fail all the same.
#[cfg(unix)]
pub(crate) fn free_bytes(directory: &Path) -> Option<u64> {
    use std::{ffi::CString, mem::MaybeUninit, os::unix::ffi::OsStrExt};

    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a zero byte, and both pointers are valid for the whole call.
    let outcome = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
    if outcome != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled the structure; zeros would be valid as well.
    let found = unsafe { found.assume_init() };
    if found.f_blocks == 0 {
        return None; // as file systems in user space answer that were not written to know
    }
    // Their widths differ between systems.
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the fields are narrower on some systems"
    )]
    let (all, available, block_bytes) =
        (found.f_bfree as u64, found.f_bavail as u64, found.f_frsize as u64);
    // SAFETY: it takes nothing, touches no memory and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    let blocks = if is_root { all } else { available };
    Some(blocks.saturating_mul(block_bytes))
}

/// Not asked there.
#[cfg(not(unix))]
pub(crate) fn free_bytes(_directory: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_and_what_does_not_exist_has_none() {
        let directory = std::env::temp_dir();
        assert!(free_bytes(&directory).is_some());
        assert_eq!(free_bytes(&directory.join("no such directory")), None);
    }
}
