//! What the main database must hold, as a rule instead of a copy.
//!
//! Updated are the first so many ids that end in 3, deleted the first so many that leave 7 when
//! divided by 20; no id is both. The value of an id is a row of the generator.

/// Rows of the generator from here on are the updated values.
const UPDATED_ROWS: u64 = 1 << 40;
/// Updates and deletes at most.
const UPDATES_MAX: u64 = 10_000;
const DELETES_MAX: u64 = 5_000;

/// The contents of the main database at one point of the tour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) rows: u64,
    updates: u64,
    deletes: u64,
}

impl Expected {
    /// After the load: ids 0 to `rows`.
    pub(super) fn loaded(rows: u64) -> Self {
        Self { rows, updates: 0, deletes: 0 }
    }

    /// After updates and deletes as well.
    pub(super) fn changed(rows: u64) -> Self {
        let updates = UPDATES_MAX.min((rows + 6) / 10);
        let deletes = DELETES_MAX.min((rows + 12) / 20);
        Self { rows, updates, deletes }
    }

    pub(super) fn updated_ids(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.updates).map(|index| index * 10 + 3)
    }

    pub(super) fn deleted_ids(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.deletes).map(|index| index * 20 + 7)
    }

    /// How many vectors there are.
    pub(super) fn count(&self) -> u64 {
        self.rows - self.deletes
    }

    /// The row of the generator that an id holds; none for an id that is not there.
    pub(super) fn row_of(&self, id: u64) -> Option<u64> {
        let deleted = id % 20 == 7 && id / 20 < self.deletes;
        let updated = id % 10 == 3 && id / 10 < self.updates;
        match (id < self.rows, deleted, updated) {
            (false, _, _) | (_, true, _) => None,
            (_, _, true) => Some(UPDATED_ROWS + id),
            _ => Some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_and_the_lists_agree_at_every_size() {
        for rows in 1..300 {
            let expected = Expected::changed(rows);
            let there = (0..rows + 50).filter(|id| expected.row_of(*id).is_some()).count() as u64;
            assert_eq!(there, expected.count(), "{rows} rows");
            let updated = |id: &u64| expected.row_of(*id) == Some(UPDATED_ROWS + id);
            assert_eq!(
                (0..rows).filter(updated).collect::<Vec<_>>(),
                expected.updated_ids().collect::<Vec<_>>()
            );
            assert!(expected.deleted_ids().all(|id| id < rows && expected.row_of(id).is_none()));
        }
    }

    #[test]
    fn nothing_is_changed_after_the_load() {
        let expected = Expected::loaded(40);
        assert_eq!(expected.count(), 40);
        assert!((0..40).all(|id| expected.row_of(id) == Some(id)));
        assert_eq!(expected.row_of(40), None);
    }
}
