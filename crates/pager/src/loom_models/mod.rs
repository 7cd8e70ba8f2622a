//! Models: the concurrency of this crate under every interleaving that loom finds.
//!
//! They run the shipped code with the types of the model checker (`sync.rs`):
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test --release -p nephrite-pager --lib loom_models
//! ```
//!
//! A model that passes shows little unless it can fail. So there are bugs that can be planted in
//! the code (`planted.rs`), and `crates/pager/loom.sh`, which runs the models as they are and once
//! for each bug, demands that the model fails with the right complaint.
//!
//! | model | planted bugs it must catch |
//! |---|---|
//! | `frame_state` | `pin_relaxed` `unpin_relaxed` `claim_relaxed` `publish_relaxed` |
//! | `frame_state` | `claim_ignores_pins` |
//! | `free_list` | `free_list_keeps` |
//! | `pin_budget` | `budget_store` |
//! | `frame_wait` | `wait_unmarked` |
//! | `bypass` | `bypass_unannounced` |
//! | `look` | `look_unchecked` |
//! | `single_flight` | `flight_unchecked` |
//! | `whole_path` | `hit_unchecked` |
//! | `orphan` | `orphan_leaks` |
//! | `snapshot_cell` | `snapshot_early` |
//! | `trace` | `trace_uncounted` |
//! | `slots` | `slot_unchecked` |
//! | `row_table` | `row_unlooked` `row_look_relaxed` `row_publish_relaxed` `row_two_writers` |
//!
//! One more, `orphan_uncounted`, is a use after free: Miri catches it (`crates/pager/miri.sh`).
//!
//! loom knows nothing of the bytes in the arena. Each frame therefore has a witness cell that a
//! loader writes and a guard reads (`frame_memory.rs`).

mod frame_state;
mod free_list;
mod pager;
mod pin_budget;
mod row_table;
mod slots;
mod snapshot_cell;
mod trace;

/// Runs a model with room for the longest paths. `LOOM_MAX_PREEMPTIONS` bounds it.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(model);
}
