//! What decoding can find wrong, with the place and the way out.
//!
//! Damage in bytes from disk is always a value of [`FormatError`], never a panic. Errors about
//! ids that a caller passed are [`crate::IdError`]; errors about a single frame, which recovery
//! must tell apart, are [`crate::frame::FrameError`].

use std::fmt;

use crate::header::FileKind;

/// Result of a decoder.
pub type Result<T> = std::result::Result<T, FormatError>;

/// Why bytes were refused.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FormatError {
    /// The bytes are not what was written.
    Corrupt {
        /// File name or path, as the caller gave it.
        file: String,
        /// Byte offset in the file of what is wrong.
        offset: u64,
        /// What is wrong, with the values.
        what: String,
    },
    /// The file was written by a newer format.
    VersionUnsupported {
        /// File name or path, as the caller gave it.
        file: String,
        /// Version in the file.
        found: u32,
        /// Newest version this build reads.
        newest: u32,
    },
    /// The file does not begin with Nephrite's magic bytes.
    NotNephrite {
        /// File name or path, as the caller gave it.
        file: String,
    },
    /// The file is Nephrite's, but another kind of file was expected.
    WrongKind {
        /// File name or path, as the caller gave it.
        file: String,
        /// What was expected.
        expected: FileKind,
        /// What the header says.
        found: FileKind,
    },
    /// The file is whole but belongs elsewhere: another store, another file id.
    WrongIdentity {
        /// File name or path, as the caller gave it.
        file: String,
        /// What does not match, with both values.
        what: String,
    },
    /// The file uses something that this build does not have: encryption, compression, an element
    /// type, a required section.
    FeatureUnsupported {
        /// File name or path, as the caller gave it.
        file: String,
        /// Byte offset in the file of the field that says so.
        offset: u64,
        /// What is missing.
        what: String,
    },
    /// A vector layout was asked for that cannot be.
    InvalidLayout {
        /// The value at fault.
        field: &'static str,
        /// The rule it breaks, with the value.
        reason: String,
    },
}

impl FormatError {
    /// Damage at `offset` of `file`.
    #[must_use]
    pub fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, what: what.into() }
    }

    /// A checksum that does not match, at the place where it is stored.
    #[must_use]
    pub fn checksum(file: &str, offset: u64, thing: &str, stored: u64, computed: u64) -> Self {
        Self::corrupt(
            file,
            offset,
            format!("{thing} has checksum {computed:#018x} where {stored:#018x} was stored"),
        )
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { file, offset, what } => write!(
                formatter,
                "{file} is damaged at byte {offset}: {what}; run `nephrite verify` to see the \
                 extent and restore the file from a copy"
            ),
            Self::VersionUnsupported { file, found, newest } => write!(
                formatter,
                "{file} has format version {found} and this build reads up to version {newest}; \
                 open it with a newer Nephrite"
            ),
            Self::NotNephrite { file } => write!(
                formatter,
                "{file} is not a Nephrite file: its first 8 bytes are not Nephrite's; check the \
                 path"
            ),
            Self::WrongKind { file, expected, found } => write!(
                formatter,
                "{file} is a {found} file where a {expected} file was expected; check whether \
                 files of the store were renamed"
            ),
            Self::WrongIdentity { file, what } => write!(
                formatter,
                "{file} belongs elsewhere: {what}; check whether files of several stores were \
                 mixed or renamed"
            ),
            Self::FeatureUnsupported { file, offset, what } => write!(
                formatter,
                "{file} needs something this build lacks (byte {offset}): {what}; open it with a \
                 build that has it"
            ),
            Self::InvalidLayout { field, reason } => write!(formatter, "{field}: {reason}"),
        }
    }
}

impl std::error::Error for FormatError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_file_place_and_way_out() {
        let damage = FormatError::checksum("a.seg", 8192, "page", 1, 2).to_string();
        for part in ["a.seg", "8192", "0x0000000000000001", "0x0000000000000002", "verify"] {
            assert!(damage.contains(part), "{damage} lacks {part}");
        }
        let newer = FormatError::VersionUnsupported { file: "m".into(), found: 9, newest: 1 };
        assert!(newer.to_string().contains("version 9"));
        assert!(newer.to_string().contains("newer Nephrite"));
    }
}
