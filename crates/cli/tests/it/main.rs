//! Runs the `nephrite` binary as a user does: every command, its exit codes, its JSON, bad input.

#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test that called")]
mod bench;
mod cache_replay;
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test that called")]
mod configuration;
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test that called")]
mod damage;
mod databases;
mod demo;
mod files;
#[cfg(unix)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test that called")]
mod interrupted;
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test that called")]
mod run;
mod simulate;
mod usage;
mod vectors;
