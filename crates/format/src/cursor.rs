//! Bounds-checked reading of little-endian fields, and the same for writing.
//!
//! [`Cursor`] is the only way decoders of variable-length parts touch bytes: every read checks the
//! length first and an end that comes too early is an error with the file offset. [`Writer`] fills
//! a slice whose length the caller computed; running over it is a bug and panics.

use crate::error::{FormatError, Result};

/// Reads fields one after another from `bytes`, which begin at `base` of `file`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    base: u64,
    file: &'a str,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8], base: u64, file: &'a str) -> Self {
        Self { bytes, position: 0, base, file }
    }

    /// File offset of the next byte.
    pub(crate) const fn offset(&self) -> u64 {
        self.base.saturating_add(self.position as u64)
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// An error at the next byte.
    #[cold]
    pub(crate) fn corrupt(&self, what: impl Into<String>) -> FormatError {
        FormatError::corrupt(self.file, self.offset(), what)
    }

    pub(crate) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let Some(taken) = self.bytes[self.position..].get(..len) else {
            return Err(self
                .corrupt(format!("{what} needs {len} bytes where {} are left", self.remaining())));
        };
        self.position += len;
        Ok(taken)
    }

    /// The next `len` bytes as a cursor of their own.
    pub(crate) fn sub(&mut self, len: usize, what: &str) -> Result<Self> {
        let base = self.offset();
        Ok(Self::new(self.take(len, what)?, base, self.file))
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let Some(taken) = self.bytes[self.position..].first_chunk::<N>() else {
            return Err(
                self.corrupt(format!("{what} needs {N} bytes where {} are left", self.remaining()))
            );
        };
        self.position += N;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u16(&mut self, what: &str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Reserved bytes: present and zero.
    pub(crate) fn zeros(&mut self, len: usize, what: &str) -> Result<()> {
        let start = *self;
        if self.take(len, what)?.iter().any(|byte| *byte != 0) {
            return Err(start.corrupt(format!("{what}: {len} reserved bytes are not all zero")));
        }
        Ok(())
    }

    /// Nothing may be left.
    pub(crate) fn finish(&self, what: &str) -> Result<()> {
        if self.remaining() != 0 {
            return Err(
                self.corrupt(format!("{} bytes follow the end of {what}", self.remaining()))
            );
        }
        Ok(())
    }
}

/// Writes fields one after another into a slice.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    bytes: &'a mut [u8],
    position: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) const fn position(&self) -> usize {
        self.position
    }

    /// The next `len` bytes, to be filled by the caller.
    pub(crate) fn reserve(&mut self, len: usize) -> &mut [u8] {
        let start = self.position;
        self.position += len;
        &mut self.bytes[start..self.position]
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len()).copy_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn zeros(&mut self, len: usize) {
        self.reserve(len).fill(0);
    }

    /// The slice from its start, and how much of it was written.
    pub(crate) fn into_written(self) -> (&'a mut [u8], usize) {
        (self.bytes, self.position)
    }
}

/// The `u32` at `offset` of a page; the caller keeps `offset + 4` within it.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let field = bytes[offset..].first_chunk().expect("the caller keeps the field within the page");
    u32::from_le_bytes(*field)
}

/// The `u64` at `offset` of a page; the caller keeps `offset + 8` within it.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let field = bytes[offset..].first_chunk().expect("the caller keeps the field within the page");
    u64::from_le_bytes(*field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_names_the_offset() {
        let mut cursor = Cursor::new(&[1, 2, 3], 100, "f");
        assert_eq!(cursor.u8("first").unwrap(), 1);
        let error = cursor.u32("second").unwrap_err();
        assert!(matches!(error, FormatError::Corrupt { offset: 101, .. }), "{error}");
        assert_eq!(cursor.u16("third").unwrap(), 0x0302);
        cursor.finish("all").unwrap();
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut cursor = Cursor::new(&[0, 0, 1], 0, "f");
        cursor.zeros(2, "room").unwrap();
        assert!(cursor.zeros(1, "room").is_err());
        assert!(Cursor::new(&[0], 0, "f").finish("record").is_err());
    }
}
