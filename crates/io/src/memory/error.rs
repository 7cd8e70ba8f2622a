//! Why memory could not be had.

use std::fmt;

/// The operating system refused memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryError {
    bytes: usize,
    errno: Option<i32>,
}

impl MemoryError {
    pub(super) fn refused(bytes: usize, errno: Option<i32>) -> Self {
        Self { bytes, errno }
    }

    /// How many bytes were asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Display for MemoryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "could not reserve {} bytes of memory", self.bytes)?;
        if let Some(errno) = self.errno {
            write!(formatter, " ({})", std::io::Error::from_raw_os_error(errno))?;
        }
        write!(formatter, "; lower the memory limit or free memory on this machine")
    }
}

impl std::error::Error for MemoryError {}
