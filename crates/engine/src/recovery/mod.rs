//! Recovery: reads the log back after the store was not closed.
//!
//! | file | concept |
//! |---|---|
//! | `files` | the log files that the manifest names, and what else lies in the directory |
//! | `scan` | first pass: where the log ends, and whether that end is legal |
//! | `bulk` | rows of bulk records in segment files that were not sealed |
//! | `replay` | second pass: the records become memtables |
//! | `rejected` | frames that do not count are overwritten, so that none does later |
//!
//! The first pass finds where the log ends: at the first frame that is missing or does not verify,
//! or whose bulk rows do not. That end is legal if nothing says that the missing frame was on
//! disk: then it was never acknowledged. Otherwise it is damage, and the open fails naming file
//! and offset. One log segment is open and in memory at a time.
//!
//! Nothing on disk changes until the memtables are flushed (a manifest of unknown state was written
//! anew before), so a crash during recovery starts it over from the same state. Behind the second
//! pass, and before the log takes new records, frames that were left out are overwritten: a crash
//! before that finds them again for the same reason, one after it finds the log ending there.
//! A database whose own segments are damaged does not stop the others: its records stay in the
//! log until it can be opened.

mod bulk;
mod files;
mod rejected;
mod replay;
mod scan;

use std::sync::Arc;

use nephrite_format::{FileHeader, FrameSequence, Lsn, StoreId, frame::FrameView, wal::WalRecords};
use nephrite_io::Disk;

pub(crate) use self::{
    files::{is_unused, log_start},
    replay::is_damage,
    scan::scan_log,
};
use crate::{
    error::Error,
    log_file,
    manifest::ManifestState,
    paths::StorePaths,
    wal::{LogPosition, RecoveredSegment, RestingFile},
};

/// What recovery reads from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) paths: &'a StorePaths,
    pub(crate) store: StoreId,
    pub(crate) manifest: &'a ManifestState,
}

/// The log as recovery found it.
#[derive(Debug)]
pub(crate) struct RecoveredLog {
    /// Segments with records, in order, and how many of their frames count.
    chain: Vec<ChainSegment>,
    spares: Vec<RestingFile>,
    /// Whole frames that do not count all the same: in which file, and where.
    rejected: Vec<(RestingFile, u64)>,
    pub(crate) next_lsn: Lsn,
    pub(crate) next_sequence: FrameSequence,
    pub(crate) next_position: u64,
}

#[derive(Debug)]
struct ChainSegment {
    wal: RestingFile,
    header: FileHeader,
    start: LogPosition,
    /// Sequence of the first frame that does not count.
    end: FrameSequence,
    last_lsn: Lsn,
}

impl RecoveredLog {
    /// The log of a new store.
    pub(crate) fn fresh(spares: Vec<RestingFile>) -> Self {
        Self {
            chain: Vec::new(),
            spares,
            rejected: Vec::new(),
            next_lsn: Lsn::new(1),
            next_sequence: FrameSequence::new(1),
            next_position: 1, // 0 is what a file that was never used says
        }
    }

    /// Splits off what the log goes on with: segments that recovery still needs, and free files.
    pub(crate) fn hand_over(&mut self) -> (Vec<RecoveredSegment>, Vec<RestingFile>) {
        let closed = self.chain.iter().map(|segment| RecoveredSegment {
            start: segment.start,
            last_lsn: segment.last_lsn,
            wal: segment.wal,
        });
        (closed.collect(), std::mem::take(&mut self.spares))
    }

    /// Whether there are no records at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }
}

/// All bytes of a log file.
async fn content(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    wal: RestingFile,
) -> Result<Vec<u8>, Error> {
    let wal = wal.open(disk, paths).await?;
    log_file::read_file(&**disk, &wal.file, wal.bytes).await
}

fn records<'a>(frame: &FrameView<'a>, name: &'a str, at: u64) -> WalRecords<'a> {
    let payload_at = at + nephrite_format::frame::FRAME_HEADER_BYTES as u64;
    WalRecords::new(frame.payload, frame.header.record_count, name, payload_at)
}
