//! The engine's error: one enum, every case a plain sentence that names the place and the way out.
//!
//! Operating errors are values. A broken invariant of ours is a panic; bytes read from disk never
//! are: they come back as [`Error::Corrupt`] with the file and the offset.

use std::{
    error, fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nephrite_format::{FormatError, Id, IdKind};
use nephrite_io::{IoError, IoErrorKind, IoOperation};
use nephrite_pager::{LoadError, PagerError};

/// What went wrong, where, and what to do about it. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation; the inner error names file, offset and cure.
    Io(IoError),
    /// Bytes on disk are not what was written there. Nothing of the damaged page is ever returned.
    Corrupt {
        /// File name within the store directory.
        file: String,
        /// Byte offset in that file.
        offset: u64,
        /// What was wrong there.
        what: String,
    },
    /// An earlier write or sync failed: nothing can be written until the store is opened again.
    Poisoned {
        /// The failure that caused it.
        cause: Arc<str>,
    },
    /// The store was closed.
    Closed,
    /// The file was written by a newer Nephrite.
    VersionUnsupported {
        /// File name within the store directory.
        file: String,
        /// The version found.
        found: u32,
        /// The newest version this build reads.
        newest: u32,
    },
    /// A configuration field has a value that cannot work.
    InvalidConfig {
        /// Name of the field.
        field: &'static str,
        /// Why it was refused.
        reason: String,
    },
    /// No database has this name.
    DatabaseNotFound {
        /// The name asked for.
        name: String,
    },
    /// A database with this name exists; it was left as it is.
    DatabaseExists {
        /// The name asked for.
        name: String,
    },
    /// A database name that cannot be used.
    InvalidName {
        /// The name asked for.
        name: String,
        /// Why it was refused.
        reason: &'static str,
    },
    /// The directory does not hold a store.
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// The directory already holds a store; it was left as it is.
    StoreExists {
        /// The directory.
        path: PathBuf,
    },
    /// Another process, or another handle of this process, has the store open.
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A vector has the wrong number of elements.
    Dimension {
        /// Elements per vector of the database.
        expected: u32,
        /// Elements given.
        found: usize,
    },
    /// An id that cannot be stored.
    InvalidId {
        /// Why it was refused.
        reason: String,
    },
    /// An id of the wrong kind for the database.
    WrongIdKind {
        /// Kind of the database.
        expected: IdKind,
    },
    /// `update` of an id that is not stored.
    NotFound {
        /// The id.
        id: Id,
    },
    /// A batch that cannot be made atomic because its vectors exceed a memtable or its record a
    /// log segment.
    BatchTooLarge {
        /// Bytes it needs.
        bytes: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// The cache has no room: every frame is pinned or the limit is too small.
    Cache {
        /// What the cache said.
        reason: Arc<str>,
    },
}

impl Error {
    /// A write below this path that was not tried, as the disk has no room for it.
    pub(crate) fn disk_full(path: &Path) -> Self {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        IoError::new(IoOperation::Write, path, full).into()
    }

    /// Whether the disk (or a quota) is full, so that a retry makes sense after space was freed.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == IoErrorKind::Full)
    }

    /// Whether this reports damaged bytes on disk.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    pub(crate) fn corrupt(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), offset, what: what.into() }
    }

    pub(crate) fn poisoned_by(cause: &dyn error::Error) -> Self {
        Self::Poisoned { cause: cause.to_string().into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Corrupt { file, offset, what } => write!(
                f,
                "{file} is damaged at byte {offset}: {what}; run `verify` to see the extent and \
                 restore the file from a copy"
            ),
            Self::Poisoned { cause } => write!(
                f,
                "the store takes no more writes because an earlier one failed ({cause}); what was \
                 acknowledged is safe: close the store, mend the cause and open it again"
            ),
            Self::Closed => write!(f, "the store is closed; open it again"),
            Self::VersionUnsupported { file, found, newest } => write!(
                f,
                "{file} has format version {found}, this build reads up to {newest}; use the \
                 Nephrite that wrote it or a newer one"
            ),
            Self::InvalidConfig { field, reason } => {
                write!(f, "configuration field `{field}`: {reason}")
            }
            Self::DatabaseNotFound { name } => {
                write!(f, "there is no database named {name:?} in this store; `list` shows them")
            }
            Self::DatabaseExists { name } => write!(
                f,
                "a database named {name:?} exists and was left as it is; open it, drop it first or \
                 choose another name"
            ),
            Self::InvalidName { name, reason } => {
                write!(f, "{name:?} cannot name a database: {reason}")
            }
            Self::NotAStore { path, reason } => {
                write!(f, "{} is not a Nephrite store: {reason}", path.display())
            }
            Self::StoreExists { path } => write!(
                f,
                "{} already holds a store, which was left as it is; open it instead",
                path.display()
            ),
            Self::Locked { path } => write!(
                f,
                "the store {} is open elsewhere; close it there first (a lock left by a dead \
                 process does not count)",
                path.display()
            ),
            Self::Dimension { expected, found } => {
                write!(f, "the vector has {found} elements where the database stores {expected}")
            }
            Self::InvalidId { reason } => write!(f, "the id cannot be stored: {reason}"),
            Self::WrongIdKind { expected } => {
                write!(f, "the id is of the wrong kind: this database has {expected} ids")
            }
            Self::NotFound { id } => {
                write!(f, "id {id} is not stored; `put` inserts, `update` only replaces")
            }
            Self::BatchTooLarge { bytes, limit } => write!(
                f,
                "the batch needs {bytes} bytes in one piece and {limit} is the most that can be \
                 atomic; split it, or raise `memtable_bytes` and `wal_segment_bytes`"
            ),
            Self::Cache { reason } => {
                write!(f, "the page cache has no room: {reason}; raise `memory_limit`")
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::VersionUnsupported { file, found, newest } => {
                Self::VersionUnsupported { file, found, newest }
            }
            FormatError::Corrupt { file, offset, what } => Self::Corrupt { file, offset, what },
            FormatError::FeatureUnsupported { file, offset, what } => {
                Self::Corrupt { file, offset, what: format!("this build does not have {what}") }
            }
            FormatError::NotNephrite { file } => {
                Self::corrupt(file, 0, "it does not begin like a file of Nephrite")
            }
            FormatError::WrongKind { file, expected, found } => {
                Self::corrupt(file, 0, format!("a {found} file where a {expected} belongs"))
            }
            FormatError::WrongIdentity { file, what } => Self::corrupt(file, 0, what),
            FormatError::InvalidLayout { field, reason } => Self::InvalidConfig { field, reason },
            other => Self::corrupt("a file of the store", 0, other.to_string()),
        }
    }
}

