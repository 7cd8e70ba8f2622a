//! The manifest: which databases exist and which segments they consist of.
//!
//! One file of frames: a snapshot of the whole state, then one frame per change, each synced
//! before it counts. When the file is full, a new one that begins with a snapshot is made beside
//! it under a temporary name, synced, renamed, and the old one removed. The complete manifest with
//! the highest file id is the truth.
//!
//! Guarantee: [`Manifest::commit`] returns `Ok` only after the change is on disk; after an error
//! the state is as before and every later commit fails (poisoned), because what is on disk is not
//! known any more. A full disk is found out while the next file is made and poisons nothing.
//! Not here: what the engine does with databases and segments.

mod new_file;
mod state;

use std::sync::{Arc, atomic::AtomicU64};

use async_lock::Mutex as AsyncMutex;
use nephrite_format::{
    BLOCK_BYTES, FileDetail, FileHeader, FileId, FrameSequence, Lsn, StoreId,
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, FrameView, frame_bytes},
    manifest::{ManifestEdit, decode_edits},
};
use nephrite_io::{Disk, FileHandle};

use self::new_file::write_new;
pub(crate) use self::state::{DatabaseRecord, ManifestState, NUMBER_MAX};
use crate::{
    error::Error,
    log_file::{self, Stop},
    paths::{StorePaths, manifest_name},
    planted::planted,
};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Manifest {
    disk: Arc<dyn Disk>,
    paths: StorePaths,
    store: StoreId,
    next_file: Arc<AtomicU64>,
    inner: AsyncMutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: ManifestState,
    file: FileHandle,
    header: FileHeader,
    capacity: u64,
    /// Where the next frame goes.
    offset: u64,
    next_sequence: FrameSequence,
    /// Whether the last frame may be in the operating system's memory only, see [`Loaded`].
    unsure: bool,
    failed: Option<Error>,
}

impl Inner {
    /// Whether the next change belongs in a new file.
    fn must_move(&self) -> bool {
        self.unsure && !planted("unsure_frame_followed")
    }
}

/// A manifest read from disk.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) store: StoreId,
    pub(crate) state: ManifestState,
    file: FileHandle,
    header: FileHeader,
    offset: u64,
    capacity: u64,
    next_sequence: FrameSequence,
    /// No mark says that the last frame was synced. If a sync failed, the frame can be read as
    /// long as the machine runs, and no later sync makes it durable: nothing may follow it, and
    /// nothing may rely on it ([`Manifest::make_sure`]).
    unsure: bool,
}

impl Manifest {
    /// Writes the first manifest of a new store.
    pub(crate) async fn create(
        disk: Arc<dyn Disk>,
        paths: StorePaths,
        store: StoreId,
        next_file: Arc<AtomicU64>,
        state: ManifestState,
    ) -> Result<Self, Error> {
        let inner = write_new(&disk, &paths, store, &next_file, state).await?;
        publish(&disk, &paths, inner.header.file).await?;
        Ok(Self { disk, paths, store, next_file, inner: AsyncMutex::new(inner) })
    }

    /// Goes on with a manifest that was read.
    pub(crate) fn resume(
        disk: Arc<dyn Disk>,
        paths: StorePaths,
        next_file: Arc<AtomicU64>,
        loaded: Loaded,
    ) -> Self {
        let Loaded { store, state, file, header, offset, capacity, next_sequence, unsure } = loaded;
        let failed = None;
        let inner = Inner { state, file, header, capacity, offset, next_sequence, unsure, failed };
        Self { disk, paths, store, next_file, inner: AsyncMutex::new(inner) }
    }

    /// Goes on in a new file if the last change in this one may not be on disk. Before that nothing
    /// may be done that relies on the change: no file that it freed be written or removed.
    ///
    /// # Errors
    /// Why the new file cannot be written.
    pub(crate) async fn make_sure(&self) -> Result<(), Error> {
        let mut inner = self.inner.lock().await;
        // A change of unknown outcome may be on disk or not: nobody can be sure of either.
        if let Some(error) = &inner.failed {
            return Err(error.clone());
        }
        if inner.must_move() {
            self.rotate(&mut inner, &[]).await?;
        }
        Ok(())
    }

