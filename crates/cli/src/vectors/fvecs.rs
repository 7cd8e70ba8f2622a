//! `.fvecs`: for each row a little-endian i32 dimension, then the values. There is no file header.
//!
//! Rows of one file must all have the dimension of the first. An empty file has no dimension and is
//! refused, so an empty database cannot pass through this format.

use std::path::Path;

use super::VectorFileError;
use super::layout::{Layout, RowShape, VALUE_BYTES, checked_dimension};

/// Reads the layout from the first bytes of a file of `file_bytes` bytes.
pub(crate) fn layout(
    path: &Path,
    start: &[u8],
    file_bytes: u64,
) -> Result<Layout, VectorFileError> {
    let Some((prefix, _)) = start.split_first_chunk::<4>() else {
        let what = "the file ends before the dimension of its first row";
        return Err(VectorFileError::malformed(path, file_bytes, what));
    };
    let dimension = row_dimension(u32::from_le_bytes(*prefix))
        .map_err(|what| VectorFileError::malformed(path, 0, what))?;
    let layout = Layout { rows_offset: 0, rows: 0, dimension, shape: RowShape::Prefixed };
    let row_bytes = layout.row_bytes();
    let rows = file_bytes / row_bytes;
    if !file_bytes.is_multiple_of(row_bytes) {
        let what = format!(
            "{} bytes are left after {rows} rows of {dimension} values, where a row takes \
             {row_bytes}: the file is cut off, has trailing bytes, or its first dimension is wrong",
            file_bytes % row_bytes
        );
        return Err(VectorFileError::malformed(path, rows * row_bytes, what));
    }
    Ok(Layout { rows, ..layout })
}

/// Checks the prefix of row `row` against the dimension of the file.
pub(crate) fn check_prefix(
    path: &Path,
    row: u64,
    prefix: u32,
    dimension: u32,
) -> Result<(), VectorFileError> {
    if prefix == dimension {
        return Ok(());
    }
    let offset = row * (u64::from(dimension) + 1) * VALUE_BYTES;
    let found = prefix.cast_signed();
    let what = format!("row {row} has dimension {found} where the first row has {dimension}");
    Err(VectorFileError::malformed(path, offset, what))
}

/// The dimension that a prefix holds: it is signed in the file.
fn row_dimension(prefix: u32) -> Result<u32, String> {
    match u64::try_from(prefix.cast_signed()) {
        Ok(found) => checked_dimension(found),
        Err(_) => Err(format!("the dimension is {}", prefix.cast_signed())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(prefix: i32, file_bytes: u64) -> Result<Layout, String> {
        layout(Path::new("x.fvecs"), &prefix.to_le_bytes(), file_bytes)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn rows_follow_from_the_file_length() {
        let layout = read(3, 16 * 5).unwrap();
        assert_eq!((layout.rows, layout.dimension, layout.row_bytes()), (5, 3, 16));
    }

    #[test]
    fn truncated_and_trailing_bytes_name_their_offset() {
        assert!(read(3, 15).unwrap_err().contains("byte 0: 15 bytes"));
        assert!(read(3, 33).unwrap_err().contains("byte 32: 1 bytes"));
    }

    #[test]
    fn impossible_dimensions_are_refused() {
        assert!(read(0, 4).unwrap_err().contains("dimension is 0"));
        assert!(read(-4, 4).unwrap_err().contains("dimension is -4"));
        assert!(read(i32::MAX, 4).unwrap_err().contains("2147483647"));
    }

    #[test]
    fn a_file_without_a_whole_prefix_is_refused() {
        for length in 0..4_usize {
            let error = layout(Path::new("x.fvecs"), &[0; 4][..length], length as u64);
            assert!(error.unwrap_err().to_string().contains("before the dimension"));
        }
    }

    #[test]
    fn a_row_of_another_dimension_is_named() {
        assert!(check_prefix(Path::new("x"), 9, 3, 3).is_ok());
        let error = check_prefix(Path::new("x.fvecs"), 2, u32::MAX, 3).unwrap_err().to_string();
        assert!(error.contains("byte 32") && error.contains("row 2"), "{error}");
        assert!(error.contains("dimension -1"), "{error}");
    }
}
