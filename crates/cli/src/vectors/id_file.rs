//! Id files: one id a line, in the order of the rows.
//!
//! Lines end with LF or CRLF; the last line may have no end. An id is any bytes but line ends, 1 to
//! [`MAX_ID_BYTES`] of them; for databases with u64 ids, a decimal number. An empty line is an
//! error that names its number. An id that occurs twice is legal: the later row wins, as with two
//! writes.
//!
//! Memory is bounded by one line and one block, whatever the file holds.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use nephrite::{Id, IdKind, IdRef, MAX_ID_BYTES};

use super::VectorFileError;
use super::replace::Replacement;

/// Bytes read from the file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// The ids of one block of rows.
#[derive(Debug)]
pub(crate) enum IdBlock {
    U64(Vec<u64>),
    /// Ids one after another, and where each ends.
    Bytes {
        bytes: Vec<u8>,
        ends: Vec<usize>,
    },
}

impl IdBlock {
    pub(crate) fn new(kind: IdKind) -> Self {
        match kind {
            IdKind::U64 => Self::U64(Vec::new()),
            IdKind::Bytes => Self::Bytes { bytes: Vec::new(), ends: Vec::new() },
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::U64(ids) => ids.len(),
            Self::Bytes { ends, .. } => ends.len(),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::U64(ids) => ids.clear(),
            Self::Bytes { bytes, ends } => {
                bytes.clear();
                ends.clear();
            }
        }
    }

    fn push(&mut self, line: &[u8]) -> Result<(), String> {
        match self {
            Self::U64(ids) => ids.push(parse_number(line)?),
            Self::Bytes { bytes, ends } => {
                if MAX_ID_BYTES < line.len() {
                    return Err(format!("an id is at most {MAX_ID_BYTES} bytes long"));
                }
                bytes.extend_from_slice(line);
                ends.push(bytes.len());
            }
        }
        Ok(())
    }
}

/// A decimal u64 without sign or blanks.
pub(crate) fn parse_number(text: &[u8]) -> Result<u64, String> {
    let shown = || String::from_utf8_lossy(text).escape_debug().to_string();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(format!("'{}' is not a whole number, as u64 ids are", shown()));
    }
    text.iter()
        .try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or_else(|| format!("{} is above the largest u64 id, {}", shown(), u64::MAX))
}

/// Reads ids block by block.
pub(crate) struct IdFileReader {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    lines_read: u64,
}

impl IdFileReader {
    pub(crate) fn open(path: &Path) -> Result<Self, VectorFileError> {
        let file = File::open(path).map_err(|e| VectorFileError::io("opening", path, e))?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path: path.to_path_buf(), reader, line: Vec::new(), lines_read: 0 })
    }

    /// Reads a whole file to learn how many ids it has, and that each of them can be one.
    pub(crate) fn check(path: &Path, kind: IdKind) -> Result<u64, VectorFileError> {
        const BLOCK: usize = 4096;
        let mut reader = Self::open(path)?;
        let mut block = IdBlock::new(kind);
        while reader.read_ids(BLOCK, &mut block)? == BLOCK {}
        Ok(reader.lines_read)
    }

    /// Replaces `block` by the next ids, `ids_max` of them or what is left; returns how many.
    pub(crate) fn read_ids(
        &mut self,
        ids_max: usize,
        block: &mut IdBlock,
    ) -> Result<usize, VectorFileError> {
        block.clear();
        while block.len() < ids_max && self.read_line()? {
            if self.line.is_empty() {
                let what = "an empty line, where an id is needed";
                return Err(VectorFileError::bad_line(&self.path, self.lines_read, what));
            }
            block
                .push(&self.line)
                .map_err(|what| VectorFileError::bad_line(&self.path, self.lines_read, what))?;
        }
        Ok(block.len())
    }

    /// The error for a file that has fewer ids than it had when it was checked.
    pub(crate) fn changed(&self) -> VectorFileError {
        let what = "the file became shorter while it was read";
        VectorFileError::bad_line(&self.path, self.lines_read + 1, what)
    }

    /// Reads one line without its end; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, VectorFileError> {
        /// The longest legal line with CRLF, and one byte more to notice longer ones.
        const LINE_BYTES_MAX: u64 = MAX_ID_BYTES as u64 + 3;
        self.line.clear();
        let read = self
            .reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut self.line)
            .map_err(|e| VectorFileError::io("reading", &self.path, e))?;
        if read == 0 {
            return Ok(false);
        }
        self.lines_read += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }
}

