//! Names of the files in a store directory, and back.
//!
//! ```text
//! STORE/LOCK                     held while the store is open
//! STORE/RESERVE                  zeros: room for a full disk
//! STORE/manifest-<16 hex>        the newest is the truth
//! STORE/wal/<16 hex>.wal         log segments; the hex is the file id
//! STORE/segments/<16 hex>.seg    vector segments; the hex is the file id
//! ```

use std::path::{Path, PathBuf};

use nephrite_format::FileId;

const MANIFEST_PREFIX: &str = "manifest-";
const TEMPORARY_SUFFIX: &str = ".tmp";
const WAL_SUFFIX: &str = ".wal";
const SEGMENT_SUFFIX: &str = ".seg";

/// Where the files of one store lie.
#[derive(Clone, Debug)]
pub(crate) struct StorePaths {
    root: PathBuf,
    wal: PathBuf,
    segments: PathBuf,
}

impl StorePaths {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), wal: root.join("wal"), segments: root.join("segments") }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn wal_dir(&self) -> &Path {
        &self.wal
    }

    pub(crate) fn segments_dir(&self) -> &Path {
        &self.segments
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("RESERVE")
    }

    pub(crate) fn manifest(&self, file: FileId) -> PathBuf {
        self.root.join(manifest_name(file))
    }

    pub(crate) fn manifest_temporary(&self, file: FileId) -> PathBuf {
        self.root.join(format!("{}{TEMPORARY_SUFFIX}", manifest_name(file)))
    }

    pub(crate) fn wal(&self, file: FileId) -> PathBuf {
        self.wal.join(format!("{:016x}{WAL_SUFFIX}", file.get()))
    }

    pub(crate) fn segment(&self, file: FileId) -> PathBuf {
        self.segments.join(format!("{:016x}{SEGMENT_SUFFIX}", file.get()))
    }
}

/// Name of a manifest within the store, for error messages and listing.
pub(crate) fn manifest_name(file: FileId) -> String {
    format!("{MANIFEST_PREFIX}{:016x}", file.get())
}

/// Name of a log segment within the store.
pub(crate) fn wal_name(file: FileId) -> String {
    format!("wal/{:016x}{WAL_SUFFIX}", file.get())
}

/// Name of a vector segment within the store.
pub(crate) fn segment_name(file: FileId) -> String {
    format!("segments/{:016x}{SEGMENT_SUFFIX}", file.get())
}

/// The file id in a manifest's name; `None` for anything else, temporary files included.
pub(crate) fn parse_manifest(name: &str) -> Option<FileId> {
    parse_hex(name.strip_prefix(MANIFEST_PREFIX)?)
}

/// Whether this is a manifest that was never finished.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(MANIFEST_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

/// The file id in a log segment's name.
pub(crate) fn parse_wal(name: &str) -> Option<FileId> {
    parse_hex(name.strip_suffix(WAL_SUFFIX)?)
}

/// The file id in a vector segment's name.
pub(crate) fn parse_segment(name: &str) -> Option<FileId> {
    parse_hex(name.strip_suffix(SEGMENT_SUFFIX)?)
}

fn parse_hex(digits: &str) -> Option<FileId> {
    let canonical =
        digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let value = u64::from_str_radix(digits, 16).ok().filter(|_| canonical)?;
    Some(FileId::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_nothing_else_does() {
        let file = FileId::new(0x1a2b);
        assert_eq!(parse_manifest(&manifest_name(file)), Some(file));
        assert_eq!(parse_segment("0000000000001a2b.seg"), Some(file));
        assert_eq!(parse_wal("0000000000001a2b.wal"), Some(file));
        for odd in ["1a2b.seg", "0000000000001A2B.seg", "+000000000001a2b.seg", ".seg", ""] {
            assert_eq!(parse_segment(odd), None, "{odd}");
        }
        assert_eq!(parse_manifest("manifest-0000000000001a2b.tmp"), None);
        assert!(is_temporary("manifest-0000000000001a2b.tmp"));
    }
}
