//! Deterministic simulation of Nephrite: the whole engine on one thread, on a simulated disk,
//! clock and scheduler, with crashes and faults, all of it by one seed.
//!
//! ```
//! use nephrite_simulation::{Options, simulate};
//!
//! let report = simulate(&Options::new(7).steps(50));
//! assert_eq!(report.failure, None);
//! assert_eq!(report.trace_hash, simulate(&Options::new(7).steps(50)).trace_hash);
//! ```
//!
//! [`SimRuntime`] and [`nephrite_io::sim::SimDisk`] run workloads of your own in the same way: give
//! both to a [`nephrite::Config`], and drive the futures of your program with [`SimRuntime::run`].
//!
//! | module | what |
//! |---|---|
//! | `runtime` | clock, tasks and randomness of the engine on one thread |
//! | `history` | what was asked for and promised; which recovered states are right |
//! | `record` | vectors that say which write they are of |
//! | `workload` | clients that write, read and check |
//! | `abandon` | writes whose futures are dropped |
//! | `inspect` | a whole store, read in every way there is |
//! | `shape` | what a seed chooses: sizes, limits, faults |
//! | `run`, `life`, `mending` | one run: lives, crashes, restarts, repairs |
//! | `boot`, `scenario` | short scripts on a machine of their own |
//! | `scripts` | what chance meets too seldom, step by step |
//! | `lending` | a store that is large enough to lend memory to its cache |
//! | `exhaustive` | every script, every crash, every image |
//! | `failing` | every call that may fail |
//! | `campaign` | many runs, and the smallest that still fails |
#![forbid(unsafe_code)]

mod abandon;
mod boot;
mod campaign;
mod exhaustive;
mod failing;
mod history;
mod inspect;
mod lending;
mod life;
mod mending;
mod options;
mod record;
mod run;
mod runtime;
mod scenario;
mod scripts;
mod shape;
mod workload;

pub use nephrite_io::sim::{Errno, Fault, Scope};

pub use campaign::{Campaign, CampaignReport, Failure, shrink};
pub use exhaustive::{Exhaustive, ExhaustiveReport};
pub use failing::{FAILURES, FailNth, FailNthReport};
pub use lending::lent_memory;
pub use options::{Operation, Options, Profile, STEPS, UnknownOperation, UnknownProfile};
pub use run::{RunReport, simulate};
pub use runtime::{Ended, SimRuntime};
pub use scenario::{Action, ActionKind, UnknownAction};
pub use scripts::{left_out_frame, left_out_frame_after_failed_sync, merged_tombstone};
