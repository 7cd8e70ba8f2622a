//! Flush: a memtable becomes a segment.
//!
//! ```text
//! freeze -> wait until its writes are acknowledged -> rest of the rows, id run, checksums, footer
//!        -> sync file and directory -> manifest -> publish -> log space released
//! ```
//!
//! Runs on the flush task only, oldest memtable of a database first. A failure leaves the memtable
//! where it is, to be tried again; nothing acknowledged depends on it, since the log keeps the
//! records. Safe under a kill at any point: until the manifest names the segment it is an orphan
//! that the next open removes.

use std::sync::{Arc, atomic::Ordering};

use nephrite_format::{
    DatabaseId, FrameSequence, Generation, Id, IdRef, Lsn, Row,
    manifest::{Counters, FlushEdit, ManifestEdit, SegmentMeta},
};
use nephrite_io::IoBuffer;

use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    lookup::find_in_segments,
    memtable::Memtable,
    segment::{
        Segment,
        seal::{Identity, Ids, seal},
        sink::SegmentSink,
    },
    version::Version,
    wal::LogPosition,
};

/// How the ids of a memtable change what the segments hold.
#[derive(Debug, Default)]
struct Effect {
    live_records: u64,
    /// Segments with the number of their rows that are garbage from now on.
    buried: Vec<(Arc<Segment>, u32)>,
}

impl Core {
    /// Brings everything written to a database before the call into segments.
    pub(crate) async fn flush_database(&self, database: &DatabaseCore) -> Result<(), Error> {
        {
            let mut side = database.lock();
            if side.dropped {
                return Ok(());
            }
            if !database.version.load().active.is_empty() {
                self.freeze(database, &mut side);
            }
        }
        self.flush_frozen(database).await
    }

    /// Flushes what is frozen, oldest first.
    pub(crate) async fn flush_frozen(&self, database: &DatabaseCore) -> Result<(), Error> {
        loop {
            let version = database.version.load();
            let Some(memtable) = version.frozen.last() else { return Ok(()) };
            if database.check().is_err() {
                return Ok(());
            }
            let flushed = self.flush_memtable(database, memtable).await;
            self.memory.set_failure(flushed.as_ref().err().cloned());
            match &flushed {
                Ok(()) => self.memory.set_unwritable(None),
                Err(error) if error.is_disk_full() || memtable.sink().failure().is_some() => {
                    self.memory.set_unwritable(Some(error.clone()));
                }
                // Damage of one database is nobody else's business.
                Err(_) => {}
            }
            flushed?;
        }
    }

    async fn flush_memtable(
        &self,
        database: &DatabaseCore,
        memtable: &Arc<Memtable>,
    ) -> Result<(), Error> {
        self.wal.nudge();
        let last = memtable.last_lsn();
        database.visibility.reached(last, || self.wal.check()).await?;
        if memtable.sink().failure().is_some() {
            memtable.replace_sink(self.new_sink());
        }
        let version = database.version.load();
        let ids = ids_of(memtable, version.segments.is_empty());
        let effect = self.effect(&version, &ids).await?;
        let segment = match ids.len() {
            0 => None,
            _ => Some(self.write_segment(database, memtable, &ids).await?),
        };
        let first = memtable.first_lsn();
        let start = self.wal.start_without(first.as_slice());
        self.commit_flush(database, segment.as_ref(), &effect, last, start).await?;
        self.publish_flush(database, memtable, segment, &effect);
        first.into_iter().for_each(|first| self.wal.forget(first));
        self.wal.release_below(start.segment);
        self.compaction_wanted.notify(1);
        Ok(())
    }

    /// Writes and syncs the segment of a memtable.
    async fn write_segment(
        &self,
        database: &DatabaseCore,
        memtable: &Memtable,
        ids: &Ids,
    ) -> Result<Arc<Segment>, Error> {
        memtable.close_page();
        memtable.write_pages().await?;
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
        let (rows, last) = (memtable.rows(), memtable.last_lsn());
        self.counters.flushed_rows.fetch_add(u64::from(rows), Ordering::Relaxed); // a counter
        let tail = seal(&identity, ids, rows, checksums, last, order)?;
        self.finish_segment(&sink, identity, tail).await
    }

    /// Writes header and tail of a segment whose rows were handed to its file, syncs it and opens
    /// it for reading.
    pub(crate) async fn finish_segment(
        &self,
        sink: &SegmentSink,
        identity: Identity,
        mut tail: crate::segment::seal::Tail,
    ) -> Result<Arc<Segment>, Error> {
        let file = sink.file().await?;
        let empty = crate::log_file::aligned(0)?;
        let bytes = std::mem::replace(&mut tail.bytes, empty);
        let writes = vec![
            (0, IoBuffer::Owned(identity.header_page()?)),
            (tail.offset, IoBuffer::Owned(bytes)),
        ];
        sink.submit(file, writes);
        sink.drain().await?;
        sink.sync().await?;
        Ok(Arc::new(Segment::from_tail(&self.read, identity, tail)?))
    }