    /// Makes a change durable. `edits` is asked under the manifest's lock, so it sees every
    /// earlier change.
    ///
    /// Cancel safety: runs on the engine's own tasks; a drop in mid-write would leave the file
    /// position behind, so callers do not race it with anything.
    pub(crate) async fn commit<R>(
        &self,
        edits: impl FnOnce(&ManifestState) -> Result<(Vec<ManifestEdit>, R), Error>,
    ) -> Result<R, Error> {
        let mut inner = self.inner.lock().await;
        if let Some(error) = &inner.failed {
            return Err(error.clone());
        }
        let (edits, result) = edits(&inner.state)?;
        inner.state.check(&edits);
        let (payload, count) = ManifestEdit::encode_all(&edits);
        let end = inner.offset + frame_bytes(payload.len()) as u64;
        if inner.capacity < end || inner.must_move() {
            self.rotate(&mut inner, &edits).await?;
            return Ok(result);
        }
        if let Err(error) = self.append(&mut inner, &payload, count).await {
            if planted("manifest_goes_on") {
                return Err(error);
            }
            inner.failed = Some(Error::poisoned_by(&error));
            return Err(error);
        }
        for edit in &edits {
            let applied = inner.state.apply(edit);
            assert!(applied.is_ok(), "the engine committed an edit that does not fit: {applied:?}");
        }
        Ok(result)
    }

    /// Goes on in a new file whose snapshot includes the edits.
    async fn rotate(&self, inner: &mut Inner, edits: &[ManifestEdit]) -> Result<(), Error> {
        let mut state = inner.state.clone();
        for edit in edits {
            let applied = state.apply(edit);
            assert!(applied.is_ok(), "the engine committed an edit that does not fit: {applied:?}");
        }
        let old = inner.header.file;
        let next_file = &self.next_file;
        let new = write_new(&self.disk, &self.paths, self.store, next_file, state).await?;
        if let Err(error) = publish(&self.disk, &self.paths, new.header.file).await {
            // Which of the two files the next open finds is not known.
            inner.failed = Some(Error::poisoned_by(&error));
            return Err(error);
        }
        *inner = new;
        // A manifest that stays is older than the new one and is removed by the next open.
        let _ = self.disk.remove_file(&self.paths.manifest(old)).await;
        Ok(())
    }

    async fn append(&self, inner: &mut Inner, payload: &[u8], count: u32) -> Result<(), Error> {
        let disk = &*self.disk;
        let sequence = inner.next_sequence;
        let frame = frame_header(FrameKind::ManifestEdits, payload, count, sequence);
        let buffer = frame_buffer(payload)?;
        log_file::write_frame(disk, &inner.file, &inner.header, inner.offset, buffer, &frame)
            .await?;
        if !planted("commit_unsynced") {
            nephrite_io::sync(disk, &inner.file).await?;
        }
        inner.offset += frame_bytes(payload.len()) as u64;
        inner.next_sequence = sequence.next();
        if inner.capacity < inner.offset + BLOCK_BYTES as u64 {
            return Ok(());
        }
        // A mark that says the frame is on disk, to be overwritten by the next frame: with it,
        // later damage to the last frame is told from a torn write. It is not synced itself.
        let mark = frame_header(FrameKind::ManifestEdits, &[], 0, inner.next_sequence);
        let Ok(buffer) = frame_buffer(&[]) else { return Ok(()) };
        let marked =
            log_file::write_frame(disk, &inner.file, &inner.header, inner.offset, buffer, &mark);
        if let Err(error) = marked.await {
            // The edits are on disk, so the commit stands; the next one will not.
            inner.failed = Some(Error::poisoned_by(&error));
        }
        Ok(())
    }

    /// The bytes of the current file, for `verify`.
    pub(crate) async fn content(&self) -> Result<(FileId, Vec<u8>), Error> {
        let inner = self.inner.lock().await;
        let content = log_file::read_file(&*self.disk, &inner.file, inner.capacity).await?;
        Ok((inner.header.file, content))
    }

    /// Fails after a commit whose outcome on disk is not known.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.inner.lock().await.failed.clone().map_or(Ok(()), Err)
    }

    /// A look at the state.
    pub(crate) async fn read<R>(&self, look: impl FnOnce(&ManifestState) -> R) -> R {
        look(&self.inner.lock().await.state)
    }
}

fn frame_header(
    kind: FrameKind,
    payload: &[u8],
    count: u32,
    sequence: FrameSequence,
) -> FrameHeader {
    FrameHeader {
        kind,
        payload_bytes: u32::try_from(payload.len()).expect("manifest frames are below 1 GiB"),
        record_count: count,
        sequence,
        first_lsn: Lsn::new(0),
        // Every frame is synced before the next is written.
        durable_through: FrameSequence::new(sequence.get().saturating_sub(1)),
    }
}

fn frame_buffer(payload: &[u8]) -> Result<nephrite_io::memory::AlignedBuf, Error> {
    let mut buffer = log_file::aligned(frame_bytes(payload.len()))?;
    buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    Ok(buffer)
}

