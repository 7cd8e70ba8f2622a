//! A model of a database under updates: what the choices copy, and what space is taken meanwhile.

use std::collections::BTreeSet;

use super::*;

/// Ids, and rows of a flush: a data set of 25 times the memtable.
const IDS: u64 = 20_000;
const FLUSH: u64 = 800;
/// Bytes of a row: enough that the database is not small.
const ROW_BYTES: u64 = 32 << 10;
const PERCENT: u64 = crate::config::GARBAGE_PERCENT as u64;

/// A segment of the model.
#[derive(Debug)]
struct Part {
    rows: u64,
    live: BTreeSet<u64>,
    min: u64,
    max: u64,
}

impl Part {
    fn of(live: BTreeSet<u64>) -> Self {
        let (min, max) = (*live.first().unwrap(), *live.last().unwrap());
        Self { rows: live.len() as u64, live, min, max }
    }

    fn run(&self) -> Run<'static> {
        Run {
            bytes: self.rows * ROW_BYTES,
            dead: (self.rows - self.live.len() as u64) * ROW_BYTES,
            tombstones: 0,
            rows: self.rows,
            range: (IdRef::U64(self.min), IdRef::U64(self.max)),
        }
    }
}

/// Newest first.
#[derive(Debug, Default)]
struct Model {
    parts: Vec<Part>,
    flushed: u64,
    copied: u64,
    random: u64,
}

impl Model {
    fn loaded() -> Self {
        let mut model = Self::default();
        for first in (0..IDS).step_by(usize::try_from(FLUSH).unwrap()) {
            model.flush((first..first + FLUSH).collect());
        }
        model.flushed = 0;
        model
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % limit
    }

    /// A memtable becomes a segment, and everything due is done.
    fn flush(&mut self, ids: BTreeSet<u64>) {
        for part in &mut self.parts {
            part.live.retain(|id| !ids.contains(id));
        }
        self.flushed += ids.len() as u64;
        self.parts.insert(0, Part::of(ids));
        let runs = |parts: &[Part]| parts.iter().map(Part::run).collect::<Vec<_>>();
        while let Some((which, _)) = choose_runs(&runs(&self.parts), PERCENT) {
            assert!(!which.is_empty());
            let inputs = self.parts.drain(which.clone());
            let live: BTreeSet<u64> = inputs.flat_map(|part| part.live).collect();
            self.copied += live.len() as u64;
            self.parts.insert(which.start, Part::of(live));
        }
    }

    fn update(&mut self, count: u64) {
        for _ in 0..count / FLUSH {
            let ids = (0..FLUSH).map(|_| self.below(IDS)).collect();
            self.flush(ids);
            assert!(
                most_meeting(&self.parts.iter().map(Part::run).collect::<Vec<_>>()) <= RUNS_MAX
            );
            let rows: u64 = self.parts.iter().map(|part| part.rows).sum();
            assert!(rows * 2 < IDS * 3, "{rows} rows for {IDS} ids");
        }
    }
}

#[test]
fn updates_that_fall_anywhere_are_copied_less_than_three_and_a_half_times() {
    let mut model = Model::loaded();
    assert_eq!(model.copied, 0, "a load of ascending ids is left as it is");
    model.update(2 * IDS);
    (model.flushed, model.copied) = (0, 0);
    model.update(4 * IDS);
    let copied = model.copied as f64 / model.flushed as f64;
    assert!(copied < 3.5, "{copied} rows copied for each that was updated");
}

#[test]
fn of_two_segments_the_one_with_the_larger_share_of_garbage_goes_first() {
    let range = (IdRef::U64(0), IdRef::U64(9));
    let run = |bytes: u64, dead: u64| Run { bytes, dead, tombstones: 0, rows: 1, range };
    let runs = [run(100 << 20, 10 << 20), run(10 << 20, 9 << 20), run(90 << 20, 60 << 20)];
    let (which, _) = choose_runs(&runs, PERCENT).unwrap();
    assert_eq!(which, 1..2);
}

#[test]
fn neighbours_with_as_much_garbage_go_together() {
    let range = (IdRef::U64(0), IdRef::U64(9));
    let run = |dead: u64| Run { bytes: 10 << 20, dead: dead << 20, tombstones: 0, rows: 1, range };
    let runs: Vec<_> = [0, 0, 0, 9, 8, 7, 1, 9, 0].map(run).into_iter().collect();
    let (which, _) = choose_runs(&runs, PERCENT).unwrap();
    assert_eq!(which, 3..6);
}