/// Writes an id file that appears under its name only when it is whole.
pub(crate) struct IdFileWriter {
    file: Replacement,
}

impl IdFileWriter {
    pub(crate) fn create(path: &Path) -> Result<Self, VectorFileError> {
        Ok(Self { file: Replacement::create(path)? })
    }

    /// Appends one id.
    pub(crate) fn write(&mut self, id: &Id) -> Result<(), VectorFileError> {
        match IdRef::from(id) {
            IdRef::U64(number) => self.file.write(format!("{number}\n").as_bytes()),
            IdRef::Bytes(bytes) => {
                if bytes.contains(&b'\n') || bytes.ends_with(b"\r") {
                    let what = format!("id {id} has a line end and would be read back differently");
                    return Err(VectorFileError::unrepresentable(self.file.target(), what));
                }
                self.file.write(bytes)?;
                self.file.write(b"\n")
            }
        }
    }

    pub(crate) fn commit(self) -> Result<(), VectorFileError> {
        self.file.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(text: &[u8], kind: IdKind) -> Result<(u64, IdBlock), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ids.txt");
        fs::write(&path, text).unwrap();
        let count = IdFileReader::check(&path, kind).map_err(|error| error.to_string())?;
        let mut block = IdBlock::new(kind);
        let mut reader = IdFileReader::open(&path).unwrap();
        reader.read_ids(usize::MAX, &mut block).map_err(|error| error.to_string())?;
        Ok((count, block))
    }

    fn texts(block: &IdBlock) -> Vec<&[u8]> {
        let IdBlock::Bytes { bytes, ends } = block else { panic!("{block:?}") };
        let starts = [0].iter().chain(ends);
        starts.zip(ends).map(|(start, end)| &bytes[*start..*end]).collect()
    }

    #[test]
    fn line_ends_of_both_kinds_are_taken_off() {
        let (count, block) = read(b"a\r\nb c\n\xff\xfe\nlast", IdKind::Bytes).unwrap();
        assert_eq!(count, 4);
        assert_eq!(texts(&block), [&b"a"[..], b"b c", b"\xff\xfe", b"last"]);
        assert_eq!(read(b"", IdKind::Bytes).unwrap().0, 0);
    }

    #[test]
    fn numbers_are_read_up_to_the_largest() {
        let (_, block) = read(b"0\n18446744073709551615\r\n7\n", IdKind::U64).unwrap();
        let IdBlock::U64(ids) = block else { panic!("{block:?}") };
        assert_eq!(ids, [0, u64::MAX, 7]);
    }

    #[test]
    fn bad_lines_are_named_by_number() {
        for (text, kind, line) in [
            (&b"a\n\nb\n"[..], IdKind::Bytes, 2),
            (b"a\r\n\r\n", IdKind::Bytes, 2),
            (b"1\n2\nthree\n", IdKind::U64, 3),
            (b"+1\n", IdKind::U64, 1),
            (b"1\n18446744073709551616\n", IdKind::U64, 2),
        ] {
            let error = read(text, kind).unwrap_err();
            assert!(error.contains(&format!("ids.txt line {line}:")), "{error}");
        }
    }

    #[test]
    fn the_longest_id_is_read_and_one_byte_more_is_refused() {
        let longest = [vec![b'x'; MAX_ID_BYTES], b"\r\n".to_vec()].concat();
        assert_eq!(read(&longest, IdKind::Bytes).unwrap().0, 1);
        for length in [MAX_ID_BYTES + 1, MAX_ID_BYTES + 3, 1_000_000] {
            let error = read(&vec![b'x'; length], IdKind::Bytes).unwrap_err();
            assert!(error.contains("line 1: an id is at most 255 bytes"), "{error}");
        }
    }

    #[test]
    fn ids_that_a_line_cannot_hold_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = IdFileWriter::create(&directory.path().join("ids.txt")).unwrap();
        assert!(writer.write(&Id::Bytes(b"ok".to_vec().into_boxed_slice())).is_ok());
        for bad in [&b"two\nlines"[..], b"ends\r"] {
            assert!(writer.write(&Id::Bytes(bad.to_vec().into_boxed_slice())).is_err());
        }
    }
}
