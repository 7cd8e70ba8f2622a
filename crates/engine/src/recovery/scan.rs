//! First pass over the log: where it ends, and whether that end is legal.

use std::collections::BTreeMap;

use nephrite_format::{
    BLOCK_BYTES, FrameSequence, Lsn,
    frame::{FrameHeader, decode_frame, peek_frame_bytes},
    wal::WalRecord,
};

use super::{
    ChainSegment, RecoveredLog, Source,
    bulk::{Bulk, Checked, check_bulk},
    content,
    files::{self, Found},
    records,
};
use crate::{
    error::Error,
    log_file::{self, Stop},
    manifest::NUMBER_MAX,
    paths::wal_name,
    planted::planted,
    wal::LogPosition,
};

/// A place where the log ends.
#[derive(Clone, Debug)]
struct End {
    name: String,
    offset: u64,
}

/// Finds the end of the log. Changes nothing but files that hold nothing.
///
/// # Errors
/// `Corrupt` naming file and offset when the log is damaged.
pub(crate) async fn scan_log(source: Source<'_>) -> Result<RecoveredLog, Error> {
    let start = files::log_start(source.manifest);
    let mut needed = files::needed(source).await?;
    let flushed = source.manifest.databases.values().map(|record| record.flushed_lsn).max();
    let known = source.manifest.counters.map_or(1, |counters| counters.next_lsn.get());
    let mut log = RecoveredLog {
        chain: Vec::new(),
        spares: files::unnamed(source).await?,
        rejected: Vec::new(),
        next_lsn: Lsn::new(known.max(flushed.map_or(1, |lsn| lsn.get() + 1))),
        next_sequence: start.sequence,
        next_position: start.segment + needed.len() as u64,
    };
    let mut end = None;
    while let Some((_, found)) = needed.pop_first() {
        let name = wal_name(found.wal.id);
        let stop = scan_segment(source, &mut log, found, &needed).await?;
        if let Some(place) = judge(stop, log.next_sequence, &name)? {
            // A full segment may end in frames of its former life, which look like a torn tail,
            // and a segment may have been made ready and never written: the log goes on where a
            // segment begins with the frame that is expected.
            let Some(next) = continuation(source, &needed, log.next_sequence).await? else {
                end = Some(place);
                break;
            };
            let rest = needed.split_off(&next);
            log.chain.extend(std::mem::replace(&mut needed, rest).into_values().map(empty(&log)));
        }
    }
    // What follows a legal end was never acknowledged. The manifest names these segments, so they
    // are not free before it forgets them.
    for found in needed.values() {
        refuse_frames_behind(source, found, log.next_sequence, end.as_ref()).await?;
    }
    let behind: Vec<ChainSegment> = needed.into_values().map(empty(&log)).collect();
    log.chain.extend(behind);
    Ok(log)
}

/// A segment without frames that count, for the chain.
fn empty(log: &RecoveredLog) -> impl Fn(Found) -> ChainSegment + use<> {
    let (sequence, last_lsn) = (log.next_sequence, crate::core::before(log.next_lsn));
    move |found| ChainSegment {
        start: LogPosition { segment: found.position, sequence },
        wal: found.wal,
        header: found.header,
        end: sequence,
        last_lsn,
    }
}

/// The first of the later segments that begins with this frame.
async fn continuation(
    source: Source<'_>,
    later: &BTreeMap<u64, Found>,
    sequence: FrameSequence,
) -> Result<Option<u64>, Error> {
    for (position, found) in later {
        if begins_with(source, found, sequence).await? {
            return Ok(Some(*position));
        }
    }
    Ok(None)
}

/// Scans one segment, which `later` ones follow: adds it to the chain and tells why its frames
/// ended.
async fn scan_segment(
    source: Source<'_>,
    log: &mut RecoveredLog,
    found: Found,
    later: &BTreeMap<u64, Found>,
) -> Result<Stop, Error> {
    let Found { wal, header, position } = found;
    let name = wal_name(wal.id);
    // As with the manifest: durable before anything is built on it.
    let opened = wal.open(source.disk, source.paths).await?;
    nephrite_io::sync(&**source.disk, &opened.file).await?;
    let content = log_file::read_file(&**source.disk, &opened.file, wal.bytes).await?;
    drop(opened);
    let start = LogPosition { segment: position, sequence: log.next_sequence };
    let mut bulks: Vec<(u64, FrameSequence, Lsn, Bulk)> = Vec::new();
    let mut ends: Vec<(FrameSequence, u32, Lsn)> = Vec::new();
    let stop = log_file::read_frames(&content, &header, Some(log.next_sequence), |at, frame| {
        let sequence = frame.header.sequence;
        check_numbers(&frame.header, &name, at)?;
        for (record, lsn) in records(&frame, &name, at).zip(frame.header.first_lsn.get()..) {
            if let WalRecord::Bulk(bulk) = record? {
                bulks.push((at, sequence, Lsn::new(lsn), Bulk::of(&bulk)));
            }
        }
        ends.push((sequence, frame.header.record_count, frame.header.first_lsn));
        Ok(())
    })?;
    let mut stop = stop;
    let mut later_from = None; // looked up for the first record that asks
    for (at, sequence, lsn, bulk) in bulks {
        let what = match check_bulk(source, lsn, &bulk).await? {
            Checked::Whole => continue,
            Checked::NotNeeded => {
                // An earlier recovery may have found the rows missing, and ended the log here.
                let from = match later_from {
                    Some(from) => from,
                    None => *later_from.insert(lowest_first(source, later).await?),
                };
                let is_replaced = from.is_some_and(|from| from <= sequence);
                if !is_replaced || planted("replaced_frame_counts") {
                    continue;
                }
                format!("frame {sequence}, which the next log segment replaces")
            }
            Checked::Missing(what) => what,
        };
        ends.retain(|(other, ..)| *other < sequence);
        let behind = log_file::durable_behind(&content, &header, block_behind(at));
        stop = Stop::Hole { offset: at, what, durable_behind: behind };
        log.rejected.push((wal, at));
        break;
    }
    let mut last_lsn = crate::core::before(log.next_lsn);
    // A frame without records is a mark: the next frame takes its place and its sequence.
    for (sequence, count, first_lsn) in ends.iter().filter(|(_, count, _)| 0 < *count) {
        log.next_sequence = sequence.next();
        last_lsn = Lsn::new(first_lsn.get() + u64::from(*count) - 1);
        log.next_lsn = log.next_lsn.max(Lsn::new(last_lsn.get() + 1));
    }
    let end = log.next_sequence;
    log.chain.push(ChainSegment { wal, header, start, end, last_lsn });
    Ok(stop)
}

