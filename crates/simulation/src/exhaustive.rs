//! Small scopes, exhaustively: every script up to a length, a crash before every change of the
//! disk, every image that it may leave (within bounds), and a crash in every recovery.
//!
//! Most bugs of crash recovery show in three operations or fewer; what is tried here is tried
//! without gaps. The bounds are those of [`nephrite_io::sim::Scope`].

use std::{
    collections::BTreeSet,
    fmt,
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nephrite_io::sim::{CrashState, Image, Scope, SimOptions, SimRandom};

use crate::{
    boot::{Boot, blank},
    scenario::{Action, Script, Went},
};

/// What an exhaustive check goes over.
#[derive(Debug, Clone)]
pub struct Exhaustive {
    /// Operations of a script at the most.
    length: usize,
    scope: Scope,
    actions: Vec<Action>,
    /// Only this script.
    only: Option<Vec<Action>>,
    /// In how many recoveries of each crash a second crash is tried, at each of their changes.
    crashes_in_recovery: u64,
    /// How many crashes may follow the first, each in the recovery from the one before.
    depth: u32,
    part: (u64, u64),
    stride: usize,
    jobs: usize,
}

/// What an exhaustive check has found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ExhaustiveReport {
    /// Scripts.
    pub scripts: u64,
    /// Crashes, each before another change of the disk.
    pub crashes: u64,
    /// Images that were recovered and read.
    pub images: u64,
    /// Those of them that were left by a crash in recovery.
    pub images_of_recovery: u64,
    /// Images that were not checked, since one with the same bytes was at this crash.
    pub duplicates: u64,
    /// What failed: script, crash, image.
    pub failures: Vec<String>,
}

impl fmt::Display for ExhaustiveReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} scripts, {} crashes, {} images ({} of them after a crash in recovery), {} wrong",
            self.scripts,
            self.crashes,
            self.images,
            self.images_of_recovery,
            self.failures.len()
        )
    }
}

impl ExhaustiveReport {
    fn add(&mut self, other: Self) {
        self.scripts += other.scripts;
        self.crashes += other.crashes;
        self.images += other.images;
        self.images_of_recovery += other.images_of_recovery;
        self.duplicates += other.duplicates;
        self.failures.extend(other.failures);
    }
}

