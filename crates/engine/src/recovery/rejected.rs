//! Frames that are whole and do not count, since bulk rows that they name are missing: overwritten.
//!
//! Left as it is, such a frame would count in a later recovery in which nobody asks for the rows
//! any more (their database was flushed meanwhile, or dropped), if a power cut took the frame that
//! the next life wrote in its place: unacknowledged records in it, and in the frames behind it,
//! would come back. So its first block is zeros on disk before the log takes new records, or the
//! store is not opened. One block is written once, whatever a crash leaves of that: the frame as it
//! was, which is left out again, or none. No cost where nothing was left out.
//!
//! Not here: a sync that fails, after which another process opens the store on the same machine. It
//! reads zeros that may not be on disk; what [`super::scan`] knows of the segments behind then
//! keeps the frame out, unless their first frames are lost as well.

use std::sync::Arc;

use nephrite_format::BLOCK_BYTES;
use nephrite_io::{Disk, IoBuffer};

use super::RecoveredLog;
use crate::{error::Error, log_file, paths::StorePaths, planted::planted};

impl RecoveredLog {
    /// Overwrites the frames that were left out.
    ///
    /// # Errors
    /// Those of the disk: then the log must not be written.
    pub(crate) async fn overwrite_rejected(
        &self,
        disk: &Arc<dyn Disk>,
        paths: &StorePaths,
    ) -> Result<(), Error> {
        if planted("rejected_frame_kept") {
            return Ok(());
        }
        for (wal, offset) in &self.rejected {
            let opened = wal.open(disk, paths).await?;
            let block = IoBuffer::Owned(log_file::aligned(BLOCK_BYTES)?);
            nephrite_io::write(&**disk, &opened.file, *offset, block).await?;
            nephrite_io::sync(&**disk, &opened.file).await?;
        }
        Ok(())
    }
}