/// Refuses numbers that the log could not count on from.
fn check_numbers(frame: &FrameHeader, name: &str, offset: u64) -> Result<(), Error> {
    if frame.sequence.get() <= NUMBER_MAX && frame.first_lsn.get() <= NUMBER_MAX {
        return Ok(());
    }
    let what = format!("frame {} begins with record {}", frame.sequence, frame.first_lsn);
    Err(Error::corrupt(name, offset, what))
}

/// Where the log may legally end, if a segment does not end in blank blocks.
///
/// # Errors
/// `Corrupt` when later frames of the segment say that the missing one was on disk.
fn judge(stop: Stop, missing: FrameSequence, name: &str) -> Result<Option<End>, Error> {
    let Stop::Hole { offset, what, durable_behind } = stop else { return Ok(None) };
    if durable_behind.is_some_and(|durable| missing <= durable) {
        let what = format!("{what}; later frames say that it was on disk");
        return Err(Error::corrupt(name, offset, what));
    }
    Ok(Some(End { name: name.to_owned(), offset }))
}

/// Whether the first frame of a segment has this sequence.
async fn begins_with(
    source: Source<'_>,
    segment: &Found,
    sequence: FrameSequence,
) -> Result<bool, Error> {
    Ok(first_frame(source, segment).await? == Some(sequence))
}

/// The lowest sequence that one of these segments begins with. A frame with it or a later one does
/// not count in a segment before them: the log had ended before it when they were begun.
async fn lowest_first(
    source: Source<'_>,
    later: &BTreeMap<u64, Found>,
) -> Result<Option<FrameSequence>, Error> {
    let mut lowest = None;
    for found in later.values() {
        lowest = lowest.into_iter().chain(first_frame(source, found).await?).min();
    }
    Ok(lowest)
}

/// The sequence of a segment's first frame, if there is one. Reads no more than that frame.
async fn first_frame(source: Source<'_>, segment: &Found) -> Result<Option<FrameSequence>, Error> {
    let Found { wal, header, .. } = segment;
    let opened = wal.open(source.disk, source.paths).await?;
    let place = BLOCK_BYTES as u64;
    let read = |bytes: u64| log_file::read_file(&**source.disk, &opened.file, bytes);
    let mut content = read(wal.bytes.min(2 * place)).await?;
    let Some(frame_bytes) = peek_frame_bytes(&content[BLOCK_BYTES..]) else { return Ok(None) };
    let end = BLOCK_BYTES + frame_bytes;
    if content.len() < end && end as u64 <= wal.bytes {
        content = read(end as u64).await?;
    }
    let first = decode_frame(&content[BLOCK_BYTES..], header.identity(place));
    Ok(first.ok().map(|frame| frame.header.sequence))
}

/// A segment behind the end of the log must hold nothing that was acknowledged.
async fn refuse_frames_behind(
    source: Source<'_>,
    found: &Found,
    missing: FrameSequence,
    end: Option<&End>,
) -> Result<(), Error> {
    let Found { wal, header, .. } = found;
    let content = content(source.disk, source.paths, *wal).await?;
    let durable = log_file::durable_behind(&content, header, BLOCK_BYTES);
    if durable.is_some_and(|durable| missing <= durable) {
        let place = (wal_name(wal.id), BLOCK_BYTES as u64);
        let (name, offset) = end.map_or(place, |end| (end.name.clone(), end.offset));
        let what = format!(
            "frame {missing} is missing, though the next log segment says that it was on disk"
        );
        return Err(Error::corrupt(name, offset, what));
    }
    Ok(())
}

/// Where the block behind the one at `offset` begins.
fn block_behind(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(BLOCK_BYTES)
}
