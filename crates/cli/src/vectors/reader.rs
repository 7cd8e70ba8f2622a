//! Reads rows of a vector file in blocks, straight into f32 memory.
//!
//! The values of a plain file go from the kernel into the caller's buffer; rows with a prefix pass
//! through one scratch block. A file that changes size while it is read is an error.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::layout::{ByteOrder, Format, Layout, RowShape};
use super::{VectorFileError, fbin, fvecs, npy};

/// An open vector file whose header and length agree.
pub(crate) struct VectorReader {
    path: PathBuf,
    file: File,
    layout: Layout,
    rows_read: u64,
    /// Rows with their prefixes, for `.fvecs` only.
    scratch: Vec<u32>,
}

impl VectorReader {
    /// Opens a file and checks its header against its length.
    pub(crate) fn open(path: &Path) -> Result<Self, VectorFileError> {
        let format = Format::of_path(path)?;
        let mut file = File::open(path).map_err(|e| VectorFileError::io("opening", path, e))?;
        let metadata = file.metadata().map_err(|e| VectorFileError::io("reading", path, e))?;
        if !metadata.is_file() {
            let what = "this is not a regular file: its length must be known before it is read";
            return Err(VectorFileError::unrepresentable(path, what));
        }
        let layout = read_layout(&mut file, path, format, metadata.len())?;
        file.seek(SeekFrom::Start(layout.rows_offset))
            .map_err(|e| VectorFileError::io("seeking in", path, e))?;
        Ok(Self { path: path.to_path_buf(), file, layout, rows_read: 0, scratch: Vec::new() })
    }

    /// Values of one row, at least one.
    pub(crate) fn dimension(&self) -> u32 {
        self.layout.dimension
    }

    /// Rows in the file.
    pub(crate) fn rows(&self) -> u64 {
        self.layout.rows
    }

    /// Replaces `values` by the next rows, `rows_max` of them or what is left; returns how many.
    pub(crate) fn read_rows(
        &mut self,
        rows_max: usize,
        values: &mut Vec<f32>,
    ) -> Result<usize, VectorFileError> {
        let left = self.layout.rows - self.rows_read;
        let rows = usize::try_from(left).map_or(rows_max, |left| left.min(rows_max));
        let dimension = self.layout.dimension as usize;
        values.resize(rows * dimension, 0.0);
        match self.layout.shape {
            RowShape::Plain(order) => self.read_plain(order, values)?,
            RowShape::Prefixed => self.read_prefixed(rows, dimension, values)?,
        }
        self.rows_read += rows as u64;
        Ok(rows)
    }

    fn read_plain(&mut self, order: ByteOrder, values: &mut [f32]) -> Result<(), VectorFileError> {
        self.read_bytes_into_values(bytemuck::cast_slice_mut(values))?;
        // Words, not floats: a float register of some processors changes signalling NaN.
        let words: &mut [u32] = bytemuck::cast_slice_mut(values);
        match order {
            ByteOrder::Little => words.iter_mut().for_each(|word| *word = u32::from_le(*word)),
            ByteOrder::Big => words.iter_mut().for_each(|word| *word = u32::from_be(*word)),
        }
        Ok(())
    }

    fn read_prefixed(
        &mut self,
        rows: usize,
        dimension: usize,
        values: &mut [f32],
    ) -> Result<(), VectorFileError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(rows * (dimension + 1), 0);
        self.read_bytes_into_values(bytemuck::cast_slice_mut(&mut scratch))?;
        scratch.iter_mut().for_each(|word| *word = u32::from_le(*word));
        let words: &mut [u32] = bytemuck::cast_slice_mut(values);
        let pairs = scratch.chunks_exact(dimension + 1).zip(words.chunks_exact_mut(dimension));
        for (row, (source, target)) in (self.rows_read..).zip(pairs) {
            let (prefix, source) = source.split_first().expect("a chunk has dimension + 1 words");
            fvecs::check_prefix(&self.path, row, *prefix, self.layout.dimension)?;
            target.copy_from_slice(source);
        }
        self.scratch = scratch;
        Ok(())
    }

    fn read_bytes_into_values(&mut self, bytes: &mut [u8]) -> Result<(), VectorFileError> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let offset = self.layout.rows_offset + self.rows_read * self.layout.row_bytes();
                let what = "the file became shorter while it was read";
                VectorFileError::malformed(&self.path, offset, what)
            }
            _ => VectorFileError::io("reading", &self.path, error),
        })
    }
}

fn read_layout(
    file: &mut File,
    path: &Path,
    format: Format,
    file_bytes: u64,
) -> Result<Layout, VectorFileError> {
    let mut start = read_start(file, path, npy::PREFIX_BYTES)?;
    match format {
        Format::Fvecs => fvecs::layout(path, &start, file_bytes),
        Format::Fbin => fbin::layout(path, &start, file_bytes),
        Format::Npy => {
            let wanted = npy::header_bytes(path, &start, file_bytes)?;
            // The prefix may be longer than a very short header; the rest follows it.
            let rest = read_start(file, path, wanted.saturating_sub(start.len()))?;
            start.extend(rest);
            start.truncate(wanted);
            npy::layout(path, &start, file_bytes)
        }
    }
}

