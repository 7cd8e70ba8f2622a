//! What the formats have in common once their headers are read.
//!
//! A layout exists only for sizes that fit together: header, rows and file length agree, so that
//! later reads can rely on it.

use std::path::Path;

use super::VectorFileError;

/// The largest dimension a file may have: a row of 4 MiB. Far above what a store accepts; it keeps
/// one row within the block that a reader allocates.
pub(crate) const DIMENSION_MAX: u64 = 1 << 20;
/// Bytes of one f32.
pub(crate) const VALUE_BYTES: u64 = 4;

/// A file format, chosen by the end of the file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Npy,
    Fvecs,
    Fbin,
}

impl Format {
    pub(crate) fn of_path(path: &Path) -> Result<Self, VectorFileError> {
        let extension = path.extension().map(|text| text.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("npy") => Ok(Self::Npy),
            Some("fvecs") => Ok(Self::Fvecs),
            Some("fbin") => Ok(Self::Fbin),
            _ => Err(VectorFileError::UnknownFormat { path: path.to_path_buf() }),
        }
    }
}

/// Byte order of the values in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

/// How rows lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowShape {
    /// Values only.
    Plain(ByteOrder),
    /// A little-endian i32 dimension before the values of each row.
    Prefixed,
}

/// Where the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) rows_offset: u64,
    pub(crate) rows: u64,
    pub(crate) dimension: u32,
    pub(crate) shape: RowShape,
}

impl Layout {
    /// Bytes of one row in the file.
    pub(crate) fn row_bytes(&self) -> u64 {
        let prefix = match self.shape {
            RowShape::Plain(_) => 0,
            RowShape::Prefixed => VALUE_BYTES,
        };
        u64::from(self.dimension) * VALUE_BYTES + prefix
    }
}

/// A dimension that a file may have, or what is wrong with it.
pub(crate) fn checked_dimension(found: u64) -> Result<u32, String> {
    match u32::try_from(found) {
        Ok(dimension) if 0 < dimension && found <= DIMENSION_MAX => Ok(dimension),
        _ => Err(format!("the dimension is {found}, where 1 to {DIMENSION_MAX} is possible")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_chooses_the_format_in_any_case() {
        assert_eq!(Format::of_path(Path::new("a/b.NPY")).unwrap(), Format::Npy);
        assert_eq!(Format::of_path(Path::new("x.fvecs")).unwrap(), Format::Fvecs);
        assert_eq!(Format::of_path(Path::new("x.y.fbin")).unwrap(), Format::Fbin);
        for name in ["x", "x.txt", "npy", ".npy", "x.npy.gz"] {
            let error = Format::of_path(Path::new(name)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(".fvecs"), "{error}");
        }
    }

    #[test]
    fn dimensions_outside_the_limits_are_refused() {
        assert_eq!(checked_dimension(1), Ok(1));
        assert_eq!(checked_dimension(DIMENSION_MAX), Ok(1 << 20));
        for found in [0, DIMENSION_MAX + 1, u64::MAX] {
            assert!(checked_dimension(found).unwrap_err().contains(&found.to_string()));
        }
    }
}
