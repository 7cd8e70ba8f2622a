//! Sealed files mapped for reading: what the mmap backend reads from.
//!
//! A read is a copy out of the mapping into the request's buffer, on a positional thread, since a
//! page that is not resident blocks whoever touches it. So limits, checksums and guards are the
//! same as with every other backend.
//!
//! Guarantee: a mapping goes with the last handle of its file, or earlier when this disk removes,
//! renames over or changes the length of that path (Windows refuses these for a mapped file, and
//! elsewhere a cut would pull pages away); handles that are still open read positionally then.
//! A range that the mapping does not cover, and one whose pages cannot be had, is read
//! positionally too, and that read has the error. Before each copy the file's length is asked for,
//! and on Linux the pages are populated (`MADV_POPULATE_READ`, 5.14), which reports a bad sector
//! where touching it would raise SIGBUS.
//! Does not: survive a file that somebody else cuts between that check and the end of the copy, nor
//! a sector that cannot be read where pages cannot be populated.
//!
//! Locks: the table's mutex is a leaf. A file's map is locked for reading during a copy; taking it
//! away waits for copies.
//! Tested below and in `tests/it/mapping`.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use memmap2::{MmapOptions, MmapRaw};

use crate::report::MappingReport;
use crate::stats::Counters;

/// Most bytes that all mappings of a disk may cover: on a 64-bit machine half of the address space
/// that a Linux process has, on a 32-bit machine what leaves room for the rest of the program.
#[cfg(target_pointer_width = "64")]
pub(crate) const MAPPED_BYTES_MAX: u64 = 1 << 46;
/// See above.
#[cfg(not(target_pointer_width = "64"))]
pub(crate) const MAPPED_BYTES_MAX: u64 = 1 << 29;

/// All mappings of a disk.
pub(crate) struct Mappings {
    bytes_max: u64,
    table: Mutex<Table>,
    counters: Arc<Counters>,
    first_refusal: OnceLock<String>,
}

#[derive(Default)]
struct Table {
    bytes: u64,
    by_path: HashMap<PathBuf, Vec<Weak<MappedFile>>>,
}

/// The mapping of one open file.
pub(crate) struct MappedFile {
    path: PathBuf,
    len: u64,
    map: RwLock<Option<MmapRaw>>,
    mappings: Arc<Mappings>,
}

impl Mappings {
    pub(crate) fn new(bytes_max: u64, counters: Arc<Counters>) -> Arc<Self> {
        let (table, first_refusal) = (Mutex::default(), OnceLock::new());
        Arc::new(Self { bytes_max, table, counters, first_refusal })
    }