impl Exhaustive {
    /// All scripts of up to this many operations.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let scope = Scope::default().subsets_max(6).random(16).torn_writes(1).cuts_max(16);
        Self {
            length,
            scope,
            actions: Action::all(),
            only: None,
            crashes_in_recovery: 1,
            depth: 1,
            part: (0, 1),
            stride: 1,
            jobs: 1,
        }
    }

    /// One script.
    #[must_use]
    pub fn of(script: &[Action]) -> Self {
        Self { only: Some(script.to_vec()), ..Self::new(script.len()) }
    }

    /// Which operations scripts are made of. Default: [`Action::all`].
    #[must_use]
    pub fn actions(mut self, actions: Vec<Action>) -> Self {
        self.actions = actions;
        self
    }

    /// How many crashes may follow the first, each in the recovery from the one before. Default:
    /// one; none is tried with zero.
    #[must_use]
    pub fn depth(mut self, crashes: u32) -> Self {
        self.depth = crashes;
        self
    }

    /// On how many threads; the report does not depend on it. Default: one.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.max(1);
        self
    }

    /// How many scripts there are.
    #[must_use]
    pub fn scripts(&self) -> u64 {
        if self.only.is_some() {
            return 1;
        }
        let count = self.actions.len() as u64;
        let lengths = 1..=u32::try_from(self.length).unwrap_or(u32::MAX);
        lengths.fold(0, |sum: u64, length| sum.saturating_add(count.saturating_pow(length)))
    }

    /// The bounds on the images of each crash. Default: all subsets of up to six changes, else 16
    /// random ones; the last write cut into up to 16 parts.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// For how many images of each crash recovery crashes again, at each of its changes. Default:
    /// one.
    #[must_use]
    pub fn crashes_in_recovery(mut self, images: u64) -> Self {
        self.crashes_in_recovery = images;
        self
    }

    /// Only every `of`-th script, from `part` on.
    #[must_use]
    pub fn part(mut self, part: u64, of: u64) -> Self {
        self.part = (part, of.max(1));
        self
    }

    /// A crash, and one in recovery, only before every n-th change. Default: before each.
    #[must_use]
    pub fn stride(mut self, changes: usize) -> Self {
        self.stride = changes.max(1);
        self
    }

    /// Checks until everything is, or `go_on` says no.
    ///
    /// # Errors
    /// The operating system's refusal to start a thread.
    pub fn run(&self, go_on: impl Fn() -> bool + Sync) -> std::io::Result<ExhaustiveReport> {
        let (next, total) = (AtomicU64::new(0), Mutex::new(ExhaustiveReport::default()));
        let (part, of) = self.part;
        let work = || {
            while go_on() {
                // Relaxed: only hands out numbers; results are handed over by the mutex.
                let number = next.fetch_add(1, Ordering::Relaxed) * of + part % of;
                if self.scripts() <= number {
                    return;
                }
                let mut report = ExhaustiveReport { scripts: 1, ..Default::default() };
                self.check_script(&self.script(number), &mut report);
                total.lock().unwrap_or_else(PoisonError::into_inner).add(report);
            }
        };
        std::thread::scope(|scope| {
            for job in 1..self.jobs {
                let name = format!("exhaustive-{job}");
                std::thread::Builder::new().name(name).spawn_scoped(scope, work)?;
            }
            work();
            Ok::<_, std::io::Error>(())
        })?;
        let mut report = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.failures.sort();
        Ok(report)
    }

    /// The scripts of one operation come first, then those of two, and so on.
    fn script(&self, number: u64) -> Vec<Action> {
        if let Some(only) = &self.only {
            return only.clone();
        }
        let count = self.actions.len() as u64;
        let (mut number, mut length) = (number, 1);
        while count.pow(length) <= number {
            number -= count.pow(length);
            length += 1;
        }
        let next = |_| {
            let at = usize::try_from(number % count).expect("it is an index");
            number /= count;
            self.actions[at]
        };
        (0..length).map(next).collect()
    }

    /// A crash before each change of the script, until it comes through.
    fn check_script(&self, actions: &[Action], report: &mut ExhaustiveReport) {
        for changes in (0..).step_by(self.stride) {
            let options = options(1).crash_after(changes);
            let boot = Boot::new(options, blank(), 1);
            let mut script = Script::new();
            let went = script.play(&boot, actions);
            if let Went::Refused(_) | Went::Broken(_) = went {
                report.failures.push(format!("{actions:?}: {went}"));
                return;
            }
            let through = matches!(went, Went::Through);
            let state = boot.disk.crash();
            report.crashes += 1;
            let place = format!("{actions:?}, crash before change {changes}");
            self.check_crash(&script, &state, &place, report);
            if through {
                return;
            }
        }
    }

    fn check_crash(
        &self,
        script: &Script,
        state: &CrashState,
        place: &str,
        report: &mut ExhaustiveReport,
    ) {
        let mut seen = BTreeSet::new();
        let mut again = self.crashes_in_recovery;
        let mut random = SimRandom::new(1);
        state.for_each_image(&self.scope, &mut random, |fates, image| {
            if !seen.insert(image.fingerprint()) {
                report.duplicates += 1;
                return ControlFlow::Continue(());
            }
            report.images += 1;
            let boot = Boot::new(options(2), image.clone(), 2);
            if let Err(went) = script.check(&boot) {
                report.failures.push(format!("{place}, {fates:?}: {went}"));
                return ControlFlow::Break(());
            }
            drop(boot);
            if 0 < again && 0 < self.depth {
                again -= 1;
                self.crash_recovery(script, &image, place, self.depth, report);
            }
            ControlFlow::Continue(())
        });
    }

    /// A crash before each change of a recovery: what it leaves must be recovered as well.
    fn crash_recovery(
        &self,
        script: &Script,
        image: &Image,
        place: &str,
        depth: u32,
        report: &mut ExhaustiveReport,
    ) {
        for changes in (0..).step_by(self.stride) {
            let boot = Boot::new(options(3).crash_after(changes), image.clone(), 3);
            match script.check(&boot) {
                Ok(()) => return,
                Err(Went::Crashed) => {}
                Err(went) => {
                    report.failures.push(format!("{place}, second crash {changes}: {went}"));
                    return;
                }
            }
            let state = boot.disk.crash();
            let mut random = SimRandom::new(changes);
            let images = [state.image(&[]), state.random_image(&mut random)];
            for image in images {
                report.images += 1;
                report.images_of_recovery += 1;
                let boot = Boot::new(options(4), image.clone(), 4);
                if let Err(went) = script.check(&boot) {
                    report.failures.push(format!("{place}, second crash {changes}: {went}"));
                    return;
                }
                drop(boot);
                if 1 < depth {
                    let place = format!("{place}, crash {changes} of recovery");
                    self.crash_recovery(script, &image, &place, depth - 1, report);
                }
            }
        }
    }
}

pub(crate) fn options(seed: u64) -> SimOptions {
    SimOptions::new(seed).latency_max(Duration::from_micros(50))
}
