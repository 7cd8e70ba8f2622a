//! Bugs that can be planted, to show that the models find them.
//!
//! What ships has none: `planted` is a constant there, and the branches are gone. A build with
//! `--cfg planted_bug="any"` holds them all, asleep; the variable `NEPHRITE_PLANTED_BUG` names the
//! one that is awake. So one build serves for every bug of `loom.sh`, which lists them with the
//! model that must fail, and fails itself if it does not.
//!
//! `nephrite_io` has the same for its own bugs; a flag for one crate leaves the other one as it is.
//! The bug that Miri finds is none of these: it is compiled in by its name (`miri.sh`).

use crate::sync::Ordering;

/// Whether this bug is awake.
#[cfg(not(planted_bug = "any"))]
#[inline]
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

/// The order of an access to an atomic, or none while this bug is awake.
#[inline]
pub(crate) fn unless(bug: &str, order: Ordering) -> Ordering {
    if planted(bug) { Ordering::Relaxed } else { order }
}
