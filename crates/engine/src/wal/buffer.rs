//! Buffers of frames: as they come from the allocator, or, once frames are large, halves of a huge
//! page.
//!
//! A device is told of each page of a transfer, so half a megabyte from a huge page is on its way
//! sooner than from 128 small ones. Most logs never see such a frame, and a huge page is taken from
//! the system and cleared as a whole; so the page is made when the first large frame is taken.
//!
//! Guarantee: two standard buffers have [`STANDARD_BYTES`] each, whatever they are made of.
//! Tested in `staging`, which hands them out.

use std::ops::{Deref, DerefMut};

use nephrite_io::{
    IoBuffer,
    memory::{AlignedBuf, Arena, HUGE_PAGE_BYTES, Region},
};

use crate::error::Error;

/// Bytes of a buffer; a larger record gets one of its own size.
pub(super) const STANDARD_BYTES: usize = 1 << 20;

const _: () = assert!(2 * STANDARD_BYTES == HUGE_PAGE_BYTES);

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct LogBuffer(Memory);

#[derive(Debug)]
enum Memory {
    Owned(AlignedBuf),
    Window(Region),
}

impl LogBuffer {
    pub(super) fn new(bytes: usize) -> Result<Self, Error> {
        let refused = |error| Error::Cache { reason: format!("{error}").into() };
        AlignedBuf::zeroed(bytes).map(Self::from).map_err(refused)
    }

    /// Both standard buffers, of one huge page; none without the memory.
    pub(super) fn pair() -> Option<(Self, Self)> {
        let mut windows = Arena::lent_out(STANDARD_BYTES, 2).ok()?.into_iter();
        let window = |region: Region| Self(Memory::Window(region));
        windows.next().map(window).zip(windows.next().map(window))
    }

    /// Whether it is worth keeping for the next frame.
    pub(super) fn is_standard(&self) -> bool {
        self.len() == STANDARD_BYTES
    }

    pub(super) fn is_window(&self) -> bool {
        matches!(self.0, Memory::Window(_))
    }

    /// The first `len` bytes, for the disk.
    pub(super) fn lend(self, len: usize) -> IoBuffer {
        match self.0 {
            Memory::Owned(buffer) => IoBuffer::Part { buffer, len },
            Memory::Window(mut window) => {
                window.show(len);
                IoBuffer::Region(window)
            }
        }
    }

    /// What [`Self::lend`] gave, whole again.
    pub(super) fn returned(buffer: IoBuffer) -> Option<Self> {
        match buffer {
            IoBuffer::Region(mut window) => {
                window.show(STANDARD_BYTES);
                Some(Self(Memory::Window(window)))
            }
            other => other.into_aligned().map(Self::from),
        }
    }
}

impl From<AlignedBuf> for LogBuffer {
    fn from(buffer: AlignedBuf) -> Self {
        Self(Memory::Owned(buffer))
    }
}

impl Deref for LogBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Owned(buffer) => buffer,
            Memory::Window(window) => window,
        }
    }
}

impl DerefMut for LogBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Owned(buffer) => buffer,
            Memory::Window(window) => window,
        }
    }
}
