//! Repair: makes a damaged store whole again, as far as intact pages and log frames allow.
//!
//! | file | concept |
//! |---|---|
//! | `report` | what was found, rebuilt, set aside and lost |
//! | `raw` | reading files that may be cut, foreign or unreadable in places |
//! | `listing` | which files there are; files that an interrupted repair moved |
//! | `state` | the manifest, or what its readable frames and the segments say |
//! | `log` | every readable frame of the log, and what is missing between them |
//! | `survey` | one segment: which pages hold, which ids they give |
//! | `salvage` | what the log still says of ids that a segment has lost |
//! | `part` | what becomes of a segment |
//! | `plan` | what becomes of each database |
//! | `notes` | what the report says of the plan and of lost records |
//! | `output` | writing segments |
//! | `carry_out` | writing and moving files, in an order that a crash forgives |
//! | `work` | the order of the steps |
//!
//! Guarantees: nothing is believed without its checksum; nothing damaged is deleted, it is moved to
//! `STORE/damaged-<n>/`; a store that was repaired opens and verifies clean. An id whose newest
//! vector is lost is absent afterwards and named; where it is not known which ids were lost, the
//! range is named, and so is every older vector that is served instead (*doubtful*).
//!
//! Steps, so that a crash anywhere leaves a store that can be repaired: the new directory gets a
//! file that says which segments are this repair's; new segments are written and synced, then the
//! new manifest under a temporary name; damaged files are moved; the new manifest gets its name,
//! which makes all of it count; older manifests go (copies are in `damaged-<n>`); last comes
//! `damaged-<n>/report.txt`. Without that report the next repair moves back what the manifest in
//! force still needs.
//!
//! Not here: restoring from a backup; repairing a store that is open. Memory: about 64 bytes per id
//! of a damaged database, and one log segment.
//! Tested in `tests/it/repair*`, over every kind of damage of `tests/it/damage*`.

mod carry_out;
mod listing;
mod log;
mod notes;
mod output;
mod part;
mod plan;
mod raw;
mod report;
mod salvage;
mod state;
mod survey;
mod work;

pub use self::{
    report::{Loss, LossKind, Rebuilt, RepairReport, SetAside},
    work::repair,
};

/// What a repair may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a repair writes or it does not")]
pub enum RepairMode {
    /// Only say what would be done; nothing is written.
    #[default]
    DryRun,
    /// Do it.
    Repair,
}
