//! Tests of the disk through its public face, over every backend that this platform has.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, like the tests do")]

mod cancel;
mod durable;
mod files;
mod flood;
mod mapping;
mod mistakes;
mod same_results;
mod shutdown;
mod sim;
mod support;

#[cfg(target_os = "linux")]
mod caller_ring;
#[cfg(target_os = "linux")]
mod caller_rings_together;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod polling;
#[cfg(target_os = "linux")]
mod registered;
#[cfg(target_os = "linux")]
mod restricted;