    /// Maps a file that was opened by `path`; none for an empty one, and where it was refused.
    pub(crate) fn map(self: &Arc<Self>, file: &File, path: &Path) -> Option<Arc<MappedFile>> {
        let mapped = self.try_map(file, path);
        match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                self.counters.maps_refused.add(1);
                self.first_refusal.get_or_init(|| format!("`{}`: {error}", path.display()));
                None
            }
        }
    }

    /// As [`Self::map`], with the reason of a refusal.
    pub(crate) fn try_map(
        self: &Arc<Self>,
        file: &File,
        path: &Path,
    ) -> io::Result<Option<Arc<MappedFile>>> {
        let len = file.metadata()?.len();
        if len == 0 {
            return Ok(None);
        }
        self.reserve(len)?;
        let mapping = usize::try_from(len)
            .map_err(|_| io::Error::other("the file is larger than the address space"))
            .and_then(|bytes| MmapOptions::new().len(bytes).map_raw_read_only(file));
        let mapping = mapping.inspect_err(|_| self.lock().bytes -= len)?;
        advise_random(&mapping);
        self.counters.maps.add(1);
        self.counters.maps_open.add(1);
        let (map, mappings) = (RwLock::new(Some(mapping)), Arc::clone(self));
        let mapped = Arc::new(MappedFile { path: path.to_owned(), len, map, mappings });
        let weak = Arc::downgrade(&mapped);
        self.lock().by_path.entry(path.to_owned()).or_default().push(weak);
        Ok(Some(mapped))
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut table = self.lock();
        let limit = self.bytes_max;
        match table.bytes.checked_add(len).filter(|bytes| *bytes <= limit) {
            Some(bytes) => {
                table.bytes = bytes;
                Ok(())
            }
            None => Err(io::Error::other(format!(
                "mappings would cover more than the {limit} bytes that this machine has room for"
            ))),
        }
    }

    /// Takes the mappings of a path away, before the file changes or goes.
    pub(crate) fn release(&self, path: &Path) {
        let files = self.lock().by_path.get(path).cloned().unwrap_or_default();
        files.iter().filter_map(Weak::upgrade).for_each(|file| file.unmap());
    }

    /// What became of mapping so far.
    pub(crate) fn report(&self) -> MappingReport {
        MappingReport {
            files: self.counters.maps_open.value(),
            refusals: self.counters.maps_refused.value(),
            first_refusal: self.first_refusal.get().cloned(),
            fallbacks: self.counters.map_fallbacks.value(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MappedFile {
    /// Fills `bytes` from the mapping; false when that cannot be done and the file must be asked.
    pub(crate) fn copy_to(&self, file: &File, offset: u64, bytes: &mut [u8]) -> bool {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let copied = map.as_ref().is_some_and(|map| copy(map, file, offset, bytes));
        let counters = &self.mappings.counters;
        if copied {
            counters.map_reads.add(1)
        } else {
            counters.map_fallbacks.add(1)
        }
        copied
    }

    fn unmap(&self) {
        let map = self.map.write().unwrap_or_else(PoisonError::into_inner).take();
        if map.is_some() {
            self.mappings.lock().bytes -= self.len;
            self.mappings.counters.maps_open.subtract(1);
        }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        self.unmap();
        let mut table = self.mappings.lock();
        if let Some(files) = table.by_path.get_mut(&self.path) {
            files.retain(|file| 0 < file.strong_count());
            if files.is_empty() {
                table.by_path.remove(&self.path);
            }
        }
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MappedFile").field("len", &self.len).finish_non_exhaustive()
    }
}

fn copy(map: &MmapRaw, file: &File, offset: u64, bytes: &mut [u8]) -> bool {
    let Ok(start) = usize::try_from(offset) else { return false };
    let end = start.checked_add(bytes.len());
    if end.is_none_or(|end| map.len() < end) || !is_present(map, file, start, bytes.len()) {
        return false;
    }
    let source = map.as_ptr().wrapping_add(start);
    // SAFETY: `start + bytes.len()` is within the mapping (checked above), which the caller's lock
    // keeps; `bytes` is exclusive memory elsewhere. The source is never borrowed as a slice, so
    // nothing assumes that its bytes stay as they are.
    unsafe { source.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    true
}

/// Whether the bytes of a range can be touched, as far as that can be known. Populating alone would
/// let the zeros behind the end of a file pass, which fill its last page.
fn is_present(map: &MmapRaw, file: &File, start: usize, len: usize) -> bool {
    let end = start as u64 + len as u64;
    populate(map, start, len) && file.metadata().is_ok_and(|metadata| end <= metadata.len())
}

#[cfg(unix)]
fn populate(map: &MmapRaw, start: usize, len: usize) -> bool {
    use memmap2::Advice;

    const READ_AT_ONCE_BYTES: usize = 4096;
    if READ_AT_ONCE_BYTES < len {
        // Only a hint: all pages of the range are asked for together, not one after the other.
        let _ = map.advise_range(Advice::WillNeed, start, len);
    }
    #[cfg(not(target_os = "linux"))]
    return true;
    #[cfg(target_os = "linux")]
    match map.advise_range(Advice::PopulateRead, start, len) {
        Ok(()) => true,
        // Linux before 5.14 does not know it.
        Err(error) => error.raw_os_error() == Some(libc::EINVAL),
    }
}

#[cfg(not(unix))]
fn populate(_map: &MmapRaw, _start: usize, _len: usize) -> bool {
    true
}

/// The engine asks for exactly what it wants and caches it itself: read-ahead would be waste.
fn advise_random(map: &MmapRaw) {
    #[cfg(unix)]
    // Only a hint.
    let _ = map.advise(memmap2::Advice::Random);
    #[cfg(not(unix))]
    let _ = map;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        (directory, path, file)
    }

    #[test]
    fn mappings_stay_below_their_limit_and_give_their_room_back() {
        let (_directory, path, file) = file_of(&[7; 3000]);
        let counters = Arc::new(Counters::default());
        let mappings = Mappings::new(4096, Arc::clone(&counters));

        let first = mappings.map(&file, &path);
        assert!(first.is_some());
        assert!(mappings.map(&file, &path).is_none());
        assert!(mappings.report().first_refusal.unwrap().contains("4096 bytes"));
        drop(first);

        assert!(mappings.map(&file, &path).is_some());
        let numbers = (counters.maps.value(), counters.maps_refused.value());
        assert_eq!((numbers, counters.maps_open.value()), ((2, 1), 0));
        assert!(mappings.lock().by_path.is_empty());
    }

    #[test]
    fn an_empty_file_is_not_mapped_and_that_is_no_refusal() {
        let (_directory, path, file) = file_of(&[]);
        let mappings = Mappings::new(4096, Arc::default());

        assert!(mappings.map(&file, &path).is_none());

        assert_eq!(mappings.report().refusals, 0);
    }

    #[test]
    fn a_range_that_the_mapping_does_not_cover_is_left_to_the_file() {
        let (_directory, path, file) = file_of(&[7; 5000]);
        let mapped = Mappings::new(8192, Arc::default()).map(&file, &path).unwrap();
        let mut bytes = [0; 10];

        assert!(mapped.copy_to(&file, 4990, &mut bytes));
        assert_eq!(bytes, [7; 10]);
        assert!(!mapped.copy_to(&file, 4991, &mut bytes));
        assert!(!mapped.copy_to(&file, u64::MAX, &mut bytes));
    }

    #[test]
    fn a_released_mapping_copies_no_more() {
        let (_directory, path, file) = file_of(&[7; 5000]);
        let mappings = Mappings::new(8192, Arc::default());
        let mapped = mappings.map(&file, &path).unwrap();

        mappings.release(Path::new("another"));
        assert!(mapped.copy_to(&file, 0, &mut [0; 10]));
        mappings.release(&path);

        assert!(!mapped.copy_to(&file, 0, &mut [0; 10]));
        assert_eq!(mappings.lock().bytes, 0);
    }
}
