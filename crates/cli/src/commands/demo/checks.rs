//! What the demo checked, and what did not hold.

use crate::figures::count;

/// Failures that are kept with their text; more are only counted.
const FAILURES_KEPT: usize = 20;

/// A tally of checks. A failed check does not stop the tour; it decides the exit code.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) made: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
}

impl Checks {
    /// Counts one check; `what` says what did not hold.
    pub(super) fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.made += 1;
        if holds {
            return;
        }
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            let failure = what();
            if !self.failures.contains(&failure) {
                self.failures.push(failure);
            }
        }
    }

    /// How many checks were made if all held, or a sentence that names what did not.
    pub(super) fn verdict(&self) -> Result<u64, String> {
        let Some(first) = self.failures.first() else {
            return Ok(self.made);
        };
        Err(format!(
            "{} of {} checks failed, the first: {first}; please report this with the output of \
             `nephrite io-info`",
            count(self.failed),
            count(self.made),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_among_many_decides_the_verdict() {
        let mut checks = Checks::default();
        checks.require(true, || unreachable!("it held"));
        assert_eq!(checks.verdict(), Ok(1));
        for index in 0..100 {
            checks.require(false, || format!("row {index}"));
        }
        assert_eq!(checks.failures.len(), FAILURES_KEPT);
        let sentence = checks.verdict().unwrap_err();
        assert!(sentence.contains("100 of 101") && sentence.contains("row 0"), "{sentence}");
        checks.require(false, || "row 0".into());
        assert_eq!((checks.failed, checks.failures.len()), (101, FAILURES_KEPT));
    }
}