/// The next `limit` bytes, or as many as there are.
fn read_start(file: &mut File, path: &Path, limit: usize) -> Result<Vec<u8>, VectorFileError> {
    let mut start = Vec::new();
    file.take(limit as u64)
        .read_to_end(&mut start)
        .map_err(|e| VectorFileError::io("reading", path, e))?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn with_file<T>(name: &str, bytes: &[u8], check: impl FnOnce(&Path) -> T) -> T {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        check(&path)
    }

    fn read_all(path: &Path, block: usize) -> Result<Vec<Vec<u32>>, String> {
        let mut reader = VectorReader::open(path).map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        let mut values = Vec::new();
        loop {
            let count = reader.read_rows(block, &mut values).map_err(|error| error.to_string())?;
            if count == 0 {
                assert_eq!(rows.len() as u64, reader.rows());
                return Ok(rows);
            }
            assert!(values.len() == count * reader.dimension() as usize);
            let bits = values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            rows.extend(bits.chunks(reader.dimension() as usize).map(<[u32]>::to_vec));
        }
    }

    /// Bit patterns that a careless float conversion would change.
    const WORDS: [u32; 6] = [0x8000_0000, 0x7fa0_0001, 0xff80_0000, 1, 0x3f80_0000, 0xffff_ffff];

    #[test]
    fn all_formats_give_the_same_bits_in_blocks_of_any_size() {
        let body = |order: fn(u32) -> [u8; 4]| WORDS.map(order).concat();
        let prefixed: Vec<u8> = WORDS
            .chunks(3)
            .flat_map(|row| {
                [
                    &3_u32.to_le_bytes()[..],
                    &row.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>(),
                ]
                .concat()
            })
            .collect();
        let big_header = String::from_utf8_lossy(&npy::header(2, 3)[10..]).replace("<f4", ">f4");
        let big_start = [b"\x93NUMPY\x01\0".as_slice(), &[118, 0], big_header.as_bytes()].concat();
        let files = [
            ("a.npy", [npy::header(2, 3), body(u32::to_le_bytes)].concat()),
            ("b.npy", [big_start, body(u32::to_be_bytes)].concat()),
            ("c.fvecs", prefixed),
            ("d.fbin", [[2, 0, 0, 0, 3, 0, 0, 0].to_vec(), body(u32::to_le_bytes)].concat()),
        ];
        for (name, bytes) in files {
            for block in 1..4 {
                let rows = with_file(name, &bytes, |path| read_all(path, block));
                assert_eq!(
                    rows.as_deref(),
                    Ok(&[WORDS[..3].to_vec(), WORDS[3..].to_vec()][..]),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_later_row_of_another_dimension_is_an_error() {
        let words = [2_u32, 0, 0, 3, 0, 0];
        let bytes = words.map(u32::to_le_bytes).concat();
        let error = with_file("x.fvecs", &bytes, |path| read_all(path, 1)).unwrap_err();
        assert!(error.contains("byte 12") && error.contains("row 1"), "{error}");
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let bytes = [npy::header(4, 2), vec![0; 32]].concat();
        let error = with_file("x.npy", &bytes, |path| {
            let mut reader = VectorReader::open(path).unwrap();
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(140).unwrap();
            reader.read_rows(4, &mut Vec::new()).unwrap_err().to_string()
        });
        assert!(error.contains("byte 128") && error.contains("shorter"), "{error}");
    }

    #[test]
    fn missing_and_special_files_are_errors() {
        let missing = VectorReader::open(Path::new("/no/such.npy")).err().unwrap().to_string();
        assert!(missing.contains("/no/such.npy"), "{missing}");
        let directory = tempfile::Builder::new().suffix(".npy").tempdir().unwrap();
        assert!(VectorReader::open(directory.path()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let starts = [npy::header(2, 3), [2_u32, 3].map(u32::to_le_bytes).concat(), Vec::new()];
        for seed in 0..600_u64 {
            let mut bytes = starts[usize::try_from(seed % 3).unwrap()].clone();
            let extra = crate::embeddings::mix(seed) % 40;
            bytes.extend(
                (0..extra).map(|at| crate::embeddings::mix(seed ^ (at << 32)).to_le_bytes()[0]),
            );
            if let Some(length) = bytes.len().checked_sub(1) {
                let place = usize::try_from(crate::embeddings::mix(!seed)).unwrap() % (length + 1);
                bytes[place] ^= 1 << (seed % 8);
            }
            for name in ["x.npy", "x.fvecs", "x.fbin"] {
                let outcome = with_file(name, &bytes, |path| read_all(path, 2));
                assert!(outcome.is_ok() || outcome.unwrap_err().contains(name));
            }
        }
    }
}
