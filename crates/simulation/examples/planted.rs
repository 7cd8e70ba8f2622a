//! Looks for a bug that was planted in the engine, within bounds, and says what caught it.
//!
//! Prints `caught by ...` and exits with 0, or prints how much held and exits with 1. Of a build
//! without planted bugs, or with all of them asleep, everything must hold. `planted.sh` beside
//! this folder runs it for every bug.
//!
//!     planted [HUNT]      the hunt to begin with: seeds (default), lives, calls, scripts or log

use std::{ops::RangeInclusive, process::ExitCode};

use nephrite_simulation::{
    Action, Errno, Exhaustive, FailNth, Fault, Options, Profile, left_out_frame,
    left_out_frame_after_failed_sync, lent_memory, merged_tombstone, simulate,
};

/// Seeds of each profile. Most bugs are caught by one of the first ten.
const SEEDS: RangeInclusive<u64> = 1..=60;
/// Synced writes that fill seven log segments of 256 KiB, a block each.
const FULL_LOG: usize = 450;
/// A run of this many steps has a flush, a compaction and a few crashes.
const STEPS: u64 = 200;

/// Runs of one kind, until one fails: what failed.
type Hunt = fn() -> Option<String>;

fn main() -> ExitCode {
    let mut hunts: [(&str, Hunt); 5] = [
        ("seeds", by_seed),
        ("lives", by_lives),
        ("calls", by_failing_calls),
        ("scripts", by_scripts),
        ("log", by_full_log),
    ];
    if let Some(first) = std::env::args().nth(1) {
        let Some(place) = hunts.iter().position(|(name, _)| *name == first) else {
            eprintln!("no hunt is named {first}");
            return ExitCode::from(64);
        };
        hunts[..=place].rotate_right(1);
    }
    // A planted bug may end in a panic, which is a catch as well and is told in one line.
    std::panic::set_hook(Box::new(|_| {}));
    match hunts.into_iter().find_map(|(_, hunt)| hunt()) {
        Some(catch) => {
            println!("caught by {catch}");
            ExitCode::SUCCESS
        }
        None => {
            let seeds = SEEDS.count();
            println!("not caught by {seeds} seeds of each kind, failing calls, or scripts");
            ExitCode::FAILURE
        }
    }
}

/// Random runs: the same seed with crashes alone, with failing calls, and with damage.
fn by_seed() -> Option<String> {
    let profiles = [Profile::Crashes, Profile::Failures, Profile::Corruption];
    let mut runs = SEEDS.flat_map(|seed| profiles.map(|profile| (seed, profile)));
    runs.find_map(|(seed, profile)| {
        let report = simulate(&Options::new(seed).steps(STEPS).profile(profile));
        let failure = report.failure?;
        Some(format!("seed {seed}, faults {profile}, step {}: {failure}", report.steps))
    })
}

/// Scripts of a few lives, each made for a bug that seeds find too seldom.
fn by_lives() -> Option<String> {
    type Script = fn() -> Result<(), String>;
    let scripts: [(&str, Script); 4] = [
        ("a log frame that was left out", left_out_frame),
        ("the same, with a failed sync", left_out_frame_after_failed_sync),
        ("a merged tombstone", merged_tombstone),
        ("memory on loan", lent_memory),
    ];
    scripts.into_iter().find_map(|(name, script)| Some(format!("{name}: {}", script().err()?)))
}

/// Scripts with their first, second, ... call failing; after a flush that fails they go on.
fn by_failing_calls() -> Option<String> {
    use Action::{Bulk, Flush, Put, PutSynced, Reopen};
    // A sync that failed for a passing reason is no more repeatable than any other.
    let syncs = [
        Fault::SyncForgets,
        Fault::SyncKeeps,
        Fault::Error(Errno::Again),
        Fault::Error(Errno::Cancelled),
    ];
    let scripts: [(&[Action], &[Fault]); 3] = [
        (&[Put(0, 1), Flush(0), Flush(0), PutSynced(0, 2), Flush(0)], &syncs),
        (&[PutSynced(0, 1), Flush(0), Reopen, PutSynced(0, 2), Flush(0)], &syncs),
        (&[Bulk(0), PutSynced(0, 1), Flush(0), Flush(0)], &[Fault::Zero]),
    ];
    let mut failures = scripts
        .into_iter()
        .flat_map(|(script, faults)| FailNth::new(script).faults(faults).run().failures);
    failures.next().map(|failure| format!("a failing call: {failure}"))
}

/// Every image of a script in which the log has time for its marks.
fn by_scripts() -> Option<String> {
    use Action::{Pause, Put, PutSynced};
    let script = [PutSynced(0, 1), Pause, Put(0, 1), Pause, Put(0, 2), Pause];
    let report = Exhaustive::of(&script).depth(0).run(|| true).ok()?;
    report.failures.into_iter().next().map(|failure| format!("a short script: {failure}"))
}

/// More full log segments than are kept for reuse; then each call for the manifest fails.
fn by_full_log() -> Option<String> {
    use Action::{Flush, PutSynced};
    let mut script = vec![PutSynced(0, 1); FULL_LOG];
    script.push(Flush(0));
    let calls = FailNth::new(&script).path("manifest").faults(&[Fault::SyncForgets]);
    let failure = calls.run().failures.into_iter().next()?;
    // Without the hundreds of operations.
    let what = failure.split_once("], ").map_or(&*failure, |(_, what)| what);
    Some(format!("a full log: {what}"))
}
