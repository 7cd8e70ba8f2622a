//! Log space: segments made ready ahead of need, and given back when no record in them is needed.
//!
//! Guarantees: a segment is ready only when its header is on disk and the manifest names it, so
//! recovery knows which files it needs; a segment is used again only below the position that a
//! durable manifest has released. A disk without room for another one is told to the writers, once,
//! and tried again when something came free. While log is kept for deletes no file is made but for
//! a wish of the flush task (`wish`), which gives the reserve for it.
//! Runs on the committer's task only, between two frames.

use std::sync::atomic::Ordering;

use nephrite_format::{BLOCK_BYTES, FileDetail, FileHeader, Generation, manifest::ManifestEdit};
use nephrite_io::{IoBuffer, write};

use super::{Committer, Current, SPARES_MAX};
use crate::{
    error::Error,
    log_file,
    planted::planted,
    wal::{SpaceWish, WalFile, create_wal_file},
};

impl Committer {
    pub(super) fn space_needs_work(&self) -> bool {
        let released = self.wal.released.load(Ordering::Acquire);
        if self.closed.front().is_some_and(|(position, _)| *position < released) {
            return true;
        }
        if self.wal.wish.is_asked() {
            return true;
        }
        let staging = self.wal.staging();
        // Ahead of need, but not for a store that is only read.
        let low = self.current.is_some()
            && staging.space.current as u64 <= self.context.segment_bytes / 2;
        let wanted = staging.space.spares == 0 && (staging.wants_room || low);
        wanted && staging.no_space.is_none() && staging.failed.is_none()
    }

    pub(super) async fn manage_space(&mut self) {
        self.recycle().await;
        if let Some((wish, reply)) = self.wal.wish.take() {
            reply.set(match wish {
                SpaceWish::GiveBack => self.give_spares_back().await,
                SpaceWish::Ready => self.make_room_for_deletes().await,
            });
            return;
        }
        if !self.ready.is_empty() {
            return;
        }
        if let Err(error) = self.make_ready_if_it_may().await {
            self.wal.staging().no_space = Some(error);
            self.wal.room.notify(usize::MAX);
        }
    }

    /// Without a free file only who has a claim to the reserve may have one made.
    async fn make_ready_if_it_may(&mut self) -> Result<(), Error> {
        let refused = self.wal.staging().deletes_only.clone();
        match refused.filter(|_| self.spares.is_empty()) {
            Some(error) => Err(error),
            None => self.make_ready().await,
        }
    }

    async fn make_room_for_deletes(&mut self) -> Result<(), Error> {
        self.wal.check()?;
        let is_enough = {
            let staging = self.wal.staging();
            staging.space.has_kept() && !staging.wants_room
        };
        if !self.ready.is_empty() || is_enough {
            return Ok(());
        }
        self.make_ready().await
    }

    /// Removes free files, all but one when no segment is ready.
    async fn give_spares_back(&mut self) -> Result<(), Error> {
        let kept = usize::from(self.ready.is_empty());
        if self.spares.len() <= kept {
            return Err(Error::disk_full(self.context.paths.wal_dir()));
        }
        // They may be free by a change that is not on disk yet.
        self.manifest.make_sure().await?;
        for spare in self.spares.split_off(kept) {
            // A file that stays is found and reused or removed by the next open.
            let _ = self.context.disk.remove_file(&self.context.paths.wal(spare.id)).await;
        }
        Ok(())
    }

    /// Makes a free or new file the next segment: its header goes to disk, then its name to the
    /// manifest. Only then may frames go there, so recovery knows which files it needs.
    async fn make_ready(&mut self) -> Result<(), Error> {
        let wal = match self.spares.pop() {
            // One that cannot be opened is not tried again.
            Some(spare) => spare.open(&self.context.disk, &self.context.paths).await?,
            None => self.create_spare().await?,
        };
        let made = self.name_segment(&wal).await;
        match made {
            Ok(header) => {
                let (position, offset) = (self.next_position, BLOCK_BYTES as u64);
                self.next_position += 1;
                self.ready.push_back(Current { wal, header, position, offset, unsynced: false });
                let mut staging = self.wal.staging();
                staging.space.spares += 1;
                staging.no_space = None;
                staging.wants_room = false;
                drop(staging);
                self.wal.room.notify(usize::MAX);
                Ok(())
            }
            Err(error) => {
                self.spares.push(wal.into());
                Err(error)
            }
        }
    }

    async fn name_segment(&self, wal: &WalFile) -> Result<FileHeader, Error> {
        // The file may be free by a change that is not on disk yet.
        self.manifest.make_sure().await?;
        let (disk, position) = (&*self.context.disk, self.next_position);
        let header = FileHeader {
            store: self.context.store,
            file: wal.id,
            generation: Generation::new(position),
            detail: FileDetail::Wal { position, segment_bytes: self.context.segment_bytes },
        };
        let mut page = log_file::aligned(BLOCK_BYTES)?;
        header.encode_into(&mut page);
        write(disk, &wal.file, 0, IoBuffer::Owned(page)).await?;
        if !planted("log_header_unsynced") {
            nephrite_io::sync(disk, &wal.file).await?;
        }
        let edit = ManifestEdit::LogSegment { position, file: wal.id };
        self.manifest.commit(|_| Ok((vec![edit], ()))).await?;
        Ok(header)
    }

    async fn recycle(&mut self) {
        let released = self.wal.released.load(Ordering::Acquire);
        while self
            .closed
            .front()
            .is_some_and(|(position, _)| *position < released || planted("log_never_held"))
        {
            let Some((position, file)) = self.closed.pop_front() else { break };
            self.wal.segments().closed.retain(|segment| segment.start.segment != position);
            self.unsynced.retain(|(unsynced, _)| *unsynced != position);
            self.wal.counters.segments_recycled.fetch_add(1, Ordering::Relaxed); // a counter
            // A file of another size comes from a former configuration.
            let fits = file.bytes == self.context.segment_bytes;
            if fits && self.spares.len() < SPARES_MAX {
                self.spares.push(file);
                self.retry_for_space();
                continue;
            }
            let path = self.context.paths.wal(file.id);
            // A file that stays is found and reused or removed by the next open.
            let _ = self.context.disk.remove_file(&path).await;
        }
    }

    /// A file came free: a refusal for want of space no longer holds.
    fn retry_for_space(&self) {
        self.wal.staging().no_space = None;
        self.wal.room.notify(usize::MAX);
    }

    async fn create_spare(&self) -> Result<WalFile, Error> {
        let wal = create_wal_file(&self.context).await?;
        self.wal.counters.segments_created.fetch_add(1, Ordering::Relaxed); // a counter
        Ok(wal)
    }
}
