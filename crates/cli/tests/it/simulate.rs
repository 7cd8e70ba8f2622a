//! `simulate`: its report, and that a seed replays.

use crate::run::Place;

#[test]
fn a_campaign_reports_what_it_did_and_replays() {
    let place = Place::new();
    let line = "simulate --seed 7 --steps 40 --runs 4 --jobs 2";

    let first = place.json(line);
    let again = place.json(line);

    for field in ["runs", "steps", "crashes", "faults", "failures"] {
        assert!(first[field].is_u64(), "{field}: {first}");
    }
    assert_eq!((&first["runs"], &first["failures"]), (&4.into(), &0.into()));
    assert_eq!(first["trace_hash"], again["trace_hash"]);
    assert_eq!(first["trace_hash"].as_str().map(str::len), Some(16));
}

#[test]
fn time_bounds_a_campaign() {
    let place = Place::new();
    let report = place.json("simulate --steps 10 --minutes 0");
    assert_eq!(report["runs"], 0);
}

#[test]
fn operations_faults_and_parts_that_do_not_exist_are_named() {
    let place = Place::new();
    let refused = |line: &str, parts: &[&str]| {
        let run = place.run(line);
        assert_eq!(run.code, 64, "{line}: {}", run.stderr);
        let named = |part: &&str| run.stderr.contains(*part);
        assert!(parts.iter().all(named), "{line}: {}", run.stderr);
    };
    refused("simulate --without put,fly", &["`fly` is no operation", "get-many"]);
    refused("simulate --faults all", &["none, failures or corruption"]);
    refused("simulate --minutes=-1", &["--minutes"]);
    refused("simulate --exhaustive 1 --part 8/8", &["--part", "the last 8 - 1"]);
    refused("simulate --exhaustive 1 --part 0/0", &["--part"]);
}
