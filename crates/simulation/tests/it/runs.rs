//! A bounded part of the campaign: every seed holds, and every seed replays.

use nephrite_simulation::{Campaign, Operation, Options, Profile, shrink, simulate};

/// Runs of each profile that every test run carries out.
const RUNS: u64 = 15;

fn campaign(profile: Profile) {
    let options = Options::new(1).steps(150).profile(profile);

    let report = Campaign::new(options, RUNS).twice().run(|| true, |_| {}).unwrap();

    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.runs, RUNS);
    // A store on a damaged disk may end early.
    assert!(profile == Profile::Corruption || report.steps == RUNS * 150, "{report:?}");
    assert!(RUNS / 2 < report.crashes && RUNS / 2 < report.opens, "{report:?}");
    assert_eq!(profile == Profile::Crashes, report.faults == 0, "{report:?}");
}

#[test]
fn nothing_promised_is_lost_in_crashes_and_every_seed_replays() {
    campaign(Profile::Crashes);
}

#[test]
fn nothing_promised_is_lost_when_calls_fail_and_every_seed_replays() {
    campaign(Profile::Failures);
}

#[test]
fn no_wrong_bytes_are_returned_from_a_damaged_disk_and_every_seed_replays() {
    campaign(Profile::Corruption);
}

#[test]
fn the_sums_of_a_campaign_do_not_depend_on_its_threads() {
    let run = |jobs| {
        let campaign = Campaign::new(Options::new(100).steps(60), 12).jobs(jobs);
        campaign.run(|| true, |_| {}).unwrap()
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one.trace_hash, three.trace_hash);
    assert_eq!((one.calls, one.crashes), (three.calls, three.crashes));
}

#[test]
fn different_seeds_do_different_things() {
    let hash = |seed| simulate(&Options::new(seed).steps(30)).trace_hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_run_that_holds_has_nothing_to_shrink() {
    let options = Options::new(3).steps(20).clients(1).without(Operation::Bulk);
    assert_eq!(simulate(&options).failure, None);
    assert!(shrink(&options).is_none());
}

#[test]
fn the_line_that_replays_a_run_says_all_of_it() {
    let options = Options::new(7).steps(30).clients(2).profile(Profile::Failures);
    let options = options.without(Operation::Scan).without(Operation::FlushStore);
    assert_eq!(
        options.to_string(),
        "nephrite simulate --seed 7 --steps 30 --faults failures --clients 2 \
         --without scan,flush-store"
    );
}
