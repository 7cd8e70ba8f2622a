//! A bounded part of the exhaustive checks; `nephrite simulate --exhaustive` goes over all of them.

use nephrite_io::sim::Scope;
use nephrite_simulation::{Action, Exhaustive, fail_nth};

/// One script in nine of one operation, every ninth crash, and few images of each.
#[test]
fn every_crash_of_short_scripts_leaves_what_was_promised() {
    let scope = Scope::default().subsets_max(2).random(2).cuts_max(2);

    let report = Exhaustive::new(1).scope(scope).part(1, 9).stride(9).run(|| true);

    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(10 < report.crashes && 50 < report.images, "{report}");
    assert!(0 < report.images_of_recovery, "{report}");
}

#[test]
fn any_call_may_fail_and_nothing_promised_is_lost() {
    let report = fail_nth(&[Action::PutSynced(0, 1), Action::Flush(0)], 13);

    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(50 < report.runs && 0 < report.refused, "{report:?}");
}
