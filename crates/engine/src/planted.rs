//! Bugs that can be planted, to show that the simulation finds them.
//!
//! What ships has none: `planted` is a constant there, and the branches are gone. A build with
//! `--cfg planted_bug="any"` holds them all, asleep; the variable `NEPHRITE_PLANTED_BUG` names the
//! one that is awake. `crates/simulation/planted.sh` lists them and fails if one is not caught.

/// Whether this bug is awake.
#[cfg(not(planted_bug = "any"))]
pub(crate) const fn planted(_bug: &str) -> bool {
    false
}

/// Whether this bug is awake.
#[cfg(planted_bug = "any")]
pub(crate) fn planted(bug: &str) -> bool {
    use std::sync::LazyLock;

    static AWAKE: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("NEPHRITE_PLANTED_BUG").ok());
    AWAKE.as_deref() == Some(bug)
}
