//! A new manifest file: a snapshot of the whole state, with room for changes behind it.
//!
//! Guarantee: on a full disk it is tried with less room, and one that is not finished is removed.
//! Nothing names it before it is published.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use nephrite_format::{
    BLOCK_BYTES, FileDetail, FileHeader, FileId, FrameSequence, Generation, StoreId,
    frame::{FrameHeader, FrameKind, frame_bytes},
};
use nephrite_io::{Disk, FileHandle};

use super::{Inner, ManifestState, frame_buffer, frame_header};
use crate::{error::Error, log_file, paths::StorePaths};

/// Smallest manifest file; also the room left for edits behind a small snapshot.
const CAPACITY_BYTES_MIN: u64 = 1 << 20;
/// A new manifest has room for this many times its snapshot.
const CAPACITY_FACTOR: u64 = 4;
/// Room for edits in one that is made on a full disk, where deletes and compactions come to it.
const CAPACITY_BYTES_TIGHT: u64 = 64 << 10;
/// Edits of a snapshot are cut into frames of about this many bytes.
const SNAPSHOT_FRAME_BYTES: usize = 256 << 10;

/// Writes a whole manifest file under its temporary name; one that a failure leaves unfinished is
/// removed, for on a full disk its room is needed.
pub(super) async fn write_new(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    store: StoreId,
    next_file: &AtomicU64,
    state: ManifestState,
) -> Result<Inner, Error> {
    let frames = snapshot_frames(&state);
    let snapshot: u64 = frames.iter().map(|(payload, _)| frame_bytes(payload.len()) as u64).sum();
    let roomy = (snapshot * CAPACITY_FACTOR).max(CAPACITY_BYTES_MIN);
    let tight = snapshot + CAPACITY_BYTES_TIGHT;
    // Where the disk tells, nothing is taken from others to find out.
    let free = disk.free_bytes(paths.root()).await.ok().flatten();
    let first = if free.is_none_or(|free| roomy < free) { roomy } else { tight };
    let made = match write_sized(disk, paths, store, next_file, &frames, first).await {
        Err(error) if error.is_disk_full() && tight < first => {
            write_sized(disk, paths, store, next_file, &frames, tight).await
        }
        made => made,
    };
    let Made { file, header, capacity, offset, next_sequence } = made?;
    let (unsure, failed) = (false, None);
    Ok(Inner { state, file, header, capacity, offset, next_sequence, unsure, failed })
}

/// A whole manifest file under its temporary name.
struct Made {
    file: FileHandle,
    header: FileHeader,
    capacity: u64,
    /// Where the next frame goes.
    offset: u64,
    next_sequence: FrameSequence,
}

/// Writes these frames to a new file that has so many bytes for frames.
async fn write_sized(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    store: StoreId,
    next_file: &AtomicU64,
    frames: &[(Vec<u8>, u32)],
    bytes: u64,
) -> Result<Made, Error> {
    let id = FileId::new(next_file.fetch_add(1, Ordering::Relaxed)); // only uniqueness matters
    let capacity = bytes + BLOCK_BYTES as u64;
    let header = FileHeader {
        store,
        file: id,
        generation: Generation::new(0),
        detail: FileDetail::Manifest { capacity_bytes: capacity },
    };
    let temporary = paths.manifest_temporary(id);
    let file = log_file::create(&**disk, &temporary, &header, capacity).await?;
    match write_snapshot(disk, &file, &header, frames).await {
        Ok((offset, next_sequence)) => Ok(Made { file, header, capacity, offset, next_sequence }),
        Err(error) => {
            drop(file);
            // One that stays is removed by the next open.
            let _ = disk.remove_file(&temporary).await;
            Err(error)
        }
    }
}

/// Writes the frames of a snapshot and syncs them; where the next frame goes, and its sequence.
async fn write_snapshot(
    disk: &Arc<dyn Disk>,
    file: &FileHandle,
    header: &FileHeader,
    frames: &[(Vec<u8>, u32)],
) -> Result<(u64, FrameSequence), Error> {
    let mut offset = BLOCK_BYTES as u64;
    let mut sequence = FrameSequence::new(1);
    let last = frames.len() - 1;
    for (position, (payload, count)) in frames.iter().enumerate() {
        let kind = if position == last {
            FrameKind::ManifestSnapshotEnd
        } else {
            FrameKind::ManifestSnapshot
        };
        let frame = FrameHeader {
            durable_through: FrameSequence::new(0),
            ..frame_header(kind, payload, *count, sequence)
        };
        let buffer = frame_buffer(payload)?;
        log_file::write_frame(&**disk, file, header, offset, buffer, &frame).await?;
        offset += frame_bytes(payload.len()) as u64;
        sequence = sequence.next();
    }
    nephrite_io::sync(&**disk, file).await?;
    Ok((offset, sequence))
}

/// The state as payloads of frames; at least one.
fn snapshot_frames(state: &ManifestState) -> Vec<(Vec<u8>, u32)> {
    let mut frames = Vec::new();
    let (mut payload, mut count) = (Vec::new(), 0);
    for edit in state.as_edits() {
        edit.encode_into(&mut payload);
        count += 1;
        if SNAPSHOT_FRAME_BYTES <= payload.len() {
            frames.push((std::mem::take(&mut payload), std::mem::take(&mut count)));
        }
    }
    frames.push((payload, count));
    frames
}
