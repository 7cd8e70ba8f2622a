//! The log as it lies on disk, read with the format crate: where frames begin and end.

use std::{fs, path::Path};

use nephrite_format::{BLOCK_BYTES, FileDetail, FileHeader, frame::decode_frame};

use crate::{
    directories::{Kind, StoreFile, files_of},
    process::wait_until,
};

/// A valid frame of a log segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogFrame {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// Records in it; a mark, which only says what is on disk, has none.
    pub records: u32,
}

/// Frames of a log segment from its first block on, until something else follows.
///
/// # Panics
/// When the file cannot be read.
#[must_use]
pub fn log_frames(file: &Path) -> Vec<LogFrame> {
    let content = fs::read(file).expect("a log segment can be read");
    let mut frames = Vec::new();
    let Some(Ok(header)) = content.get(..BLOCK_BYTES).map(|page| FileHeader::decode(page, "log"))
    else {
        return frames;
    };
    let mut at = BLOCK_BYTES;
    while let Some(rest) = content.get(at..) {
        let Ok(frame) = decode_frame(rest, header.identity(at as u64)) else { break };
        let end = at + frame.total_bytes;
        let records = frame.header.record_count;
        frames.push(LogFrame { start: at as u64, end: end as u64, records });
        at = end;
    }
    frames
}

/// The log segment with the highest position of those that hold frames; the next one may have been
/// made ready.
///
/// # Panics
/// When the store cannot be read.
#[must_use]
pub fn current_log(store: &Path) -> Option<StoreFile> {
    let position = |file: &StoreFile| {
        let content = fs::read(&file.path).ok()?;
        let header = FileHeader::decode(content.get(..BLOCK_BYTES)?, &file.name).ok()?;
        match header.detail {
            FileDetail::Wal { position, .. } if !log_frames(&file.path).is_empty() => {
                Some(position)
            }
            _ => None,
        }
    };
    let files = files_of(store, Kind::Wal).into_iter();
    files.filter_map(|file| Some((position(&file)?, file))).max_by_key(|it| it.0).map(|it| it.1)
}

/// Waits until the log of an open store says that its last frame is on disk.
///
/// # Panics
/// When it does not within a minute.
pub fn wait_for_mark(store: &Path) {
    wait_until("the log has marked what is on disk", || {
        let used = current_log(store);
        used.is_some_and(|file| log_frames(&file.path).last().is_some_and(|it| it.records == 0))
    });
}
