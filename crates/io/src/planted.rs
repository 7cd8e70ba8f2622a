//! Bugs that can be planted, to show that the tests find them.
//!
//! What ships has none: `planted` is a constant there, and the branches are gone. A build with
//! `--cfg planted_bug="any"` holds them all, asleep; the variable `NEPHRITE_PLANTED_BUG` names the
//! one that is awake. So one build serves for every bug of `loom.sh` and `planted.sh`, which list
//! them with the test that must fail, and fail themselves if it does not.
//!
//! Public, but hidden, for the engine, whose bugs the simulation finds.

/// Whether this bug is awake.
#[must_use]
#[cfg(not(planted_bug = "any"))]
#[inline]
pub const fn planted(_bug: &str) -> bool {
    false
}

/// Whether this bug is awake.
#[must_use]
#[cfg(planted_bug = "any")]
pub fn planted(bug: &str) -> bool {
    use std::sync::LazyLock;

    static AWAKE: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("NEPHRITE_PLANTED_BUG").ok());
    AWAKE.as_deref() == Some(bug)
}
