//! Pace: how fast a compaction may read and write.
//!
//! Every piece is paid for with time; who is ahead of the budget waits. A compaction that space or
//! a caller waits for has no limit, and none has one while a flush or a caller waits behind it, or
//! while its database falls behind (`choice::presses`): what is put off then is paid for by writers
//! that wait. The end of the store ends the wait, and the compaction; so does a relief, if nobody
//! has asked for it.

use std::time::Duration;

use super::choice;
use crate::{
    core::{Core, DatabaseCore},
    error::Error,
    together::either,
};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    core: &'a Core,
    database: &'a DatabaseCore,
    /// None: as fast as it goes.
    bytes_per_second: Option<u64>,
    started: Duration,
    bytes: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(
        core: &'a Core,
        database: &'a DatabaseCore,
        bytes_per_second: Option<u64>,
    ) -> Self {
        Self { core, database, bytes_per_second, started: core.runtime.now(), bytes: 0 }
    }

    /// Pays for bytes that were transferred.
    ///
    /// # Errors
    /// `Closed` when the store is being closed; that of a full disk when nobody has asked for this
    /// compaction and a relief needs the room.
    pub(super) async fn pay(&mut self, bytes: u64) -> Result<(), Error> {
        self.bytes += bytes;
        self.core.take_loan_back_after(bytes); // what it holds may have grown
        self.core.note_fill();
        // What was dropped meanwhile gives its space back before a long compaction ends.
        self.core.remove_garbage().await;
        let Some(per_second) = self.bytes_per_second else { return self.core.check_goes_on() };
        let due = self.bytes.saturating_mul(1_000_000) / per_second.max(1);
        let due = self.started.saturating_add(Duration::from_micros(due));
        loop {
            let called = self.core.compaction_wanted.listen();
            self.core.check_goes_on()?;
            let now = self.core.runtime.now();
            if due <= now || self.core.compactions.is_waited_for() || self.presses() {
                return Ok(());
            }
            either(self.core.runtime.sleep(due - now), called).await;
        }
    }

    /// Whether somebody waits for this compaction, or should.
    pub(super) fn is_pressed(&self) -> bool {
        self.bytes_per_second.is_none() || self.core.compactions.is_waited_for() || self.presses()
    }

    fn presses(&self) -> bool {
        choice::presses(&self.database.version.load(), self.core.config.garbage_percent)
    }
}
