//! What Nephrite is meant to reach, as ratios within the rounds of one run.
//!
//! Against the device where that took part, against one rival, or against the best of all that
//! keep their data: the one with the best median of the workload. A goal whose sides were not
//! measured is left out. Whether a goal is reached fails nothing: machines and loads differ.

use super::{
    cycle::{
        COLD, COLD_CPU, COLD_P99, HOT, HOT_MANY, LOAD, LOAD_SYNCED, MANY, OPEN, SCAN, SHUFFLED,
        SPACE, UPDATES, WORKLOADS, ZIPF,
    },
    flat, nephrite, raw,
    rival::{Kind, Shape},
};
use crate::{report::Figure, table::Table};

type Rivals<'a> = &'a [(Kind, Vec<Figure>)];

/// What our figure is divided by.
#[derive(Clone, Copy, Debug)]
enum Yardstick {
    /// Its figure of this workload.
    Device(usize),
    /// Its figure of the same workload.
    Rival(&'static str),
    /// The best one's of the same workload.
    Best,
    /// The figure is a ratio already.
    One,
}

/// The bound of a ratio.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Goal {
    workload: usize,
    yardstick: Yardstick,
    bound: Bound,
}

fn goal(workload: usize, yardstick: Yardstick, bound: Bound) -> Goal {
    Goal { workload, yardstick, bound }
}

/// From this many values a vector fills most of what a load writes.
const WIDE: usize = 768;

fn goals(shape: &Shape) -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    use Yardstick::{Best, Device, One, Rival};
    let wide = WIDE <= shape.dimension;
    let [one, sixteen, many] = UPDATES.map(|(workload, _)| workload);
    let mut goals = vec![
        goal(LOAD, Device(LOAD), AtLeast(if wide { 0.85 } else { 0.7 })),
        goal(LOAD_SYNCED, Device(LOAD), AtLeast(if wide { 0.6 } else { 0.45 })),
        goal(SHUFFLED, Device(LOAD), AtLeast(0.6)),
        goal(SPACE, One, AtMost(1.4)),
        goal(SCAN, Device(SCAN), AtLeast(0.9)),
        goal(COLD, Device(COLD), AtLeast(0.95)),
        goal(COLD_CPU, Device(COLD_CPU), AtMost(1.5)),
        goal(COLD_CPU, Rival(flat::READ.name), AtMost(0.5)),
        goal(COLD_P99, Device(COLD_P99), AtMost(1.5)),
        goal(ZIPF, Best, AtLeast(1.4)),
        goal(MANY, Device(MANY), AtLeast(0.95)),
        goal(MANY, Rival(flat::MAPPED.name), AtLeast(4.0)),
        goal(MANY, Rival(flat::READ.name), AtLeast(4.0)),
        goal(one, Device(one), AtLeast(1.5)),
        goal(sixteen, Device(one), AtLeast(8.0)),
        goal(many, Device(one), AtLeast(30.0)),
        goal(OPEN, Best, AtMost(1.0)),
    ];
    let first = [LOAD, SHUFFLED, LOAD_SYNCED, HOT, HOT_MANY, COLD, MANY, SCAN, one, sixteen, many];
    goals.extend(first.map(|workload| goal(workload, Best, AtLeast(1.0))));
    goals
}

/// All goals whose sides were measured; none if Nephrite took no part.
pub(super) fn table(shape: &Shape, rivals: Rivals<'_>) -> Option<Table> {
    let (_, ours) = rivals.iter().find(|(kind, _)| kind.name == nephrite::KIND.name)?;
    let mut table =
        Table::new("ratios of nephrite", &["workload", "divided by", "ratio", "goal", "reached"]);
    for goal in goals(shape) {
        let mine = &ours[goal.workload];
        let Some((by, ratio)) = ratio(&goal, mine, rivals) else { continue };
        let (bound, reached) = match goal.bound {
            Bound::AtLeast(bound) => (format!("{bound} or more"), bound <= ratio.median()),
            Bound::AtMost(bound) => (format!("{bound} or less"), ratio.median() <= bound),
        };
        let reached = if reached { "yes" } else { "no" };
        let name = WORKLOADS[goal.workload].0;
        table.push(vec![name.to_owned(), by, ratio.cell(), bound, reached.to_owned()]);
    }
    Some(table)
}

