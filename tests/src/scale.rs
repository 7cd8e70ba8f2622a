//! How much the tests do, and from which seed.

use std::env;

/// Counts of tests that have a large leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two ways to run the tests")]
pub enum Scale {
    /// Minutes in all without optimisation.
    Small,
    /// Everything that is promised, meant for optimised builds.
    Full,
}

impl Scale {
    /// From the environment variable `NEPHRITE_TEST_SCALE`: `full`, or `small`, the default.
    ///
    /// # Panics
    /// On any other value, so that a typing error does not pass for a full run.
    #[must_use]
    pub fn from_environment() -> Self {
        match env::var("NEPHRITE_TEST_SCALE").as_deref() {
            Err(_) | Ok("" | "small") => Self::Small,
            Ok("full") => Self::Full,
            Ok(other) => panic!("NEPHRITE_TEST_SCALE is {other:?}, not `small` or `full`"),
        }
    }

    /// One of two counts.
    #[must_use]
    pub fn pick<T>(self, small: T, full: T) -> T {
        match self {
            Self::Small => small,
            Self::Full => full,
        }
    }
}

/// Rounds of a test that can be left running: `NEPHRITE_TEST_ROUNDS`, or what its scale says.
///
/// # Panics
/// When the variable is no number.
#[must_use]
pub fn rounds(small: u64, full: u64) -> u64 {
    match env::var("NEPHRITE_TEST_ROUNDS") {
        Ok(text) => text.parse().expect("NEPHRITE_TEST_ROUNDS is a number"),
        Err(_) => Scale::from_environment().pick(small, full),
    }
}

/// The seed of a random test: `NEPHRITE_TEST_SEED` or the test's own. It is printed, and cargo
/// shows what a test printed when the test fails.
///
/// # Panics
/// When the variable is no number.
#[must_use]
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = match env::var("NEPHRITE_TEST_SEED") {
        Ok(text) => text.parse().expect("NEPHRITE_TEST_SEED is a number"),
        Err(_) => default,
    };
    println!("{test}: NEPHRITE_TEST_SEED={seed} replays this run");
    seed
}
