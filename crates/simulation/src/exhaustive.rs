//! Small scopes, exhaustively: every script up to a length, a crash before every change of the
//! disk, every image that it may leave (within bounds), and a crash in every recovery.
//!
//! Most bugs of crash recovery show in three operations or fewer; what is tried here is tried
//! without gaps. The bounds are those of [`nephrite_io::sim::Scope`].

use std::{collections::BTreeSet, fmt, ops::ControlFlow, time::Duration};

use nephrite_io::sim::{
    CrashState, Errno, Fault, FaultPlan, FaultRule, Image, Repeat, Scope, SimOptions, SimRandom,
};

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
    /// In how many recoveries of each crash a second crash is tried, at each of their changes.
    crashes_in_recovery: u64,
    part: (u64, u64),
    stride: usize,
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

impl Exhaustive {
    /// All scripts of up to this many operations.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let scope = Scope::default().subsets_max(6).random(16).torn_writes(1).cuts_max(16);
        Self { length, scope, crashes_in_recovery: 1, part: (0, 1), stride: 1 }
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
    #[must_use]
    pub fn run(&self, go_on: impl Fn() -> bool) -> ExhaustiveReport {
        let mut report = ExhaustiveReport::default();
        let mut number = 0;
        for script in scripts(self.length) {
            number += 1;
            if number % self.part.1 != self.part.0 % self.part.1 {
                continue;
            }
            if !go_on() {
                break;
            }
            report.scripts += 1;
            self.check_script(&script, &mut report);
        }
        report
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
            if 0 < again {
                again -= 1;
                self.crash_recovery(script, &image, place, report);
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
                let boot = Boot::new(options(4), image, 4);
                if let Err(went) = script.check(&boot) {
                    report.failures.push(format!("{place}, second crash {changes}: {went}"));
                    return;
                }
            }
        }
    }
}

fn options(seed: u64) -> SimOptions {
    SimOptions::new(seed).latency_max(Duration::from_micros(50))
}

/// All scripts of one operation, of two, and so on.
fn scripts(length: usize) -> impl Iterator<Item = Vec<Action>> {
    let actions = Action::all();
    (1..=length).flat_map(move |length| {
        let actions = actions.clone();
        let count = u64::try_from(actions.len()).expect("they are few");
        let total = count.pow(u32::try_from(length).expect("it is short"));
        (0..total).map(move |mut number| {
            let next = |_| {
                let at = usize::try_from(number % count).expect("it is an index");
                number /= count;
                actions[at]
            };
            (0..length).map(next).collect()
        })
    })
}

/// What a fail-the-Nth check has found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FailNthReport {
    /// Runs, each with a fault at another call.
    pub runs: u64,
    /// Runs in which an operation was refused.
    pub refused: u64,
    /// What failed: fault, call.
    pub failures: Vec<String>,
}

/// Runs a script with the n-th system call of the disk failing, for n = 1, 2, ... until none is
/// left (or every `stride`-th of them), once and from then on, for each kind of failure.
/// Afterwards the disk works again: the
/// store must open, and hold what was promised.
#[must_use]
pub fn fail_nth(actions: &[Action], stride: usize) -> FailNthReport {
    let mut report = FailNthReport::default();
    let faults = Errno::ALL.map(Fault::Error).into_iter();
    let faults = faults.chain([Fault::Short, Fault::Zero, Fault::SyncForgets, Fault::SyncKeeps]);
    for fault in faults {
        for repeat in [Repeat::Once, Repeat::Forever] {
            for nth in (1..).step_by(stride.max(1)) {
                if !fail_one(actions, fault, repeat, nth, &mut report) {
                    break;
                }
            }
        }
    }
    report
}

/// Whether there was an n-th call.
fn fail_one(
    actions: &[Action],
    fault: Fault,
    repeat: Repeat,
    nth: u64,
    report: &mut FailNthReport,
) -> bool {
    let rule = FaultRule::new(fault, &[]).nth(nth).repeat(repeat);
    let boot = Boot::new(options(1).faults(FaultPlan::new().with(rule)), blank(), 1);
    let mut script = Script::new();
    let went = script.play(&boot, actions);
    report.runs += 1;
    let struck = 0 < boot.disk.faults_struck();
    let place = format!("{actions:?}, {fault:?} {repeat:?} at call {nth}");
    match went {
        Went::Refused(_) => report.refused += 1,
        Went::Broken(text) => report.failures.push(format!("{place}: {text}")),
        Went::Through | Went::Crashed => {}
    }
    boot.disk.set_faults(FaultPlan::new());
    let mut random = SimRandom::new(nth);
    let state = boot.disk.crash_state();
    for image in [state.image(&[]), state.random_image(&mut random)] {
        let boot = Boot::new(options(2), image, 2);
        if let Err(went) = script.check(&boot) {
            report.failures.push(format!("{place}, after a power cut: {went}"));
        }
    }
    let again = Boot { disk: boot.disk.reopen(), runtime: boot.runtime.clone() };
    script.let_go(&boot);
    if let Err(went) = script.check(&again) {
        report.failures.push(format!("{place}, after a restart: {went}"));
    }
    struck
}
