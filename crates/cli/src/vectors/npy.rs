//! `.npy`: NumPy arrays, format versions 1, 2 and 3.
//!
//! Accepted: two dimensions (rows, dimension), C order, `<f4` or `>f4`. Anything else is refused by
//! its name. The header is a Python dictionary literal with exactly three keys; it is read by a
//! parser for that shape alone, without recursion, so that no header can exhaust the stack. Written
//! files are version 1, little-endian, with the header laid out as NumPy lays it out, so that a
//! file that NumPy wrote comes back byte for byte.
//!
//! Checked by: the tests below, one of them against the `npyz` crate as an independent reader.

use std::path::Path;

use super::VectorFileError;
use super::layout::{ByteOrder, Layout, RowShape, VALUE_BYTES, checked_dimension};

/// The first six bytes of every file.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Magic, version and the longer of the two header length fields.
pub(crate) const PREFIX_BYTES: usize = 12;
/// The longest header text that is read; NumPy itself stops at 10,000 unless told otherwise.
pub(crate) const HEADER_BYTES_MAX: usize = 1 << 16;
/// Rows start at a multiple of this.
const ALIGNMENT: usize = 64;
/// NumPy leaves room for the row count to grow to this many digits in place.
const ROWS_DIGITS: usize = 21;

/// The header of a file of `rows` rows of `dimension` values.
pub(crate) fn header(rows: u64, dimension: u32) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}");
    text.extend(std::iter::repeat_n(' ', ROWS_DIGITS - rows.to_string().len()));
    let before = MAGIC.len() + 4;
    let end = (before + text.len() + 1).next_multiple_of(ALIGNMENT);
    text.extend(std::iter::repeat_n(' ', end - before - text.len() - 1));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("the text is below 192 bytes for any numbers");
    [MAGIC.as_slice(), &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat()
}

/// How many bytes from the start of the file hold magic, version and header text.
pub(crate) fn header_bytes(
    path: &Path,
    prefix: &[u8],
    file_bytes: u64,
) -> Result<usize, VectorFileError> {
    let refuse = |offset, what: String| Err(VectorFileError::malformed(path, offset, what));
    if !prefix.starts_with(MAGIC) {
        return refuse(0, "this is not a NumPy file: it does not begin with \\x93NUMPY".into());
    }
    let (before, text_bytes) = match *prefix {
        [_, _, _, _, _, _, 1, 0, a, b, ..] => (10, u32::from(u16::from_le_bytes([a, b]))),
        [_, _, _, _, _, _, 2 | 3, 0, a, b, c, d] => (12, u32::from_le_bytes([a, b, c, d])),
        [_, _, _, _, _, _, 1..=3, 0, ..] => {
            return refuse(file_bytes, "the file ends within the length of its header".into());
        }
        [_, _, _, _, _, _, major, minor, ..] => {
            return refuse(6, format!("NumPy format {major}.{minor}, where 1.0 to 3.0 is known"));
        }
        _ => return refuse(file_bytes, "the file ends before its version".into()),
    };
    let text_max = HEADER_BYTES_MAX as u64;
    if text_max < u64::from(text_bytes) {
        let what = format!("a header of {text_bytes} bytes, where {HEADER_BYTES_MAX} is the limit");
        return refuse(8, what);
    }
    let end = before + usize::try_from(text_bytes).expect("at most 65,536");
    if file_bytes < end as u64 {
        return refuse(file_bytes, format!("the file ends within its header of {end} bytes"));
    }
    Ok(end)
}

/// Reads the layout from the whole header of a file of `file_bytes` bytes.
pub(crate) fn layout(
    path: &Path,
    header: &[u8],
    file_bytes: u64,
) -> Result<Layout, VectorFileError> {
    let before = if header.get(6) == Some(&1) { 10 } else { 12 };
    let text = header.get(before..).unwrap_or_default();
    let rows_offset = header.len() as u64;
    let at = |position: usize| (before + position) as u64;
    let parsed = Literal { text, position: 0 }
        .header()
        .map_err(|(position, what)| VectorFileError::malformed(path, at(position), what))?;
    let (rows, dimension, order) =
        parsed.check().map_err(|what| VectorFileError::malformed(path, before as u64, what))?;
    let needed =
        u64::from(dimension).checked_mul(VALUE_BYTES).and_then(|row| row.checked_mul(rows));
    let found = file_bytes.saturating_sub(rows_offset);
    if needed != Some(found) {
        let told = needed.map_or_else(|| "more than 2^64".to_string(), |bytes| bytes.to_string());
        let what = format!(
            "shape ({rows}, {dimension}) needs {told} bytes after the header, where there are \
             {found}: the file is cut off or has trailing bytes"
        );
        return Err(VectorFileError::malformed(path, file_bytes, what));
    }
    Ok(Layout { rows_offset, rows, dimension, shape: RowShape::Plain(order) })
}

