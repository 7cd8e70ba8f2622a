//! Replay of recorded reads against the policies of the cache.
//!
//! A trace comes from a store that was opened with [`crate::Config::record_trace`]. [`Trace::read`]
//! takes it apart, and [`Replay`] tells which share of its reads would have been hits with so much
//! memory and such a policy: the code that runs is the cache's own.

use std::io::{self, Read};

use nephrite_format::{
    BLOCK_BYTES, FormatError,
    trace::{block_offset, decode_block, decode_header},
};
pub use nephrite_pager::{
    CachePolicy, PageRead, PagerError,
    replay::{Footprint, Replay, Replayed},
};

use crate::error::Error;

/// A recorded trace.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Trace {
    /// What was read, in order.
    pub reads: Vec<PageRead>,
    /// Reads that were not recorded, as the buffer was full.
    pub dropped: u64,
    /// Whether the file ends in the middle of a block: the store was not closed.
    pub cut_off: bool,
}

impl Trace {
    /// Reads a trace to its end; `name` is for messages.
    ///
    /// # Errors
    /// What the source says; an error of [`io::ErrorKind::InvalidData`] carries the [`Error`] that
    /// names the offset of bytes that are not a trace's.
    pub fn read(mut source: impl Read, name: &str) -> io::Result<Self> {
        let mut block = vec![0; BLOCK_BYTES];
        let len = fill(&mut source, &mut block)?;
        let store = decode_header(&block[..len], name).map_err(invalid)?;
        let (mut trace, mut reads) = (Self::default(), Vec::new());
        for offset in (0..).map(block_offset) {
            match fill(&mut source, &mut block)? {
                0 => break,
                BLOCK_BYTES => {}
                _ => {
                    trace.cut_off = true;
                    break;
                }
            }
            let dropped = decode_block(&block, store, offset, name, &mut reads);
            trace.dropped += u64::from(dropped.map_err(invalid)?);
            trace.reads.extend(reads.drain(..).map(|read| PageRead {
                file: read.file,
                page: read.page,
                start: read.start,
                length: read.length,
                page_units: read.page_units,
            }));
        }
        Ok(trace)
    }
}

fn invalid(error: FormatError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Error::from(error))
}

/// Reads until the block is full or the source ends; returns how many bytes there were.
fn fill(source: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < block.len() {
        match source.read(&mut block[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
