//! A file of frames: the log's segments and the manifest.
//!
//! Every block of such a file is written once when it is made, so that later writes change no file
//! metadata (an appending file makes the file system commit its journal at every sync).
//! [`read_frames`] reads one back and tells a legal torn tail from damage.
//! Not here: what the frames hold.

use std::{path::Path, sync::Arc};

use nephrite_format::{
    BLOCK_BYTES, FileHeader, FrameSequence,
    frame::{
        FrameHeader, FrameKind, FrameView, decode_frame, frame_bytes, peek_frame_bytes, seal_frame,
    },
};
use nephrite_io::{
    Disk, FileHandle, IoBuffer, OpenOptions, memory::AlignedBuf, read_many, write, write_many,
};

use crate::{error::Error, planted::planted};

/// Size of the writes that fill a new file with zeros and of the reads that read one back.
const TRANSFER_BYTES: usize = 1 << 20;
/// Transfers of that size in flight at a time.
const TRANSFERS_IN_FLIGHT: usize = 8;

/// Makes a file of `bytes` zeros behind `header` and syncs it; its directory entry is the
/// caller's to sync.
pub(crate) async fn create(
    disk: &dyn Disk,
    path: &Path,
    header: &FileHeader,
    bytes: u64,
) -> Result<FileHandle, Error> {
    let file = disk.open(path, OpenOptions::read_write().create_new()).await?;
    let filled = fill(disk, &file, header, bytes).await;
    if filled.is_err() {
        // The file is useless; the error that made it so is what the caller needs to know.
        drop(file);
        let _ = disk.remove_file(path).await;
        filled?;
        unreachable!("the error was just returned");
    }
    Ok(file)
}

async fn fill(
    disk: &dyn Disk,
    file: &FileHandle,
    header: &FileHeader,
    bytes: u64,
) -> Result<(), Error> {
    let mut offset = 0;
    while offset < bytes {
        let mut batch = Vec::new();
        while offset < bytes && batch.len() < TRANSFERS_IN_FLIGHT {
            let len = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(TRANSFER_BYTES);
            let mut buffer = aligned(len)?;
            if offset == 0 {
                header.encode_into(&mut buffer[..BLOCK_BYTES]);
            }
            batch.push((offset, IoBuffer::Owned(buffer)));
            offset += len as u64;
        }
        write_many(disk, file, batch).await?;
    }
    nephrite_io::sync(disk, file).await?;
    Ok(())
}

/// Seals the frame whose payload lies in `buffer` and writes it at `offset`; gives the buffer
/// back.
pub(crate) async fn write_frame(
    disk: &dyn Disk,
    file: &FileHandle,
    header: &FileHeader,
    offset: u64,
    mut buffer: AlignedBuf,
    frame: &FrameHeader,
) -> Result<AlignedBuf, Error> {
    let len = seal(&mut buffer, header, offset, frame);
    let written = write(disk, file, offset, IoBuffer::Part { buffer, len }).await?;
    Ok(written.into_aligned().expect("the buffer that was handed in comes back"))
}

/// Seals a frame in place; returns its whole length.
pub(crate) fn seal(
    buffer: &mut [u8],
    header: &FileHeader,
    offset: u64,
    frame: &FrameHeader,
) -> usize {
    let len = frame_bytes(frame.payload_bytes as usize);
    seal_frame(&mut buffer[..len], header.identity(offset), frame);
    len
}

/// A whole file in memory.
pub(crate) async fn read_file(
    disk: &dyn Disk,
    file: &FileHandle,
    bytes: u64,
) -> Result<Vec<u8>, Error> {
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    let mut offset = 0;
    while offset < bytes {
        let mut batch = Vec::new();
        while offset < bytes && batch.len() < TRANSFERS_IN_FLIGHT {
            let len = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(TRANSFER_BYTES);
            let whole = len.next_multiple_of(BLOCK_BYTES);
            debug_assert_eq!(len, whole, "callers read block multiples");
            batch.push((offset, IoBuffer::Owned(aligned(whole)?)));
            offset += len as u64;
        }
        for buffer in read_many(disk, file, batch).await? {
            content.extend_from_slice(buffer.as_slice());
        }
    }
    Ok(content)
}