/// The three keys of a header, each where it was given.
#[derive(Default)]
struct Header {
    descr: Option<String>,
    fortran_order: Option<bool>,
    shape: Option<Vec<u64>>,
}

impl Header {
    /// Rows, dimension and byte order, or what this program cannot read about it.
    fn check(self) -> Result<(u64, u32, ByteOrder), String> {
        let descr = self.descr.ok_or("the header has no 'descr'")?;
        let fortran_order = self.fortran_order.ok_or("the header has no 'fortran_order'")?;
        let shape = self.shape.ok_or("the header has no 'shape'")?;
        let order = match descr.as_str() {
            "<f4" => ByteOrder::Little,
            ">f4" => ByteOrder::Big,
            _ => {
                return Err(format!(
                    "dtype '{descr}', where '<f4' or '>f4' is needed: save array.astype('float32')"
                ));
            }
        };
        if fortran_order {
            return Err("Fortran order: save numpy.ascontiguousarray(array)".into());
        }
        let [rows, dimension] = shape[..] else {
            return Err(format!(
                "{} dimensions, where two (rows, dimension) are needed",
                shape.len()
            ));
        };
        Ok((rows, checked_dimension(dimension)?, order))
    }
}

/// Position in the header text and what is wrong there.
type At<T> = Result<T, (usize, String)>;

/// A reader of the one literal that a header is.
struct Literal<'a> {
    text: &'a [u8],
    position: usize,
}

