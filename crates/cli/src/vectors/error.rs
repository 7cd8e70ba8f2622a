//! What can be wrong with a vector file or an id file.

use std::path::{Path, PathBuf};
use std::{error, fmt, io};

/// A failure to read or write a vector file or an id file; it names the file and the place.
#[derive(Debug)]
pub(crate) enum VectorFileError {
    /// The operating system refused.
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// Bytes that cannot be what the format says.
    Malformed { path: PathBuf, offset: u64, what: String },
    /// A line of an id file that is no id.
    BadLine { path: PathBuf, line: u64, what: String },
    /// Something that this format cannot hold.
    Unrepresentable { path: PathBuf, what: String },
    /// The file name does not say which format is meant.
    UnknownFormat { path: PathBuf },
}

impl VectorFileError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    pub(crate) fn malformed(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), offset, what: what.into() }
    }

    pub(crate) fn bad_line(path: &Path, line: u64, what: impl Into<String>) -> Self {
        Self::BadLine { path: path.to_path_buf(), line, what: what.into() }
    }

    pub(crate) fn unrepresentable(path: &Path, what: impl Into<String>) -> Self {
        Self::Unrepresentable { path: path.to_path_buf(), what: what.into() }
    }
}

impl fmt::Display for VectorFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, source } => {
                write!(f, "{doing} {}: {source}", path.display())
            }
            Self::Malformed { path, offset, what } => {
                write!(f, "{} at byte {offset}: {what}", path.display())
            }
            Self::BadLine { path, line, what } => {
                write!(f, "{} line {line}: {what}", path.display())
            }
            Self::Unrepresentable { path, what } => write!(f, "{}: {what}", path.display()),
            Self::UnknownFormat { path } => write!(
                f,
                "{}: the name must end in .npy, .fvecs or .fbin to say which format is meant",
                path.display()
            ),
        }
    }
}

impl error::Error for VectorFileError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
