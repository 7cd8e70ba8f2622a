//! The measuring programs, over little data: every contender does its work and every figure is
//! there. How large the figures are is nothing that a test could judge.

use std::process::Command;

use serde_json::Value;

fn report_of(program: &str, arguments: &[&str]) -> Value {
    let place = tempfile::tempdir().expect("a temporary directory can be made");
    let output = Command::new(program)
        .args(arguments)
        .args(["--json", "--dir"])
        .arg(place.path())
        .output()
        .expect("the program was built with this test");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complained}");
    serde_json::from_slice(&output.stdout).expect("a report is JSON")
}

fn median_of(report: &Value, name: &str) -> f64 {
    let figures = report["figures"].as_array().expect("a report has figures");
    let figure = figures.iter().find(|figure| figure["name"] == name);
    let figure = figure.unwrap_or_else(|| panic!("no figure `{name}` in {report:#}"));
    figure["median"].as_f64().unwrap_or_else(|| panic!("`{name}` has no samples"))
}

#[test]
fn rivals_go_through_all_workloads() {
    let size = ["--vectors", "2000", "--dim", "16", "--reads", "640", "--updates", "2"];
    let report = report_of(env!("CARGO_BIN_EXE_rivals"), &[&size[..], &["--rounds", "1"]].concat());
    for rival in ["nephrite", "mmap + index", "pread + index", "tokio::fs + index"] {
        for workload in [
            "load shuffled",
            "load, a sync per batch",
            "scan",
            "hot get, 1 thread",
            "cold get_many(100)",
        ] {
            assert!(0.0 < median_of(&report, &format!("{rival}: {workload}")), "{workload}");
        }
        assert!(1.0 <= median_of(&report, &format!("{rival}: space")), "{rival}");
    }
    assert!(0.0 < median_of(&report, "map in memory: hot get, 2 threads"));
    for what in ["p99", "CPU per read"] {
        let figure = median_of(&report, &format!("nephrite: cold get, uniform: {what}"));
        assert!(0.0 < figure, "{what}");
    }
}

#[test]
fn space_is_told_for_every_dimension_and_both_packings() {
    let report =
        report_of(env!("CARGO_BIN_EXE_targets"), &["space", "--dims", "128,768", "--size", "4"]);
    let pages = [
        "128 dimensions, default: pages of 4096",
        "128 dimensions, dense: pages of 4096",
        "768 dimensions, dense: pages of 12288",
    ];
    for name in pages {
        assert!(1.0 < median_of(&report, name), "{name}");
    }
}

#[test]
fn every_way_to_read_a_file_gives_a_rate() {
    if let Err(error) = io_uring::IoUring::new(8) {
        println!("SKIPPED: no io_uring here: {error}");
        return;
    }
    let size = ["io", "--size", "16", "--seconds", "0.05", "--rounds", "1", "--depths", "4"];
    let report =
        report_of(env!("CARGO_BIN_EXE_targets"), &[&size[..], &["--cached-reads", "50"]].concat());
    let named = |who: &str| format!("random reads of 4 KiB, depth 4, {who}");
    for who in ["ours: ring thread, one task", "tokio-uring", "io-uring crate, batches"] {
        assert!(0.0 < median_of(&report, &named(who)), "{who}");
        let p99 = median_of(&report, &format!("{}, p99", named(who)));
        assert!(1.0 < p99, "{who}: a read of a device in {p99} us");
    }
    assert!(0.0 < median_of(&report, "pread"));
}
