//! Record ids: unsigned numbers or byte strings of 1 to 255 bytes.
//!
//! A database has one [`IdKind`]. [`IdRef`] borrows and is what calls take; [`Id`] owns. Order is
//! numeric for numbers and lexicographic for bytes, which is the order of id runs and scans.
//! Constructing an `IdRef` checks nothing; [`IdRef::validate`] does, once, at the border.

use std::fmt;

/// The longest byte id, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// What the ids of a database are.
#[expect(
    clippy::exhaustive_enums,
    reason = "callers must handle both kinds; a third is a new format"
)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IdKind {
    /// Unsigned 64-bit numbers.
    U64,
    /// Byte strings of 1 to [`MAX_ID_BYTES`] bytes: text, UUIDs, hashes.
    Bytes,
}

impl IdKind {
    /// The byte that stands for this kind on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::U64 => 1,
            Self::Bytes => 2,
        }
    }

    /// The kind that a byte on disk stands for, if any.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::U64),
            2 => Some(Self::Bytes),
            _ => None,
        }
    }
}

impl fmt::Display for IdKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::U64 => "u64",
            Self::Bytes => "bytes",
        })
    }
}

/// A borrowed record id.
#[expect(
    clippy::exhaustive_enums,
    reason = "callers must handle both kinds; a third is a new format"
)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IdRef<'a> {
    /// A number.
    U64(u64),
    /// A byte string.
    Bytes(&'a [u8]),
}

impl IdRef<'_> {
    /// The kind of this id.
    #[must_use]
    pub const fn kind(self) -> IdKind {
        match self {
            Self::U64(_) => IdKind::U64,
            Self::Bytes(_) => IdKind::Bytes,
        }
    }

    /// An owned copy. Allocates for byte ids.
    #[must_use]
    pub fn to_id(self) -> Id {
        match self {
            Self::U64(number) => Id::U64(number),
            Self::Bytes(bytes) => Id::Bytes(bytes.into()),
        }
    }

    /// Checks that a database of `kind` can hold this id.
    ///
    /// # Errors
    /// Names the rule that the id breaks: kind, empty, or longer than [`MAX_ID_BYTES`].
    #[inline]
    pub const fn validate(self, kind: IdKind) -> Result<(), IdError> {
        match (self, kind) {
            (Self::U64(_), IdKind::U64) => Ok(()),
            (Self::Bytes([]), IdKind::Bytes) => Err(IdError::Empty),
            (Self::Bytes(bytes), IdKind::Bytes) if MAX_ID_BYTES < bytes.len() => {
                Err(IdError::TooLong { bytes: bytes.len() })
            }
            (Self::Bytes(_), IdKind::Bytes) => Ok(()),
            _ => Err(IdError::WrongKind { expected: kind, found: self.kind() }),
        }
    }
}

impl From<u64> for IdRef<'_> {
    fn from(number: u64) -> Self {
        Self::U64(number)
    }
}

impl<'a> From<&'a str> for IdRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Bytes(text.as_bytes())
    }
}

impl<'a> From<&'a String> for IdRef<'a> {
    fn from(text: &'a String) -> Self {
        Self::Bytes(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for IdRef<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for IdRef<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for IdRef<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Id> for IdRef<'a> {
    fn from(id: &'a Id) -> Self {
        id.as_id_ref()
    }
}

/// Text as it is when it is printable UTF-8, otherwise with `\xNN` escapes.
impl fmt::Display for IdRef<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U64(number) => write!(formatter, "{number}"),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains(char::is_control) => formatter.write_str(text),
                _ => write!(formatter, "{}", bytes.escape_ascii()),
            },
        }
    }
}

/// An owned record id.
#[expect(
    clippy::exhaustive_enums,
    reason = "callers must handle both kinds; a third is a new format"
)]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Id {
    /// A number.
    U64(u64),
    /// A byte string.
    Bytes(Box<[u8]>),
}

impl Id {
    /// This id, borrowed.
    #[must_use]
    pub const fn as_id_ref(&self) -> IdRef<'_> {
        match self {
            Self::U64(number) => IdRef::U64(*number),
            Self::Bytes(bytes) => IdRef::Bytes(bytes),
        }
    }

    /// The kind of this id.
    #[must_use]
    pub const fn kind(&self) -> IdKind {
        self.as_id_ref().kind()
    }
}

impl From<IdRef<'_>> for Id {
    fn from(id: IdRef<'_>) -> Self {
        id.to_id()
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self::U64(number)
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().into())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes().into())
    }
}

impl From<&[u8]> for Id {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Vec<u8>> for Id {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_id_ref().fmt(formatter)
    }
}

/// Why an id was refused.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdError {
    /// A byte id has at least one byte.
    Empty,
    /// A byte id has at most [`MAX_ID_BYTES`] bytes.
    TooLong {
        /// Length of the refused id.
        bytes: usize,
    },
    /// The database holds ids of the other kind.
    WrongKind {
        /// What the database holds.
        expected: IdKind,
        /// What was given.
        found: IdKind,
    },
}

impl fmt::Display for IdError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("the id is empty; give it at least one byte"),
            Self::TooLong { bytes } => write!(
                formatter,
                "the id has {bytes} bytes where {MAX_ID_BYTES} are allowed; use a shorter id or \
                 a hash of it"
            ),
            Self::WrongKind { expected, found } => write!(
                formatter,
                "the id is of kind {found} where the database holds {expected} ids"
            ),
        }
    }
}

impl std::error::Error for IdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_order_numerically_and_bytes_lexicographically() {
        assert!(IdRef::from(9) < IdRef::from(10));
        assert!(IdRef::from("10") < IdRef::from("9"));
        assert!(IdRef::from("a") < IdRef::from("ab"));
        assert!(IdRef::from(u64::MAX) < IdRef::from("\0"));
    }

    #[test]
    fn owned_and_borrowed_ids_order_alike() {
        let ids = [Id::from(3), Id::from("b"), Id::from(1), Id::from("a")];
        let mut owned = ids.to_vec();
        owned.sort();
        let mut borrowed: Vec<IdRef<'_>> = ids.iter().map(IdRef::from).collect();
        borrowed.sort();
        assert_eq!(borrowed.into_iter().map(IdRef::to_id).collect::<Vec<_>>(), owned);
    }

    #[test]
    fn validate_refuses_empty_long_and_wrong_kind() {
        let long = vec![7_u8; MAX_ID_BYTES + 1];
        assert_eq!(IdRef::from("").validate(IdKind::Bytes), Err(IdError::Empty));
        assert_eq!(
            IdRef::from(&long).validate(IdKind::Bytes),
            Err(IdError::TooLong { bytes: MAX_ID_BYTES + 1 })
        );
        assert_eq!(IdRef::from(&long[1..]).validate(IdKind::Bytes), Ok(()));
        assert_eq!(IdRef::from(0).validate(IdKind::U64), Ok(()));
        assert!(IdRef::from(0).validate(IdKind::Bytes).is_err());
        assert!(IdRef::from("x").validate(IdKind::U64).is_err());
    }

    #[test]
    fn display_shows_text_and_escapes_the_rest() {
        assert_eq!(IdRef::from("grün").to_string(), "grün");
        assert_eq!(IdRef::from(&[0xff_u8, b'a']).to_string(), "\\xffa");
        assert_eq!(IdRef::from("a\nb").to_string(), "a\\nb");
        assert_eq!(Id::from(12).to_string(), "12");
    }
}
