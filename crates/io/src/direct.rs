//! Direct I/O, decided per file: what the kernel states, then what a real read shows.
//!
//! Linux 6.1 and later state the alignment that a file needs (`statx`, DIOALIGN). Older kernels
//! and some file systems do not; there a file opens with `O_DIRECT` and is trusted with 4096, once
//! an aligned read of existing data has worked. A file that fails either way is opened buffered.
//! What is stated is believed without a read once a read of data has worked on another file of the
//! same device: such a read goes to the disk.
//! Outside Linux every file is buffered.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::file::OpenOptions;

/// What a file asks of direct transfers, in bytes; both are powers of two up to 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectIo {
    pub(crate) offset_alignment: u32,
    pub(crate) memory_alignment: u32,
}

/// Opens a file, direct if it was wanted and works.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open(path: &Path, options: OpenOptions) -> io::Result<(File, Option<DirectIo>)> {
    Ok((options.to_std().open(path)?, None))
}

/// Opens a file, direct if it was wanted and works.
#[cfg(target_os = "linux")]
pub(crate) fn open(path: &Path, options: OpenOptions) -> io::Result<(File, Option<DirectIo>)> {
    use std::os::unix::fs::OpenOptionsExt;

    if !options.prefers_direct() {
        return Ok((options.to_std().open(path)?, None));
    }
    let mut direct_options = options.to_std();
    direct_options.custom_flags(libc::O_DIRECT);
    let exists = match direct_options.open(path) {
        Ok(file) => {
            if let Some(direct) = linux::accepted(&file)? {
                return Ok((file, Some(direct)));
            }
            true
        }
        // Some file systems create the file before they refuse the flag.
        Err(error) if linux::is_refusal(&error) => path.exists(),
        Err(error) => return Err(error),
    };
    let buffered = if exists { options.reopen() } else { options };
    Ok((buffered.to_std().open(path)?, None))
}

/// Opens a new file that has no name in its directory, direct if it was wanted and works.
#[cfg(target_os = "linux")]
pub(crate) fn open_unnamed(directory: &Path, direct: bool) -> io::Result<(File, Option<DirectIo>)> {
    use std::os::unix::fs::OpenOptionsExt;

    let open = |flags| {
        let flags = libc::O_TMPFILE | flags;
        File::options().read(true).write(true).custom_flags(flags).mode(0o600).open(directory)
    };
    if direct
        && let Ok(file) = open(libc::O_DIRECT)
        && let Some(direct) = linux::accepted(&file)?
    {
        return Ok((file, Some(direct)));
    }
    Ok((open(0)?, None))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::c_int;
    use std::fs::File;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    // Of std, not of `crate::sync`: it guards no protocol, and loom's cannot be a static.
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::DirectIo;
    use crate::memory::{AlignedBuf, BLOCK_BYTES};

    /// What is assumed where the kernel states nothing.
    const ASSUMED_ALIGNMENT: u32 = 4096;

    /// Devices, and the alignment with which a direct read of data has worked on each.
    static SHOWN: Mutex<Vec<((u32, u32), DirectIo)>> = Mutex::new(Vec::new());
    /// How many of them are remembered.
    const SHOWN_MAX: usize = 64;

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_refusal(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
    }

    /// The alignment of a file opened with `O_DIRECT`, or none if it should be buffered.
    pub(super) fn accepted(file: &File) -> io::Result<Option<DirectIo>> {
        let (direct, device) = match stated(file) {
            Stated::Alignment(direct, device) => (direct, Some(device)),
            Stated::Unsupported => return Ok(None),
            Stated::Unknown => {
                let (offset_alignment, memory_alignment) = (ASSUMED_ALIGNMENT, ASSUMED_ALIGNMENT);
                (DirectIo { offset_alignment, memory_alignment }, None)
            }
        };
        let usable =
            |alignment: u32| alignment.is_power_of_two() && alignment as usize <= BLOCK_BYTES;
        if !usable(direct.offset_alignment) || !usable(direct.memory_alignment) {
            return Ok(None);
        }
        let shown = match device {
            Some(device) => (device, direct),
            None => return Ok((reads_work(file)? != Read::Refused).then_some(direct)),
        };
        if lock(&SHOWN).contains(&shown) {
            return Ok(Some(direct));
        }
        let read = reads_work(file)?;
        if read == Read::Data {
            let mut all = lock(&SHOWN);
            if all.len() < SHOWN_MAX && !all.contains(&shown) {
                all.push(shown);
            }
        }
        Ok((read != Read::Refused).then_some(direct))
    }

    /// What an aligned read gave.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Read {
        Data,
        /// The file is empty, or its first block cannot be read for another reason.
        Nothing,
        Refused,
    }

    /// An aligned read at the start: the proof where there is data, and harmless where not.
    fn reads_work(file: &File) -> io::Result<Read> {
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        match file.read_at(&mut block, 0) {
            Ok(BLOCK_BYTES) => Ok(Read::Data),
            Err(error) if is_refusal(&error) => Ok(Read::Refused),
            // A damaged first block or a signal says nothing about alignment; later transfers
            // report the damage where it matters.
            Ok(_) | Err(_) => Ok(Read::Nothing),
        }
    }

    enum Stated {
        /// And the device, by its two numbers.
        Alignment(DirectIo, (u32, u32)),
        Unsupported,
        Unknown,
    }

    fn stated(file: &File) -> Stated {
        let mut status = MaybeUninit::<libc::statx>::zeroed();
        let flags: c_int = libc::AT_EMPTY_PATH;
        // SAFETY: the descriptor is open, the path is a terminated empty string, and `status` is
        // writable memory of the right type, all for the duration of the call.
        let outcome = unsafe {
            libc::statx(
                file.as_raw_fd(),
                c"".as_ptr(),
                flags,
                libc::STATX_DIOALIGN,
                status.as_mut_ptr(),
            )
        };
        if outcome != 0 {
            return Stated::Unknown;
        }
        // SAFETY: every bit pattern is a valid `statx`, and all bytes were zeroed at least.
        let status = unsafe { status.assume_init() };
        if status.stx_mask & libc::STATX_DIOALIGN == 0 {
            return Stated::Unknown;
        }
        if status.stx_dio_offset_align == 0 || status.stx_dio_mem_align == 0 {
            return Stated::Unsupported;
        }
        let direct = DirectIo {
            offset_alignment: status.stx_dio_offset_align,
            memory_alignment: status.stx_dio_mem_align,
        };
        Stated::Alignment(direct, (status.stx_dev_major, status.stx_dev_minor))
    }
}
