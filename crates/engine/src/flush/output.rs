//! Writing the segment of a memtable: the rest of its rows, the ids as their pages fill up, and
//! the tail.

use std::sync::Arc;

use nephrite_format::id_run::IdRunBuilder;
use nephrite_io::IoBuffer;

use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    memtable::{Listing, Memtable, Place},
    planted::planted,
    segment::{
        Segment,
        id_pages::IdPageWriter,
        seal::{Identity, Tail, TailPages, seal_tail},
        sink::SegmentSink,
    },
};

/// Ids encoded between two looks at how much there is to write.
const IDS_AT_ONCE: usize = 1024;

impl Core {
    /// Writes and syncs the segment of a memtable whose pages are written.
    pub(super) async fn write_segment(
        &self,
        database: &DatabaseCore,
        memtable: &Memtable,
        ids: &Listing,
    ) -> Result<Arc<Segment>, Error> {
        let sink = memtable.sink();
        let identity = self.identity(database, sink.id());
        let mut checksums = Vec::new();
        memtable.for_each_page(|page| {
            let number = u32::try_from(checksums.len()).expect("fewer pages than rows");
            checksums.push(identity.vector_page_checksum(number, page));
        });
        let order = {
            let mut side = database.lock();
            side.next_order += 1;
            side.next_order - 1
        };
        let rows = memtable.rows();
        let pages = match ids.summary().is_dense() {
            true => TailPages::of_dense(checksums),
            false => self.write_ids(&sink, &identity, ids, rows, checksums).await?,
        };
        let outline = ids.summary().outline(rows, memtable.last_lsn(), order);
        let tail = seal_tail(&identity, outline, pages)?;
        self.finish_segment(&sink, identity, tail).await
    }

    /// Writes the ids behind the rows, as pages fill up.
    async fn write_ids(
        &self,
        sink: &Arc<SegmentSink>,
        identity: &Identity,
        ids: &Listing,
        rows: u32,
        checksums: Vec<u64>,
    ) -> Result<TailPages, Error> {
        let mut pages = IdPageWriter::new(sink, identity, rows, checksums);
        let mut builder = IdRunBuilder::new(identity.id_kind);
        let (metadata, count) = (&self.read.metadata, ids.summary().count());
        let _held = self.read.work.hold(metadata.new_filter_bytes(count));
        let mut filter = metadata.new_filter(count);
        let mut place = Place::default();
        let mut more = true;
        while more {
            more = ids.take(&mut place, IDS_AT_ONCE, |id, row| {
                builder.push(id, row);
                let inserted = !planted("filter_incomplete") || row.get() % 7 != 3;
                filter.iter_mut().filter(|_| inserted).for_each(|filter| filter.insert(id));
            });
            pages.take(&mut builder).await?;
        }
        Ok(pages.finish(builder.finish(), filter))
    }

    /// Writes header and tail of a segment whose rows were handed to its file, syncs and closes it.
    /// Its directory entry is the caller's to sync.
    pub(crate) async fn finish_segment(
        &self,
        sink: &Arc<SegmentSink>,
        identity: Identity,
        mut tail: Tail,
    ) -> Result<Arc<Segment>, Error> {
        let file = sink.file().await?;
        let empty = crate::log_file::aligned(0)?;
        let bytes = std::mem::replace(&mut tail.bytes, empty);
        let end = tail.offset + bytes.len() as u64;
        let writes = vec![
            (0, IoBuffer::Owned(identity.header_page()?)),
            (tail.offset, IoBuffer::Owned(bytes)),
        ];
        sink.submit(&file, writes);
        drop(file);
        sink.drain().await?;
        sink.cut(end).await?;
        if !planted("segment_unsynced") {
            sink.sync_file().await?;
        }
        sink.finish().await;
        Ok(Arc::new(Segment::from_tail(&self.read, identity, tail)?))
    }
}
