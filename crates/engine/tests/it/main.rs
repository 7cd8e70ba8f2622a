//! Integration tests of the engine through its public API; one binary, a module per subject.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod basics;
mod compaction;
mod compaction_memory;
mod fault_disk;
mod faults;
mod full_disk;
mod kept;
mod known_rows;
mod leading;
mod lifecycle;
#[cfg(target_os = "linux")] // elsewhere nothing is lent
mod loan;
mod pins;
mod recovery;
mod refusals;
mod repair;
mod reserve;
mod scans;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod support;
mod trace;
mod upkeep;
