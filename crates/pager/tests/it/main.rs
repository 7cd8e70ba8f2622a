//! Integration tests of the page cache: what its users may rely on and timing cannot prove.

#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod hit_path;
#[cfg(target_os = "linux")]
mod open;