/// Why reading frames ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The end of the file, or of what was written in this life of it.
    End,
    /// Something at this offset that is no valid frame: torn by a crash, or damaged.
    Hole {
        offset: u64,
        what: String,
        /// The highest sequence that a valid frame behind the hole says is on disk.
        durable_behind: Option<FrameSequence>,
    },
}

/// Gives every valid frame in order from block 1 on to `visit`, with its offset, until one is
/// missing. `next` is the sequence expected first (`None`: any).
pub(crate) fn read_frames<'a>(
    content: &'a [u8],
    header: &FileHeader,
    mut next: Option<FrameSequence>,
    mut visit: impl FnMut(u64, FrameView<'a>) -> Result<(), Error>,
) -> Result<Stop, Error> {
    let mut at = BLOCK_BYTES;
    while at < content.len() {
        let offset = at as u64;
        let what = match decode_frame(&content[at..], header.identity(offset)) {
            Ok(frame) if next.is_none_or(|next| frame.header.sequence == next) => {
                // A mark has the place and the sequence of the frame that overwrites it. Where it
                // is found that frame was lost, and none behind it counts.
                let sequence = frame.header.sequence;
                next = Some(if is_mark(&frame.header) { sequence } else { sequence.next() });
                at += frame.total_bytes;
                visit(offset, frame)?;
                continue;
            }
            Ok(frame) => format!("frame {} where {next:?} belongs", frame.header.sequence),
            Err(error) => error.to_string(),
        };
        let durable_behind = durable_behind(content, header, at);
        let blank = content[at..(at + BLOCK_BYTES).min(content.len())].iter().all(|b| *b == 0);
        if blank && durable_behind.is_none() {
            return Ok(Stop::End);
        }
        return Ok(Stop::Hole { offset, what, durable_behind });
    }
    Ok(Stop::End)
}

/// Whether a frame only says what is on disk, until the next frame takes its place.
pub(crate) fn is_mark(frame: &FrameHeader) -> bool {
    frame.record_count == 0
        && !planted("mark_counted")
        && matches!(frame.kind, FrameKind::WalRecords | FrameKind::ManifestEdits)
}

/// What valid frames from `at` on say is on disk. Looks at every block, since a hole hides where
/// the next frame begins.
pub(crate) fn durable_behind(
    content: &[u8],
    header: &FileHeader,
    at: usize,
) -> Option<FrameSequence> {
    let mut found = None;
    let mut at = at;
    while at < content.len() {
        let rest = &content[at..];
        let plausible = peek_frame_bytes(rest).is_some();
        match decode_frame(rest, header.identity(at as u64)) {
            Ok(frame) if plausible => {
                found = found.max(Some(frame.header.durable_through));
                at += frame.total_bytes;
            }
            _ => at += BLOCK_BYTES,
        }
    }
    found
}

/// A zeroed buffer, or the engine's error for want of memory.
pub(crate) fn aligned(bytes: usize) -> Result<AlignedBuf, Error> {
    AlignedBuf::zeroed(bytes).map_err(|error| Error::Cache { reason: error.to_string().into() })
}

