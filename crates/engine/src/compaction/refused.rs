//! Refused: compactions that failed and are not tried again at once.
//!
//! A damaged input or a full disk is met only after much was read and written, and the next choice
//! of the same inputs ends in the same way. So a failure is remembered by its inputs: a choice that
//! has all of them waits until some time has passed, longer after every further failure, or until
//! room came back when there was none. Segments never change, so a choice of others is free.
//!
//! Guarantees: at most [`FAILURES_MAX`] per database; nothing is refused for ever.
//! Lock rule: the mutex is a leaf.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nephrite_format::{DatabaseId, FileId};

use crate::error::Error;

/// Failures of one database that are remembered.
const FAILURES_MAX: usize = 8;
/// How long a choice is refused after its first failure.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// The longest it is refused.
const RETRY_LAST: Duration = Duration::from_secs(3600);

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<BTreeMap<DatabaseId, Vec<Failure>>>);

#[derive(Debug)]
struct Failure {
    inputs: Vec<FileId>,
    /// For want of room.
    full: bool,
    waits: Duration,
    until: Duration,
}

impl Failure {
    fn is_within(&self, inputs: &[FileId]) -> bool {
        self.inputs.iter().all(|input| inputs.contains(input))
    }
}

impl Refused {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DatabaseId, Vec<Failure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A compaction of these inputs failed.
    pub(super) fn add(
        &self,
        database: DatabaseId,
        inputs: Vec<FileId>,
        error: &Error,
        now: Duration,
    ) {
        if matches!(error, Error::Closed | Error::DatabaseNotFound { .. }) {
            return;
        }
        let mut all = self.lock();
        let failures = all.entry(database).or_default();
        // The new failure says the same as those of more inputs, and less than none.
        let known = failures.iter().filter(|failure| failure.is_within(&inputs));
        let waits = known.map(|failure| failure.waits).max();
        let waits = waits.map_or(RETRY_FIRST, |waits| (waits * 2).min(RETRY_LAST));
        let failure = Failure { inputs, full: error.is_disk_full(), waits, until: now + waits };
        failures.retain(|known| !failure.is_within(&known.inputs));
        if FAILURES_MAX <= failures.len() {
            failures.remove(0);
        }
        failures.push(failure);
    }

    /// Whether a compaction of these inputs may be tried.
    pub(super) fn allows(&self, database: DatabaseId, inputs: &[FileId], now: Duration) -> bool {
        let all = self.lock();
        let failures = all.get(&database).map_or(&[][..], Vec::as_slice);
        !failures.iter().any(|failure| now < failure.until && failure.is_within(inputs))
    }

    /// Whether some compaction of the database waits to be tried again.
    pub(super) fn concerns(&self, database: DatabaseId, now: Duration) -> bool {
        let all = self.lock();
        all.get(&database).is_some_and(|failures| failures.iter().any(|it| now < it.until))
    }

    /// Files went: what failed for want of room may be tried again.
    pub(super) fn room_came_back(&self) {
        let mut all = self.lock();
        all.retain(|_, failures| {
            failures.retain(|failure| !failure.full);
            !failures.is_empty()
        });
    }

    /// The database was compacted as a whole, or dropped.
    pub(crate) fn forget(&self, database: DatabaseId) {
        self.lock().remove(&database);
    }

    /// When the next refusal ends.
    pub(super) fn next_end(&self, now: Duration) -> Option<Duration> {
        let all = self.lock();
        let ends = all.values().flatten().map(|failure| failure.until);
        ends.filter(|until| now < *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseId = DatabaseId::new(7);

    fn files(ids: impl IntoIterator<Item = u64>) -> Vec<FileId> {
        ids.into_iter().map(FileId::new).collect()
    }

    fn damage() -> Error {
        Error::corrupt("a", 0, "b")
    }

    #[test]
    fn a_choice_with_all_inputs_of_a_failure_waits_longer_after_each() {
        let refused = Refused::default();
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..9 {
            refused.add(DATABASE, files([1, 2]), &damage(), now);
            assert!(!refused.allows(DATABASE, &files([0, 1, 2]), now));
            assert!(refused.allows(DATABASE, &files([0, 1]), now));
            assert!(refused.allows(DatabaseId::new(8), &files([1, 2]), now));
            let end = refused.next_end(now).unwrap();
            waits.push(end - now);
            now = end;
            assert!(refused.allows(DATABASE, &files([1, 2]), now));
            assert!(!refused.concerns(DATABASE, now));
        }
        assert_eq!(waits[0], RETRY_FIRST);
        assert!(waits.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(RETRY_LAST)), "{waits:?}");
        assert_eq!(waits[8], RETRY_LAST);
    }

    #[test]
    fn fewer_inputs_that_fail_stand_for_more_and_the_number_is_limited() {
        let refused = Refused::default();
        refused.add(DATABASE, files([1, 2, 3]), &damage(), Duration::ZERO);
        refused.add(DATABASE, files([2]), &damage(), Duration::ZERO);
        assert_eq!(refused.lock()[&DATABASE].len(), 1);
        (10..30).for_each(|id| refused.add(DATABASE, files([id]), &damage(), Duration::ZERO));
        assert_eq!(refused.lock()[&DATABASE].len(), FAILURES_MAX);
        refused.forget(DATABASE);
        assert!(refused.allows(DATABASE, &files([2]), Duration::ZERO));
    }

    #[test]
    fn room_frees_what_a_full_disk_refused_and_no_damage() {
        let refused = Refused::default();
        let full = nephrite_io::IoError::new(
            nephrite_io::IoOperation::Write,
            std::path::Path::new("a"),
            std::io::Error::from(std::io::ErrorKind::StorageFull),
        );
        refused.add(DATABASE, files([1]), &full.into(), Duration::ZERO);
        refused.add(DATABASE, files([2]), &damage(), Duration::ZERO);
        refused.room_came_back();
        assert!(refused.allows(DATABASE, &files([1]), Duration::ZERO));
        assert!(!refused.allows(DATABASE, &files([2]), Duration::ZERO));
        refused.add(DATABASE, files([3]), &Error::Closed, Duration::ZERO);
        assert!(refused.allows(DATABASE, &files([3]), Duration::ZERO));
    }
}