/// What the figure is divided by, and the ratio.
fn ratio(goal: &Goal, mine: &Figure, rivals: Rivals<'_>) -> Option<(String, Figure)> {
    let of = |name: &str, workload: usize| {
        let (kind, figures) = rivals.iter().find(|(kind, _)| kind.name == name)?;
        Some((kind.name, &figures[workload]))
    };
    let (by, theirs) = match goal.yardstick {
        Yardstick::One => return (!mine.is_empty()).then(|| ("-".to_owned(), mine.clone())),
        Yardstick::Device(workload) => of(raw::KIND.name, workload)?,
        Yardstick::Rival(name) => of(name, goal.workload)?,
        Yardstick::Best => best(goal, rivals)?,
    };
    let ratio = mine.ratio_to(theirs, "ratio");
    (!ratio.is_empty()).then(|| (by.to_owned(), ratio))
}

/// The best of the rivals that keep their data, by their medians.
fn best<'a>(goal: &Goal, rivals: Rivals<'a>) -> Option<(&'a str, &'a Figure)> {
    let others = rivals.iter().filter(|(kind, _)| {
        kind.persists && ![nephrite::KIND.name, raw::KIND.name].contains(&kind.name)
    });
    let figures = others.map(|(kind, figures)| (kind.name, &figures[goal.workload]));
    let measured = figures.filter(|(_, figure)| !figure.is_empty());
    let larger = |a: &(&str, &Figure), b: &(&str, &Figure)| a.1.median().total_cmp(&b.1.median());
    match goal.bound {
        Bound::AtLeast(_) => measured.max_by(larger),
        Bound::AtMost(_) => measured.min_by(larger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rival with this figure of cold reads and of the time to open.
    fn rival(kind: Kind, cold: f64, open: f64) -> (Kind, Vec<Figure>) {
        let mut figures: Vec<Figure> =
            WORKLOADS.iter().map(|(name, unit)| Figure::new(*name, unit)).collect();
        figures[COLD].push(cold);
        figures[OPEN].push(open);
        (kind, figures)
    }

    const SHAPE: Shape = Shape { vectors: 1, dimension: 128, page_bytes: None, memory_bytes: 1 };

    #[test]
    fn a_goal_is_judged_against_the_device_and_the_best_rival() {
        let rivals = [
            rival(raw::KIND, 100.0, 1.0),
            rival(nephrite::KIND, 96.0, 4.0),
            rival(flat::READ, 90.0, 5.0),
            rival(flat::MAPPED, 20.0, 8.0),
        ];
        let table = table(&SHAPE, &rivals).expect("nephrite took part").to_string();
        let line = |start: &str, by: &str| {
            let mut lines = table.lines().filter(|line| line.starts_with(&format!("| {start} ")));
            lines
                .find(|line| line.contains(by))
                .unwrap_or_else(|| panic!("{start}, {by}:\n{table}"))
        };
        assert!(line("cold get, uniform", "the device").ends_with("| yes     |"), "{table}");
        assert!(line("cold get, uniform", "pread + index").contains("1.067"), "{table}");
        assert!(line("open to first get", "pread + index").contains("0.800"), "{table}");
        assert!(!table.contains("scan"), "what was not measured is left out:\n{table}");
    }

    #[test]
    fn what_misses_its_goal_says_no() {
        let rivals = [rival(raw::KIND, 100.0, 1.0), rival(nephrite::KIND, 94.0, 1.0)];
        let table = table(&SHAPE, &rivals).expect("nephrite took part").to_string();
        assert!(table.contains("| no "), "{table}");
    }
}
