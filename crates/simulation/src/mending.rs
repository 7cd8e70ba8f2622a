//! Repairs: of a store that is whole, which must stay as it was, and of one that is damaged, which
//! must open and verify clean afterwards without a vector that nobody wrote.
//!
//! A crash may strike in a repair as anywhere else: the next life begins from what it leaves.

use nephrite::{
    Error,
    repair::{RepairMode, repair},
};

use crate::{
    inspect::{Trouble, read_store},
    life::{Fork, Life},
    options::Profile,
    run::{Run, open},
    runtime::Ended,
};

/// One in this many lives after a crash begins with a repair that nothing calls for.
const ONE_LIFE_IN: u64 = 10;

impl Run {
    /// At times repairs a store that nothing has damaged, before it is opened.
    pub(crate) fn repair_whole(&mut self, life: &Life) -> Result<Option<Fork>, String> {
        let wanted = life.cold && self.shape.profile == Profile::Crashes;
        if !wanted || !self.random.chance(1, ONE_LIFE_IN) {
            return Ok(None);
        }
        let repaired = repair(self.shape.place, self.config(life), RepairMode::Repair);
        match life.runtime.run(repaired) {
            Ended::Crashed => Ok(Some(Fork::Crashed)),
            Ended::Stuck => Err("a repair never ends".to_owned()),
            // The crash came before there was one.
            Ended::Done(Err(Error::NotAStore { .. })) => Ok(None),
            Ended::Done(Err(error)) if is_missing(&error) => Ok(None),
            Ended::Done(Err(error)) => Err(format!("a repair after a crash failed: {error}")),
            Ended::Done(Ok(report)) if report.is_lossless() => Ok(None),
            Ended::Done(Ok(report)) => {
                Err(format!("a repair after a crash says that something is lost: {report}"))
            }
        }
    }

    /// At times repairs a store that does not open, since it was damaged.
    pub(crate) fn repair_damaged(&mut self, life: &Life) -> Result<Fork, String> {
        if !self.random.chance(1, 2) {
            return Ok(Fork::Over);
        }
        let repaired = repair(self.shape.place, self.config(life), RepairMode::Repair);
        match life.runtime.run(repaired) {
            // Sectors that cannot be read may stop it; a crash ends the run as well.
            Ended::Crashed | Ended::Done(Err(_)) => return Ok(Fork::Over),
            Ended::Stuck => return Err("a repair never ends".to_owned()),
            Ended::Done(Ok(_)) => {}
        }
        let store = match life.runtime.run(open(self.shape.place, self.config(life))) {
            Ended::Crashed | Ended::Done(Err(Error::Io(_))) => return Ok(Fork::Over),
            Ended::Stuck => return Err("opening a repaired store never ends".to_owned()),
            Ended::Done(Err(error)) => return Err(format!("a repaired store refuses: {error}")),
            Ended::Done(Ok(store)) => store,
        };
        match life.runtime.run(read_store(&store)) {
            Ended::Crashed | Ended::Done(Ok(_) | Err(Trouble::Error(_))) => Ok(Fork::Over),
            Ended::Stuck => Err("reading a repaired store never ends".to_owned()),
            Ended::Done(Err(Trouble::Violation(text) | Trouble::Mismatch(text))) => {
                Err(format!("after a repair: {text}"))
            }
        }
    }
}

/// Whether not even the directory is there.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io(io) if io.kind() == nephrite::IoErrorKind::NotFound)
}
