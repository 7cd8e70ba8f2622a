//! Arbitrary bytes as a sequence of choices. Past their end every choice is zero.

/// What is left of the bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn number(&mut self) -> u64 {
        u64::from(self.byte()) | u64::from(self.byte()) << 8
    }

    /// Three bytes, for places in files.
    pub(super) fn place(&mut self) -> u64 {
        self.number() | u64::from(self.byte()) << 16
    }

    /// A number below `limit`, from one byte.
    pub(super) fn below(&mut self, limit: u8) -> u8 {
        self.byte() % limit
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.number()).expect("it has 16 bits") % len
    }

    /// Up to `len` bytes.
    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
