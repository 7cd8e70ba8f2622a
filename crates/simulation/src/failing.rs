//! Fail-the-Nth: a script with its first, second, ... system call failing, until none is left.
//!
//! Afterwards the disk works again: the store must open, on the same machine and after a power cut,
//! and hold what was promised.

use nephrite_io::sim::{Errno, Fault, FaultPlan, FaultRule, Repeat, SimRandom};

use crate::{
    boot::{Boot, blank},
    exhaustive::options,
    scenario::{Action, Script, Went},
};

/// Every way for a call to fail that is tried.
pub const FAILURES: [Fault; 9] = [
    Fault::Error(Errno::Io),
    Fault::Error(Errno::NoSpace),
    Fault::Error(Errno::Interrupted),
    Fault::Error(Errno::Again),
    Fault::Error(Errno::Cancelled),
    Fault::Short,
    Fault::Zero,
    Fault::SyncForgets,
    Fault::SyncKeeps,
];

/// What a fail-the-Nth check goes over.
#[derive(Debug, Clone)]
pub struct FailNth {
    actions: Vec<Action>,
    stride: usize,
    faults: Vec<Fault>,
    path: String,
}

/// What a fail-the-Nth check has found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FailNthReport {
    /// Runs, each with a fault at another call.
    pub runs: u64,
    /// Runs in which an operation was refused.
    pub refused: u64,
    /// Stores that were opened afterwards: on the same machine, and from images of a power cut.
    pub opened: u64,
    /// What failed: fault, call.
    pub failures: Vec<String>,
}

impl FailNth {
    /// Every call of this script, in each of the ways of [`FAILURES`], once and from then on.
    #[must_use]
    pub fn new(actions: &[Action]) -> Self {
        Self {
            actions: actions.to_vec(),
            stride: 1,
            faults: FAILURES.to_vec(),
            path: String::new(),
        }
    }

    /// Only every n-th call.
    #[must_use]
    pub fn stride(mut self, calls: usize) -> Self {
        self.stride = calls.max(1);
        self
    }

    /// Only calls for files and directories whose path contains this text.
    #[must_use]
    pub fn path(mut self, text: &str) -> Self {
        self.path = text.to_owned();
        self
    }

    /// Only these ways to fail.
    #[must_use]
    pub fn faults(mut self, faults: &[Fault]) -> Self {
        self.faults = faults.to_vec();
        self
    }

    /// Checks everything.
    #[must_use]
    pub fn run(&self) -> FailNthReport {
        let mut report = FailNthReport::default();
        for fault in &self.faults {
            for repeat in [Repeat::Once, Repeat::Forever] {
                for nth in (1..).step_by(self.stride) {
                    if !self.fail_one(*fault, repeat, nth, &mut report) {
                        break;
                    }
                }
            }
        }
        report
    }

    /// Whether there was an n-th call.
    fn fail_one(&self, fault: Fault, repeat: Repeat, nth: u64, report: &mut FailNthReport) -> bool {
        let rule = FaultRule::new(fault, &[]).path(&self.path).nth(nth).repeat(repeat);
        let boot = Boot::new(options(1).faults(FaultPlan::new().with(rule)), blank(), 1);
        let mut script = Script::new();
        script.perseveres = true;
        let went = script.play(&boot, &self.actions);
        report.runs += 1;
        let struck = 0 < boot.disk.faults_struck();
        let place = format!("{:?}, {fault:?} {repeat:?} at call {nth}", self.actions);
        match went {
            Went::Refused(_) => report.refused += 1,
            Went::Broken(text) => report.failures.push(format!("{place}: {text}")),
            Went::Through => report.refused += u64::from(script.refused.is_some()),
            Went::Crashed => {}
        }
        boot.disk.set_faults(FaultPlan::new());
        let mut random = SimRandom::new(nth);
        let state = boot.disk.crash_state();
        for image in [state.image(&[]), state.random_image(&mut random)] {
            let boot = Boot::new(options(2), image, 2);
            report.opened += 1;
            if let Err(went) = script.check(&boot) {
                report.failures.push(format!("{place}, after a power cut: {went}"));
            }
        }
        let again = Boot { disk: boot.disk.reopen(), runtime: boot.runtime.clone() };
        script.let_go(&boot);
        if boot.disk.has_lost_names() {
            return struck; // no process is started on what is left of this file system
        }
        report.opened += 1;
        if let Err(went) = script.check(&again) {
            report.failures.push(format!("{place}, after a restart: {went}"));
        }
        struck
    }
}