impl Literal<'_> {
    fn header(mut self) -> At<Header> {
        let mut header = Header::default();
        self.expect(b'{')?;
        while !self.accept(b'}') {
            let start = self.position;
            let key = self.string()?;
            self.expect(b':')?;
            let repeated = match key.as_str() {
                "descr" => header.descr.replace(self.descr()?).is_some(),
                "fortran_order" => header.fortran_order.replace(self.boolean()?).is_some(),
                "shape" => header.shape.replace(self.shape()?).is_some(),
                _ => return Err((start, format!("unknown key '{key}'"))),
            };
            if repeated {
                return Err((start, format!("key '{key}' is given twice")));
            }
            if !self.accept(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        self.skip_blanks();
        if self.position == self.text.len() {
            Ok(header)
        } else {
            Err((self.position, "text after the header dictionary".into()))
        }
    }

    fn descr(&mut self) -> At<String> {
        self.skip_blanks();
        if self.peek() == Some(b'[') {
            let what = "a structured dtype, where '<f4' or '>f4' is needed";
            return Err((self.position, what.into()));
        }
        self.string()
    }

    /// A quoted string of printable ASCII without escapes: all that NumPy writes for plain dtypes.
    fn string(&mut self) -> At<String> {
        self.skip_blanks();
        let Some(quote @ (b'\'' | b'"')) = self.peek() else {
            return Err((self.position, "a quoted string is expected".into()));
        };
        let start = self.position + 1;
        let rest = &self.text[start..];
        let Some(length) = rest.iter().position(|byte| *byte == quote) else {
            return Err((self.position, "a string without end".into()));
        };
        let bytes = &rest[..length];
        if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'\\') {
            return Err((start, "a string with characters that no dtype has".into()));
        }
        self.position = start + length + 1;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn boolean(&mut self) -> At<bool> {
        self.skip_blanks();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[self.position..].starts_with(word.as_bytes()) {
                self.position += word.len();
                return Ok(value);
            }
        }
        Err((self.position, "True or False is expected".into()))
    }

    fn shape(&mut self) -> At<Vec<u64>> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.accept(b')') {
            shape.push(self.number()?);
            if !self.accept(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }

    fn number(&mut self) -> At<u64> {
        self.skip_blanks();
        let start = self.position;
        let mut value = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u64::from(digit - b'0')))
                .ok_or((start, "a number above 2^64 in the shape".to_string()))?;
            self.position += 1;
        }
        if self.position == start {
            return Err((start, "a number is expected in the shape".into()));
        }
        // Python 2 wrote long integers with a suffix.
        if self.peek() == Some(b'L') {
            self.position += 1;
        }
        Ok(value)
    }

    fn expect(&mut self, wanted: u8) -> At<()> {
        if self.accept(wanted) {
            Ok(())
        } else {
            Err((self.position, format!("'{}' is expected in the header", char::from(wanted))))
        }
    }

    fn accept(&mut self, wanted: u8) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(wanted);
        self.position += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.position += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the given version whose header text is `text`.
    fn file(version: u8, text: &str) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &[version, 0]].concat();
        if version == 1 {
            bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        } else {
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        }
        bytes.extend(text.as_bytes());
        bytes
    }

    fn read(bytes: &[u8], body: u64) -> Result<Layout, String> {
        let path = Path::new("x.npy");
        let file_bytes = bytes.len() as u64 + body;
        let prefix = &bytes[..bytes.len().min(PREFIX_BYTES)];
        let end = header_bytes(path, prefix, file_bytes).map_err(|error| error.to_string())?;
        layout(path, &bytes[..end], file_bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn a_written_header_is_read_back_and_aligned() {
        for (rows, dimension) in [(0, 1), (20_000, 384), (u64::MAX / (4 << 20), 1 << 20)] {
            let bytes = header(rows, dimension);
            assert!(bytes.len().is_multiple_of(ALIGNMENT));
            let layout = read(&bytes, rows * u64::from(dimension) * 4).unwrap();
            assert_eq!((layout.rows, layout.dimension), (rows, dimension));
            assert_eq!(layout.shape, RowShape::Plain(ByteOrder::Little));
        }
    }

    #[test]
    fn an_independent_reader_accepts_a_written_header() {
        let mut bytes = header(2, 3);
        bytes.extend([1.0_f32, 2.0, 3.0, 4.0, 5.0, -0.0].iter().flat_map(|v| v.to_le_bytes()));
        let array = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!(array.shape(), [2, 3]);
        let values: Vec<f32> = array.into_vec().unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, -0.0]);
    }

    #[test]
    fn the_three_versions_and_both_byte_orders_are_read() {
        for version in 1..=3 {
            let text = "{\"shape\": (5L,4), 'fortran_order':False,'descr':'>f4'}\n";
            let layout = read(&file(version, text), 80).unwrap();
            assert_eq!((layout.rows, layout.dimension), (5, 4));
            assert_eq!(layout.shape, RowShape::Plain(ByteOrder::Big));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let with = |descr: &str, order: &str, shape: &str| {
            let text =
                format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
            read(&file(1, &text), 0).unwrap_err()
        };
        assert!(with("'<f8'", "False", "(0, 3)").contains("'<f8'"));
        assert!(with("'|u1'", "False", "(0, 3)").contains("'|u1'"));
        assert!(with("[('a', '<f4')]", "False", "(0, 3)").contains("structured"));
        assert!(with("'<f4'", "True", "(0, 3)").contains("Fortran"));
        assert!(with("'<f4'", "False", "(0,)").contains("1 dimensions"));
        assert!(with("'<f4'", "False", "()").contains("0 dimensions"));
        assert!(with("'<f4'", "False", "(0, 0)").contains("dimension is 0"));
        assert!(with("'<f4'", "False", "(4294967296, 1048576)").contains("cut off"));
        assert!(with("'<f4'", "False", "(99999999999999999999, 1)").contains("2^64"));
        assert!(with("'<f4'", "Maybe", "(0, 3)").contains("True or False"));
    }

    #[test]
    fn broken_headers_are_refused_at_their_offset() {
        let nested = "(".repeat(60_000);
        let cases = [
            ("", 12),
            ("{", 13),
            ("}", 12),
            ("{}", 12),
            ("{'descr'", 20),
            ("{'descr': '<f4", 22),
            ("{'a': 1}", 13),
            ("{'shape': (-1, 3)}", 23),
            ("{'descr': '<f4', 'descr': '<f4'}", 29),
            ("{'descr': '\\x3cf4'}", 23),
            ("{'shape': (1 2)}", 25),
            (&nested, 12),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)} x", 70),
        ];
        for (text, offset) in cases {
            let error = read(&file(2, text), 0).unwrap_err();
            assert!(error.contains(&format!("x.npy at byte {offset}:")), "{text:?}: {error}");
        }
    }

    #[test]
    fn every_prefix_of_a_file_is_refused() {
        let whole = header(3, 5);
        for length in 0..whole.len() {
            assert!(read(&whole[..length], 0).is_err(), "{length} bytes");
        }
        assert!(read(&whole, 60).is_ok());
        assert!(read(&whole, 59).unwrap_err().contains("cut off"));
        assert!(read(&whole, 61).unwrap_err().contains("trailing"));
    }

    #[test]
    fn long_headers_and_unknown_versions_are_refused() {
        let mut long = file(3, "{}");
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read(&long, u64::MAX - 100).unwrap_err().contains("is the limit"));
        assert!(read(&file(4, "{}"), 0).unwrap_err().contains("format 4.0"));
        assert!(read(b"PK\x03\x04 something else", 0).unwrap_err().contains("not a NumPy file"));
    }
}
