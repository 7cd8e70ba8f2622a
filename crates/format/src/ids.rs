//! Typed numbers, so that a file id is never passed where a row is meant.
//!
//! All are plain copies of an integer with order, hash and display; they carry no rule of their
//! own except [`Row::TOMBSTONE`]. Decoders check ranges where ranges exist.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $display:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a plain number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, $display, self.0)
            }
        }
    };
}

number!(
    /// A file of a store; shown as the 16 hex digits that are also in the file's name.
    FileId(u64),
    "{:016x}"
);
number!(
    /// A database of a store. Never used again after the database is dropped.
    DatabaseId(u32),
    "{}"
);
number!(
    /// A page of a file, counted in pages of that section.
    PageNo(u64),
    "{}"
);
number!(
    /// One life of a file: a recycled log segment gets a new generation, so that frames of its
    /// former life do not verify any more.
    Generation(u64),
    "{}"
);
number!(
    /// Log sequence number of a record: strictly increasing over the life of a store.
    Lsn(u64),
    "{}"
);
number!(
    /// Position of a frame in its log: strictly plus one per frame.
    FrameSequence(u64),
    "{}"
);
number!(
    /// A row of a segment: the position of its vector.
    Row(u32),
    "{}"
);

impl Row {
    /// Not a row: the id was deleted. Segments hold fewer rows than this.
    pub const TOMBSTONE: Self = Self(u32::MAX);

    /// Whether this marks a deleted id.
    #[must_use]
    pub const fn is_tombstone(self) -> bool {
        self.0 == u32::MAX
    }
}

impl FrameSequence {
    /// The sequence of the frame that follows this one.
    ///
    /// # Panics
    /// After 2^64 frames, which no store reaches.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Sixteen random bytes drawn when a store is created; shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// Wraps the sixteen bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes.
    #[must_use]
    pub const fn get(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoreId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_store_display_as_hex() {
        assert_eq!(FileId::new(0x2a).to_string(), "000000000000002a");
        let store = StoreId::new([0xab; 16]);
        assert_eq!(store.to_string(), "ab".repeat(16));
        assert_eq!(format!("{store:?}"), format!("StoreId({store})"));
    }

    #[test]
    fn only_the_largest_row_is_a_tombstone() {
        assert!(Row::TOMBSTONE.is_tombstone());
        assert!(!Row::new(u32::MAX - 1).is_tombstone());
    }
}
