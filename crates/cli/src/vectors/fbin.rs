//! `.fbin`: little-endian u32 row count, u32 dimension, then the values row by row.
//!
//! The file length must be exactly 8 + rows x dimension x 4; when it is not, the error says which
//! of the two header fields the length speaks against.

use std::path::Path;

use super::VectorFileError;
use super::layout::{ByteOrder, Layout, RowShape, VALUE_BYTES, checked_dimension};

/// Bytes before the first row.
pub(crate) const HEADER_BYTES: usize = 8;

/// The header of a file of `rows` rows of `dimension` values.
pub(crate) fn header(path: &Path, rows: u64, dimension: u32) -> Result<Vec<u8>, VectorFileError> {
    let rows = u32::try_from(rows).map_err(|_| {
        let what = format!(".fbin counts rows in 32 bits and cannot hold {rows}: use .npy");
        VectorFileError::unrepresentable(path, what)
    })?;
    Ok([rows.to_le_bytes(), dimension.to_le_bytes()].concat())
}

/// Reads the layout from the first bytes of a file of `file_bytes` bytes.
pub(crate) fn layout(
    path: &Path,
    start: &[u8],
    file_bytes: u64,
) -> Result<Layout, VectorFileError> {
    let (Some((rows, rest)), true) = (start.split_first_chunk::<4>(), 8 <= file_bytes) else {
        return Err(short(path, file_bytes));
    };
    let Some((dimension, _)) = rest.split_first_chunk::<4>() else {
        return Err(short(path, file_bytes));
    };
    let rows = u64::from(u32::from_le_bytes(*rows));
    let found = u64::from(u32::from_le_bytes(*dimension));
    let dimension =
        checked_dimension(found).map_err(|what| VectorFileError::malformed(path, 4, what))?;
    let body = file_bytes - HEADER_BYTES as u64;
    // Both factors are below 2^32 and 2^23: the product fits 64 bits.
    if rows * found * VALUE_BYTES != body {
        return Err(mismatch(path, rows, found, body));
    }
    let shape = RowShape::Plain(ByteOrder::Little);
    Ok(Layout { rows_offset: HEADER_BYTES as u64, rows, dimension, shape })
}

fn short(path: &Path, file_bytes: u64) -> VectorFileError {
    let what = format!("the file ends within its header of {HEADER_BYTES} bytes");
    VectorFileError::malformed(path, file_bytes, what)
}

/// Says which field the file length speaks against.
fn mismatch(path: &Path, rows: u64, dimension: u64, body: u64) -> VectorFileError {
    let row_bytes = dimension * VALUE_BYTES;
    let column_bytes = rows * VALUE_BYTES;
    let told = format!("{rows} rows of {dimension} values need {} bytes", rows * row_bytes);
    let (offset, verdict) = if body.is_multiple_of(row_bytes) {
        let fits = body / row_bytes;
        (0, format!("with this dimension, the row count should be {fits}"))
    } else if 0 < column_bytes && body.is_multiple_of(column_bytes) {
        let fits = body / column_bytes;
        (4, format!("with this row count, the dimension should be {fits}"))
    } else if body < rows * row_bytes {
        (body + HEADER_BYTES as u64, "the file is cut off".to_string())
    } else {
        let end = rows * row_bytes;
        (end + HEADER_BYTES as u64, format!("{} bytes are left over", body - end))
    };
    let what = format!("{told} after the header, where there are {body}: {verdict}");
    VectorFileError::malformed(path, offset, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: u32, dimension: u32, file_bytes: u64) -> Result<Layout, String> {
        let start = [rows.to_le_bytes(), dimension.to_le_bytes()].concat();
        layout(Path::new("x.fbin"), &start, file_bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn a_header_is_read_back() {
        let start = header(Path::new("x.fbin"), 3, 100).unwrap();
        let layout = layout(Path::new("x.fbin"), &start, 8 + 1200).unwrap();
        assert_eq!((layout.rows, layout.dimension, layout.rows_offset), (3, 100, 8));
    }

    #[test]
    fn the_wrong_field_is_named() {
        let rows = read(7, 4, 8 + 16 * 5).unwrap_err();
        assert!(rows.contains("byte 0") && rows.contains("should be 5"), "{rows}");
        let dimension = read(7, 4, 8 + 28 * 3).unwrap_err();
        assert!(dimension.contains("byte 4") && dimension.contains("should be 3"), "{dimension}");
        let cut = read(7, 4, 8 + 111).unwrap_err();
        assert!(cut.contains("byte 119") && cut.contains("cut off"), "{cut}");
        let trailing = read(7, 4, 8 + 113).unwrap_err();
        assert!(trailing.contains("byte 120") && trailing.contains("1 bytes"), "{trailing}");
    }

    #[test]
    fn impossible_headers_are_refused() {
        assert!(read(1, 0, 8).unwrap_err().contains("dimension is 0"));
        assert!(read(1, u32::MAX, 8).unwrap_err().contains("byte 4"));
        assert!(read(u32::MAX, 1 << 20, 8).unwrap_err().contains("should be 0"));
        for length in 0..8_usize {
            let error = layout(Path::new("x.fbin"), &[1; 8][..length], length as u64).unwrap_err();
            assert!(error.to_string().contains("within its header"), "{error}");
        }
    }

    #[test]
    fn more_rows_than_32_bits_are_refused_by_name() {
        let error = header(Path::new("x.fbin"), 1 << 32, 4).unwrap_err().to_string();
        assert!(error.contains(".npy"), "{error}");
    }
}
