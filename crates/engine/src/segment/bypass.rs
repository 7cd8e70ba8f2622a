//! Reads past the cache, for pages that no frame can be had for: every frame may be pinned, for as
//! long as its holder likes.
//!
//! The page is read into a buffer of its own and verified on the I/O thread; there the wanted part
//! is copied out, and buffer and room ([`Bypass`]) are given back. So room is held by reads that
//! are running and by nothing else: a reader that is never polled again keeps nobody waiting.
//!
//! Guarantees: buffers never exceed the room, and are counted in the work memory; no byte is given
//! out that does not match its checksum.
//! Does not: keep two readers from reading the same page.
//! Tested in `no_frame` below `segment`, with caches of 0, 1 and 2 frames.

use std::{
    ops::{Deref, Range},
    sync::Arc,
};

use nephrite_io::{Completed, IoBuffer, Operation, Request};
use nephrite_pager::{Bypass, PageGuard};

use super::{
    pages::{Kind, Means, verify},
    reader::{ReadContext, Segment},
};
use crate::{error::Error, jobs::Reply, log_file::aligned};

/// A verified page, or the part of it that was asked for.
#[derive(Debug)]
pub(super) enum Page {
    /// Whole, in the cache.
    Pinned(PageGuard),
    /// A copy of the part.
    Copied(Arc<[u8]>),
}

impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Pinned(guard) => guard,
            Self::Copied(bytes) => bytes,
        }
    }
}

/// A page and the part of it that is wanted.
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) page: u32,
    pub(super) part: Range<usize>,
    /// Where in the page begins what a reader of one vector wants.
    pub(super) start: u32,
}

impl Segment {
    /// The part, if the page is in the cache but may not be pinned.
    pub(super) fn copy_resident(&self, wanted: &Wanted) -> Option<Page> {
        let (cached, number) = self.cached(wanted.kind, wanted.page);
        cached.look(number, |bytes| Page::Copied(bytes[wanted.part.clone()].into()))
    }

    /// Reads the page past the cache.
    pub(super) async fn read_past(
        &self,
        context: &ReadContext,
        wanted: Wanted,
        means: Means,
        bypass: Bypass,
    ) -> Result<Page, Error> {
        let Wanted { kind, page, part, .. } = wanted;
        let Means { check, file } = means;
        let page_bytes = self.page_bytes(kind);
        let buffer = IoBuffer::Owned(aligned(page_bytes)?);
        let held = context.work.hold(page_bytes as u64);
        bypass.count();
        let offset = self.offset(kind, page);
        let (place, name) = (self.identity.page(offset), Arc::clone(&self.name));
        let reply = Reply::new();
        let told = Arc::clone(&reply);
        let on_complete = Box::new(move |done: Completed| {
            let outcome = copied(&done, part, |bytes| verify(bytes, place, check, page, &name));
            drop((done, held, bypass)); // the buffer before the room for it
            told.set(outcome);
        });
        let operation = Operation::Read { offset, buffer };
        context.disk.submit_one(Request { file, operation, on_complete });
        reply.wait().await.map(Page::Copied)
    }
}

/// The part of the page that was read, once it is verified.
fn copied(
    done: &Completed,
    part: Range<usize>,
    verify: impl FnOnce(&[u8]) -> Result<(), Error>,
) -> Result<Arc<[u8]>, Error> {
    if let Err(error) = &done.result {
        return Err(Error::from(error.clone()));
    }
    // The ring keeps buffers of operations that a shutdown overtook.
    let buffer = done.buffer.as_ref().ok_or(Error::Closed)?;
    verify(buffer.as_slice())?;
    Ok(buffer.as_slice()[part].into())
}
