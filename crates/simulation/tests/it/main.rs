//! Tests of the harness, and bugs of the engine that it found.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, like the tests do")]

mod checklist;
mod exhaustive;
mod regressions;
mod runs;