    /// What the ids of a memtable do to the records in the segments.
    async fn effect(&self, version: &Version, ids: &Ids) -> Result<Effect, Error> {
        let mut effect = Effect { live_records: version.live_records, buried: Vec::new() };
        let Some((min, max)) = ids.range() else { return Ok(effect) };
        let (min, max) = (min.as_id_ref(), max.as_id_ref());
        if !version.segments.iter().any(|segment| segment.overlaps(min, max)) {
            effect.live_records += (ids.len() - ids.tombstones()) as u64;
            return Ok(effect);
        }
        let listed: Vec<(IdRef<'_>, Row)> = match ids {
            Ids::Sorted(ids) => ids.iter().map(|(id, row)| (id.as_id_ref(), *row)).collect(),
            Ids::Dense { first, first_row, count } => (0..*count)
                .map(|at| (IdRef::U64(first + u64::from(at)), Row::new(first_row.get() + at)))
                .collect(),
        };
        let wanted: Vec<IdRef<'_>> = listed.iter().map(|(id, _)| *id).collect();
        let before = find_in_segments(&self.read, &version.segments, &wanted, |segment, row| {
            if !row.is_tombstone() {
                effect.bury(segment);
            }
        });
        let before = before.await?;
        for ((_, row), before) in listed.iter().zip(before) {
            let existed = before.is_some_and(|before| !before.is_tombstone());
            match (existed, row.is_tombstone()) {
                (true, true) => effect.live_records -= 1,
                (false, false) => effect.live_records += 1,
                (true, false) | (false, true) => {}
            }
        }
        Ok(effect)
    }

    async fn commit_flush(
        &self,
        database: &DatabaseCore,
        segment: Option<&Arc<Segment>>,
        effect: &Effect,
        flushed_lsn: Lsn,
        start: LogPosition,
    ) -> Result<(), Error> {
        let counters = self.counters(start);
        let commit = self.manifest.commit(|state| {
            let Some(record) = state.databases.get(&database.id) else {
                return Err(Error::DatabaseNotFound { name: database.name.clone() });
            };
            let mut edit = FlushEdit {
                database: database.id,
                flushed_lsn,
                live_records: effect.live_records,
                added: segment.iter().map(|segment| segment.meta()).collect(),
                removed: Vec::new(),
            };
            effect.update_metas(&record.segments, &mut edit);
            Ok((vec![ManifestEdit::Flush(edit), ManifestEdit::Counters(counters)], ()))
        });
        commit.await
    }

    /// The numbers that the manifest keeps, with the log starting at `start`.
    pub(crate) fn counters(&self, start: LogPosition) -> Counters {
        Counters {
            next_file: nephrite_format::FileId::new(self.next_file.load(Ordering::Relaxed)),
            next_database: DatabaseId::new(
                u32::try_from(self.next_database.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            ),
            next_generation: Generation::new(1),
            next_lsn: self.wal.next_lsn(),
            wal_position: start.segment,
            wal_sequence: FrameSequence::new(start.sequence.get()),
        }
    }

    fn publish_flush(
        &self,
        database: &DatabaseCore,
        memtable: &Arc<Memtable>,
        segment: Option<Arc<Segment>>,
        effect: &Effect,
    ) {
        let mut side = database.lock();
        let version = database.version.load();
        database.publish(&mut side, version.flushed(memtable, segment, effect.live_records));
        drop(side);
        for (segment, rows) in &effect.buried {
            segment.bury_rows(*rows);
        }
        memtable.set_sealed();
        self.memory.shrink(memtable.bytes());
        self.counters.flushes.fetch_add(1, Ordering::Relaxed); // a counter
    }
}

impl Effect {
    fn bury(&mut self, segment: &Arc<Segment>) {
        match self.buried.iter_mut().find(|(known, _)| Arc::ptr_eq(known, segment)) {
            Some((_, rows)) => *rows += 1,
            None => self.buried.push((Arc::clone(segment), 1)),
        }
    }

    /// The manifest keeps the live rows of older segments up to date, so that garbage is known
    /// after a restart.
    fn update_metas(&self, known: &[SegmentMeta], edit: &mut FlushEdit) {
        for (segment, rows) in &self.buried {
            let Some(meta) = known.iter().find(|meta| meta.file == segment.file()) else {
                continue; // compacted meanwhile
            };
            edit.removed.push(meta.file);
            let live_rows = meta.live_rows.saturating_sub(*rows);
            edit.added.push(SegmentMeta { live_rows, ..meta.clone() });
        }
    }
}

/// The ids of a memtable. Below the oldest segment there is nothing to hide, so tombstones go.
fn ids_of(memtable: &Memtable, is_bottom: bool) -> Ids {
    let at = Lsn::new(u64::MAX);
    if let Some((first, first_row, count)) = memtable.as_dense(at) {
        return Ids::Dense { first, first_row, count };
    }
    let mut sorted: Vec<(Id, Row)> = memtable.sorted(at);
    if is_bottom {
        sorted.retain(|(_, row)| !row.is_tombstone());
    }
    Ids::Sorted(sorted).densify()
}
