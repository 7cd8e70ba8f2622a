//! Writes rows of known number and dimension as `.npy`, `.fvecs` or `.fbin`.
//!
//! The file appears under its name only when all announced rows were written.

use std::path::Path;

use super::layout::Format;
use super::replace::Replacement;
use super::{VectorFileError, fbin, npy};

/// A vector file in the making.
pub(crate) struct VectorWriter {
    file: Replacement,
    /// Written before each row; empty where the format has none.
    row_prefix: Vec<u8>,
    dimension: usize,
    rows_left: u64,
    /// One row in the byte order of the file.
    words: Vec<u32>,
}

impl VectorWriter {
    /// Starts a file of exactly `rows` rows; the end of the name chooses the format.
    pub(crate) fn create(path: &Path, rows: u64, dimension: u32) -> Result<Self, VectorFileError> {
        let (header, row_prefix) = match Format::of_path(path)? {
            Format::Npy => (npy::header(rows, dimension), Vec::new()),
            Format::Fbin => (fbin::header(path, rows, dimension)?, Vec::new()),
            Format::Fvecs => (Vec::new(), dimension.to_le_bytes().to_vec()),
        };
        let mut file = Replacement::create(path)?;
        file.write(&header)?;
        let dimension = dimension as usize;
        Ok(Self { file, row_prefix, dimension, rows_left: rows, words: vec![0; dimension] })
    }

    /// Appends one row of the file's dimension.
    pub(crate) fn write_row(&mut self, row: &[f32]) -> Result<(), VectorFileError> {
        assert_eq!(row.len(), self.dimension, "rows of one database have one dimension");
        self.rows_left = self.rows_left.checked_sub(1).ok_or_else(|| {
            VectorFileError::unrepresentable(self.file.target(), "more rows than were counted")
        })?;
        self.file.write(&self.row_prefix)?;
        for (word, value) in self.words.iter_mut().zip(row) {
            *word = value.to_bits().to_le();
        }
        self.file.write(bytemuck::cast_slice(&self.words))
    }

    /// Gives the file its name.
    pub(crate) fn commit(self) -> Result<(), VectorFileError> {
        if self.rows_left != 0 {
            let what = format!("{} rows fewer than were counted", self.rows_left);
            return Err(VectorFileError::unrepresentable(self.file.target(), what));
        }
        self.file.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::VectorReader;

    const ROWS: [[u32; 3]; 2] = [[0x7fa0_0001, 0x8000_0000, 1], [0xffc0_0000, 2, 0x7f80_0000]];

    #[test]
    fn every_format_reads_back_bit_for_bit() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.npy", "a.fvecs", "a.fbin"] {
            let path = directory.path().join(name);
            let mut writer = VectorWriter::create(&path, 2, 3).unwrap();
            for row in ROWS {
                writer.write_row(&row.map(f32::from_bits)).unwrap();
            }
            writer.commit().unwrap();
            let mut reader = VectorReader::open(&path).unwrap();
            let mut values = Vec::new();
            assert_eq!(reader.read_rows(10, &mut values).unwrap(), 2, "{name}");
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, ROWS.concat(), "{name}");
        }
    }

    #[test]
    fn the_announced_row_count_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.npy");
        let mut writer = VectorWriter::create(&path, 1, 1).unwrap();
        writer.write_row(&[1.0]).unwrap();
        assert!(writer.write_row(&[2.0]).is_err());
        let short = VectorWriter::create(&path, 1, 1).unwrap();
        assert!(short.commit().unwrap_err().to_string().contains("1 rows fewer"));
        assert!(!path.exists());
    }
}