/// Gives a whole manifest file its name, durably.
pub(crate) async fn publish(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    id: FileId,
) -> Result<(), Error> {
    disk.rename(&paths.manifest_temporary(id), &paths.manifest(id)).await?;
    if planted("rename_unsynced") {
        return Ok(());
    }
    Ok(disk.sync_dir(paths.root()).await?)
}

/// Writes a whole manifest file under its temporary name, for a repair; [`publish`] makes it count.
pub(crate) async fn write_unpublished(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    store: StoreId,
    next_file: &AtomicU64,
    state: ManifestState,
) -> Result<FileId, Error> {
    Ok(write_new(disk, paths, store, next_file, state).await?.header.file)
}

/// Reads a manifest file that has its final name.
///
/// # Errors
/// `Corrupt` naming file and offset; `VersionUnsupported`.
pub(crate) async fn load(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    id: FileId,
) -> Result<Loaded, Error> {
    let name = manifest_name(id);
    let (file, bytes) = log_file::open_existing(disk, &paths.manifest(id), &name, true).await?;
    // What is read may so far be only in the operating system's memory, left there by a process
    // that was killed: make it durable before anything is built on it.
    nephrite_io::sync(&**disk, &file).await?;
    let content = log_file::read_file(&**disk, &file, bytes).await?;
    let parsed = parse(&content, id, &name)?;
    Ok(Loaded {
        store: parsed.header.store,
        state: parsed.state,
        file,
        header: parsed.header,
        offset: parsed.offset,
        capacity: bytes,
        next_sequence: parsed.next_sequence,
        unsure: parsed.unsure,
    })
}

struct Parsed {
    header: FileHeader,
    state: ManifestState,
    offset: u64,
    next_sequence: FrameSequence,
    unsure: bool,
}

/// Decodes the content of a manifest file.
fn parse(content: &[u8], id: FileId, name: &str) -> Result<Parsed, Error> {
    let header = FileHeader::decode(&content[..BLOCK_BYTES], name)?;
    header.expect_kind(nephrite_format::FileKind::Manifest, name)?;
    header.expect_identity(header.store, id, name)?;
    let FileDetail::Manifest { capacity_bytes } = header.detail else {
        return Err(Error::corrupt(name, 0, "the header is not a manifest's"));
    };
    if capacity_bytes != content.len() as u64 {
        let what =
            format!("the file has {} bytes where its header says {capacity_bytes}", content.len());
        return Err(Error::corrupt(name, content.len() as u64, what));
    }
    let mut state = ManifestState::default();
    let (mut complete, mut unsure) = (false, false);
    let mut offset = BLOCK_BYTES as u64;
    let mut next_sequence = FrameSequence::new(1);
    let stop = log_file::read_frames(content, &header, Some(next_sequence), |at, frame| {
        apply_frame(&mut state, &frame, name, at)?;
        complete |= frame.header.kind == FrameKind::ManifestSnapshotEnd;
        let mark = log_file::is_mark(&frame.header);
        // A snapshot was synced before the file got its name.
        unsure = !mark && complete && frame.header.kind == FrameKind::ManifestEdits;
        if !mark {
            offset = at + frame.total_bytes as u64;
            next_sequence = frame.header.sequence.next();
        }
        Ok(())
    })?;
    if let Stop::Hole { offset, what, durable_behind } = stop {
        // The file got its name after its snapshot was synced, and a frame is followed by one that
        // says so. What is left is a change that was never acknowledged.
        if !complete || durable_behind.is_some_and(|durable| next_sequence <= durable) {
            return Err(Error::corrupt(name, offset, what));
        }
    }
    if !complete {
        return Err(Error::corrupt(name, offset, "the snapshot at its beginning has no end"));
    }
    state.check_numbers().map_err(|what| Error::corrupt(name, offset, what))?;
    Ok(Parsed { header, state, offset, next_sequence, unsure })
}

fn apply_frame(
    state: &mut ManifestState,
    frame: &FrameView<'_>,
    name: &str,
    offset: u64,
) -> Result<(), Error> {
    for edit in decode_edits(frame.payload, frame.header.record_count, name, offset)? {
        state.apply(&edit).map_err(|what| Error::corrupt(name, offset, what))?;
    }
    Ok(())
}

/// The store and the state that a whole manifest file's bytes say.
pub(crate) fn read_state(content: &[u8], id: FileId) -> Result<(StoreId, ManifestState), Error> {
    let name = manifest_name(id);
    if content.len() < BLOCK_BYTES {
        return Err(Error::corrupt(name, content.len() as u64, "the file ends in its header page"));
    }
    parse(content, id, &name).map(|parsed| (parsed.header.store, parsed.state))
}

/// Checks a manifest file's bytes for `verify`.
pub(crate) fn check(content: &[u8], id: FileId) -> Result<(), Error> {
    parse(content, id, &manifest_name(id)).map(drop)
}
