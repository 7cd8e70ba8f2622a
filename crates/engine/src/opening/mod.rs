//! Opening a store: lock, manifest, log, tasks, recovery, orphans.
//!
//! | file | concept |
//! |---|---|
//! | `bring_up` | from a directory to an open store |
//! | `settle` | applying the log, tidying the directory, ending a store that could not be opened |
//! | `outcome` | handing the store to the caller, or closing it behind one that has gone |

mod bring_up;
mod outcome;
mod settle;

pub(crate) use self::bring_up::{Mode, Opening, next_database};
