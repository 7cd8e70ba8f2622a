//! The integration, crash and scale tests; see the crate documentation for the map.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, like the tests do")]

mod concurrency;
mod damage;
mod fuzzing;
mod inspect;
mod kill_focus;
mod kill_loop;
mod many_databases;
mod memory_limit;
mod model;
#[cfg(all(target_os = "linux", feature = "power-cut"))]
mod power_cut;
mod recovery;
mod refused;
mod repair;
mod seed_crashes;
mod seed_lists;
mod seed_scale;
mod surroundings;
