//! A bounded part of the exhaustive checks; `nephrite simulate --exhaustive` goes over all of them.

use nephrite_io::sim::Scope;
use nephrite_simulation::{Action, ActionKind, Exhaustive, FAILURES, FailNth};

/// One script in nine of one operation, every ninth crash, and few images of each.
#[test]
fn every_crash_of_short_scripts_leaves_what_was_promised() {
    let scope = Scope::default().subsets_max(2).random(2).cuts_max(2);

    let report = Exhaustive::new(1).scope(scope).part(1, 9).stride(9).run(|| true).unwrap();

    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(10 < report.crashes && 50 < report.images, "{report}");
    assert!(0 < report.images_of_recovery, "{report}");
}

#[test]
fn any_call_may_fail_and_nothing_promised_is_lost() {
    let report = FailNth::new(&[Action::PutSynced(0, 1), Action::Flush(0)]).stride(13).run();

    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(50 < report.runs && 0 < report.refused, "{report:?}");
}

#[test]
fn the_scope_says_how_many_scripts_there_are_and_threads_change_nothing() {
    let kinds = [ActionKind::Put, ActionKind::Flush];
    let actions = Action::among(&kinds, 1, 1);
    assert_eq!(actions, [Action::Put(0, 1), Action::Flush(0)]);
    let scope = Scope::default().subsets_max(1).random(1).cut_bytes(4096);
    let checks = Exhaustive::new(2).actions(actions).scope(scope).stride(40).depth(2);
    assert_eq!(checks.scripts(), 2 + 4);

    let one = checks.run(|| true).unwrap();
    let two = checks.clone().jobs(2).run(|| true).unwrap();

    assert_eq!((one.scripts, &one.failures), (6, &Vec::new()));
    assert_eq!((one.images, one.crashes), (two.images, two.crashes));
    let shallow = checks.depth(0).run(|| true).unwrap();
    assert_eq!(shallow.images_of_recovery, 0);
    assert!(shallow.images < one.images, "{shallow} {one}");
}

#[test]
fn each_way_to_fail_is_tried_at_each_call() {
    for fault in FAILURES {
        let report = FailNth::new(&[Action::Put(0, 1)]).faults(&[fault]).stride(50).run();
        assert!(report.failures.is_empty() && 2 < report.runs, "{fault:?}: {report:?}");
        assert!(2 * report.runs <= report.opened && report.opened <= 3 * report.runs);
    }
}