impl From<PagerError> for Error {
    fn from(error: PagerError) -> Self {
        Self::Cache { reason: error.to_string().into() }
    }
}

impl From<LoadError> for Error {
    /// A page load fails with the engine's own error, carried through the cache to every waiter.
    fn from(error: LoadError) -> Self {
        let source = error::Error::source(&error);
        match source.and_then(|source| source.downcast_ref::<Self>()) {
            Some(original) => original.clone(),
            None => Self::Cache { reason: error.to_string().into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use nephrite_format::FileKind;

    use super::*;

    #[test]
    fn each_message_has_what_it_was_given_and_says_what_to_do() {
        let (name, path) = ("vectors".to_owned(), PathBuf::from("place"));
        let cases = [
            (Error::corrupt("f.seg", 812, "bad"), &["f.seg", "812", "bad", "`verify`"][..]),
            (Error::poisoned_by(&Error::Closed), &["is closed", "open it again"]),
            (Error::Closed, &["open it again"]),
            (
                Error::VersionUnsupported { file: "f.seg".to_owned(), found: 9, newest: 1 },
                &["f.seg", "9", "up to 1", "newer"],
            ),
            (Error::DatabaseNotFound { name: name.clone() }, &["\"vectors\"", "`list`"]),
            (Error::DatabaseExists { name: name.clone() }, &["\"vectors\"", "choose another"]),
            (Error::InvalidName { name, reason: "too long" }, &["\"vectors\"", "too long"]),
            (
                Error::NotAStore { path: path.clone(), reason: "no manifest".to_owned() },
                &["place", "no manifest"],
            ),
            (Error::StoreExists { path: path.clone() }, &["place", "open it instead"]),
            (Error::Locked { path }, &["place", "close it there first"]),
            (Error::Dimension { expected: 4, found: 3 }, &["3 elements", "stores 4"]),
            (Error::InvalidId { reason: "empty".to_owned() }, &["empty"]),
            (Error::WrongIdKind { expected: IdKind::Bytes }, &["this database has"]),
            (Error::NotFound { id: Id::U64(7) }, &["id 7", "`put` inserts"]),
            (Error::BatchTooLarge { bytes: 9, limit: 8 }, &["9 bytes", "8 is", "split it"]),
            (Error::Cache { reason: "full".into() }, &["full", "`memory_limit`"]),
        ];
        for (error, parts) in cases {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in: {text}");
            }
        }
    }

    #[test]
    fn damage_that_the_format_finds_keeps_its_file_and_its_place() {
        let file = || "f.seg".to_owned();
        let (expected, found) = (FileKind::Segment, FileKind::Manifest);
        let cases = [
            (FormatError::Corrupt { file: file(), offset: 8, what: "bad".to_owned() }, 8, "bad"),
            (
                FormatError::FeatureUnsupported { file: file(), offset: 8, what: "x".to_owned() },
                8,
                "does not have x",
            ),
            (FormatError::NotNephrite { file: file() }, 0, "does not begin"),
            (FormatError::WrongKind { file: file(), expected, found }, 0, "belongs"),
            (FormatError::WrongIdentity { file: file(), what: "store".to_owned() }, 0, "store"),
        ];
        for (error, place, said) in cases {
            let error = Error::from(error);
            let Error::Corrupt { file, offset, what } = &error else { panic!("{error:?}") };
            assert_eq!((file.as_str(), *offset), ("f.seg", place), "{what}");
            assert!(what.contains(said) && error.is_corrupt(), "{what}");
        }
    }

    #[test]
    fn what_is_no_damage_is_not_taken_for_it() {
        let newer = FormatError::VersionUnsupported { file: "f".to_owned(), found: 2, newest: 1 };
        assert!(matches!(
            Error::from(newer),
            Error::VersionUnsupported { found: 2, newest: 1, .. }
        ));
        let layout = FormatError::InvalidLayout { field: "dimension", reason: "0".to_owned() };
        assert!(matches!(Error::from(layout), Error::InvalidConfig { field: "dimension", .. }));
        let cache = Error::from(PagerError::TooManyFiles);
        assert!(matches!(cache, Error::Cache { .. }) && !cache.is_corrupt());
    }

    #[test]
    fn an_error_comes_through_the_cache_as_it_was_and_others_as_the_caches() {
        let ours = LoadError::new(Error::corrupt("f.seg", 4096, "bad"));
        assert!(matches!(Error::from(ours.clone()), Error::Corrupt { offset: 4096, .. }));
        assert!(matches!(Error::from(ours), Error::Corrupt { .. }), "to each who waited");

        let other = Error::from(LoadError::abandoned());
        assert!(matches!(other, Error::Cache { .. }), "{other:?}");
        assert!(other.to_string().contains("abandoned"), "{other}");
    }

    #[test]
    fn only_a_full_disk_is_one_and_the_cause_of_an_io_error_is_kept() {
        let failed = |kind: std::io::ErrorKind| {
            let (path, source) = (std::path::Path::new("f.seg"), std::io::Error::from(kind));
            Error::from(IoError::new(nephrite_io::IoOperation::Write, path, source))
        };
        let full = failed(std::io::ErrorKind::StorageFull);
        assert!(full.is_disk_full() && !full.is_corrupt(), "{full}");
        assert!(error::Error::source(&full).is_some(), "the cause is kept");

        assert!(!failed(std::io::ErrorKind::PermissionDenied).is_disk_full());
        assert!(!Error::Closed.is_disk_full() && error::Error::source(&Error::Closed).is_none());
    }
}