/// Opens a file of ours that must exist and be a whole number of blocks long.
pub(crate) async fn open_existing(
    disk: &Arc<dyn Disk>,
    path: &Path,
    name: &str,
    writable: bool,
) -> Result<(FileHandle, u64), Error> {
    let options = if writable { OpenOptions::read_write() } else { OpenOptions::read_only() };
    let file = disk.open(path, options).await?;
    let bytes = disk.file_len(&file).await?;
    if bytes < BLOCK_BYTES as u64 || bytes % BLOCK_BYTES as u64 != 0 {
        return Err(Error::corrupt(
            name,
            bytes,
            format!("the file ends after {bytes} bytes, which is not a whole number of blocks"),
        ));
    }
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use nephrite_format::{FileDetail, FileId, Generation, Lsn, StoreId, frame::build_frame};

    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            store: StoreId::new([7; 16]),
            file: FileId::new(3),
            generation: Generation::new(5),
            detail: FileDetail::Wal { position: 5, segment_bytes: 64 * BLOCK_BYTES as u64 },
        }
    }

    /// Frames of two blocks with these (sequence, durable through), behind the header block.
    fn file(frames: &[(u64, u64)]) -> Vec<u8> {
        let mut content = vec![0; BLOCK_BYTES];
        for (sequence, durable) in frames {
            let frame = FrameHeader {
                kind: FrameKind::WalRecords,
                payload_bytes: 0,
                record_count: 1,
                sequence: FrameSequence::new(*sequence),
                first_lsn: Lsn::new(*sequence),
                durable_through: FrameSequence::new(*durable),
            };
            let place = header().identity(content.len() as u64);
            content.extend(build_frame(place, &frame, &[9; 5000]));
        }
        content.resize(64 * BLOCK_BYTES, 0);
        content
    }

    fn read(content: &[u8]) -> (Vec<u64>, Stop) {
        let mut seen = Vec::new();
        let stop = read_frames(content, &header(), None, |_, frame| {
            seen.push(frame.header.sequence.get());
            Ok(())
        });
        (seen, stop.unwrap())
    }

    #[test]
    fn a_log_that_just_ends_is_read_to_its_end() {
        assert_eq!(read(&file(&[(4, 0), (5, 4), (6, 5)])), (vec![4, 5, 6], Stop::End));
        assert_eq!(read(&file(&[])), (vec![], Stop::End));
    }

    #[test]
    fn a_torn_last_frame_is_a_hole_without_evidence() {
        let mut content = file(&[(4, 0), (5, 4)]);
        content[BLOCK_BYTES * 4 + 100] ^= 1;
        let (seen, stop) = read(&content);
        assert_eq!(seen, [4]);
        assert!(matches!(stop, Stop::Hole { offset: 12288, durable_behind: None, .. }), "{stop:?}");
    }

    #[test]
    fn a_later_frame_tells_that_the_missing_one_was_on_disk() {
        let mut content = file(&[(4, 0), (5, 4), (6, 5)]);
        content[BLOCK_BYTES * 3..BLOCK_BYTES * 5].fill(0);
        let (seen, stop) = read(&content);
        assert_eq!(seen, [4]);
        let Stop::Hole { durable_behind, .. } = stop else { panic!("{stop:?}") };
        assert_eq!(durable_behind, Some(FrameSequence::new(5)));
    }

    #[test]
    fn a_frame_of_an_earlier_life_or_of_another_place_is_not_read() {
        let mut content = file(&[(4, 0)]);
        let copy = content[BLOCK_BYTES..BLOCK_BYTES * 3].to_vec();
        content[BLOCK_BYTES * 3..BLOCK_BYTES * 5].copy_from_slice(&copy);
        let (seen, stop) = read(&content);
        assert_eq!(seen, [4]);
        assert!(matches!(stop, Stop::Hole { durable_behind: None, .. }), "{stop:?}");
    }

    /// A frame that overwrote a mark may be lost in a crash while the next one is kept.
    #[test]
    fn a_frame_behind_a_mark_does_not_count() {
        let mut content = file(&[(4, 3)]);
        content.truncate(BLOCK_BYTES * 3);
        for (sequence, record_count) in [(5, 0), (6, 1)] {
            let frame = FrameHeader {
                kind: FrameKind::WalRecords,
                payload_bytes: 0,
                record_count,
                sequence: FrameSequence::new(sequence),
                first_lsn: Lsn::new(5),
                durable_through: FrameSequence::new(4),
            };
            let place = header().identity(content.len() as u64);
            content.extend(build_frame(place, &frame, &[]));
        }
        content.resize(64 * BLOCK_BYTES, 0);
        let (seen, stop) = read(&content);
        assert_eq!(seen, [4, 5]);
        let Stop::Hole { durable_behind, .. } = stop else { panic!("{stop:?}") };
        assert_eq!(durable_behind, Some(FrameSequence::new(4)));
    }

    #[test]
    fn a_gap_in_the_sequence_ends_the_log() {
        let (seen, stop) = read(&file(&[(4, 0), (6, 4)]));
        assert_eq!(seen, [4]);
        assert!(matches!(stop, Stop::Hole { .. }), "{stop:?}");
    }
}
