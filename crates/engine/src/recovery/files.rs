//! The log files that recovery needs: exactly those that the manifest names.
//!
//! A file is named in the manifest only after its header is on disk, and frames go to it only
//! after that. So a named file that is missing, cut, or has another header is damage, and a file
//! that is not named holds nothing that counts: it is free, if it is one of this store.

use std::{collections::BTreeMap, sync::Arc};

use nephrite_format::{
    BLOCK_BYTES, FileDetail, FileHeader, FileId, FileKind, FrameSequence, frame::peek_frame_bytes,
};
use nephrite_io::{Disk, IoBuffer, IoErrorKind};

use super::Source;
use crate::{
    error::Error,
    log_file,
    manifest::ManifestState,
    paths::{StorePaths, parse_wal, wal_name},
    wal::{LogPosition, RestingFile, WalFile},
};

/// A segment that recovery needs.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) wal: RestingFile,
    pub(super) header: FileHeader,
    pub(super) position: u64,
}

/// Where the manifest lets the log begin.
pub(crate) fn log_start(manifest: &ManifestState) -> LogPosition {
    manifest
        .counters
        .map_or(LogPosition { segment: 1, sequence: FrameSequence::new(1) }, |counters| {
            LogPosition { segment: counters.wal_position, sequence: counters.wal_sequence }
        })
}

/// The segments from the manifest's start on, by position.
///
/// # Errors
/// `Corrupt` naming the file that is missing, cut, foreign, or not what the manifest says.
pub(super) async fn needed(source: Source<'_>) -> Result<BTreeMap<u64, Found>, Error> {
    let mut needed = BTreeMap::new();
    for (position, id) in &source.manifest.log {
        let expected = log_start(source.manifest).segment + needed.len() as u64;
        if *position != expected {
            let what = format!("log segment {expected} is missing, {position} is next");
            return Err(Error::corrupt(wal_name(*id), 0, what));
        }
        needed.insert(*position, open_named(source, *position, *id).await?);
    }
    Ok(needed)
}

async fn open_named(source: Source<'_>, position: u64, id: FileId) -> Result<Found, Error> {
    let (path, name) = (source.paths.wal(id), wal_name(id));
    let opened = log_file::open_existing(source.disk, &path, &name, true).await;
    let (file, bytes) = opened.map_err(|error| match error {
        Error::Io(io) if io.kind() == IoErrorKind::NotFound => {
            Error::corrupt(&*name, 0, format!("log segment {position} is missing"))
        }
        other => other,
    })?;
    let wal = WalFile { id, file, bytes };
    let header = read_header(source.disk, &wal).await?;
    header.expect_identity(source.store, id, &name)?;
    let FileDetail::Wal { position: found, segment_bytes } = header.detail else {
        return Err(Error::corrupt(name, 0, "the header is not a log segment's"));
    };
    if segment_bytes != bytes {
        let what = format!("the file has {bytes} bytes where its header says {segment_bytes}");
        return Err(Error::corrupt(name, bytes.min(segment_bytes), what));
    }
    if found != position {
        let what = format!("the file is log segment {found} where the manifest says {position}");
        return Err(Error::corrupt(name, 0, what));
    }
    Ok(Found { wal: wal.into(), header, position })
}

async fn read_header(disk: &Arc<dyn Disk>, wal: &WalFile) -> Result<FileHeader, Error> {
    let name = wal_name(wal.id);
    let page = IoBuffer::Owned(log_file::aligned(BLOCK_BYTES)?);
    let page = nephrite_io::read(&**disk, &wal.file, 0, page).await?;
    let header = FileHeader::decode(page.as_slice(), &name)?;
    header.expect_kind(FileKind::Wal, &name)?;
    Ok(header)
}

/// Files in the log directory that the manifest does not name. One that a crash left unfinished is
/// removed.
///
/// # Errors
/// `Corrupt` naming a file of another store, which is left as it is; `VersionUnsupported`.
pub(super) async fn unnamed(source: Source<'_>) -> Result<Vec<RestingFile>, Error> {
    let named: Vec<FileId> = source.manifest.log.values().copied().collect();
    let mut spares = Vec::new();
    for entry in source.disk.list_dir(source.paths.wal_dir()).await? {
        let Some(id) = parse_wal(&entry.name).filter(|id| !named.contains(id)) else { continue };
        let (path, name) = (source.paths.wal(id), wal_name(id));
        let (file, bytes) = match log_file::open_existing(source.disk, &path, &name, true).await {
            Ok(opened) => opened,
            Err(Error::Corrupt { .. }) => {
                source.disk.remove_file(&path).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let wal = WalFile { id, file, bytes };
        match read_header(source.disk, &wal).await {
            Ok(header) => header.expect_identity(source.store, id, &name)?,
            // Torn while it was made or recycled.
            Err(Error::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        spares.push(wal.into());
    }
    if !spares.is_empty() {
        // Whoever made them may have been killed before their names were durable.
        source.disk.sync_dir(source.paths.wal_dir()).await?;
    }
    Ok(spares)
}

/// Whether a log file never was a segment of a log: unfinished, or made and not used.
pub(crate) async fn is_unused(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    id: FileId,
) -> Result<bool, Error> {
    let opened = log_file::open_existing(disk, &paths.wal(id), &wal_name(id), false).await;
    let (file, bytes) = match opened {
        Ok(opened) => opened,
        Err(Error::Corrupt { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    let page = IoBuffer::Owned(log_file::aligned(BLOCK_BYTES)?);
    let page = nephrite_io::read(&**disk, &file, 0, page).await?;
    if page.as_slice().iter().all(|byte| *byte == 0) {
        return Ok(true);
    }
    let wal = WalFile { id, file, bytes };
    match read_header(disk, &wal).await {
        Ok(header) => Ok(matches!(header.detail, FileDetail::Wal { position: 0, .. })),
        // Torn while it was made, unless there are frames behind it.
        Err(Error::Corrupt { .. }) => {
            let content = log_file::read_file(&**disk, &wal.file, wal.bytes).await?;
            let mut blocks = content.chunks(BLOCK_BYTES).skip(1);
            Ok(!blocks.any(|block| peek_frame_bytes(block).is_some()))
        }
        Err(error) => Err(error),
    }
}
