//! The engine inside other people's runtimes: the examples, run as users run them.
//!
//! An example checks every vector itself and fails otherwise; here its output is checked, too, so
//! that one which does nothing does not pass. The tokio-uring host needs io_uring itself: where
//! the kernel refuses a ring to this very process, its test says so and ends.

use std::process::Command;

/// What the example printed; it must have succeeded.
fn output_of(example: &str) -> String {
    let place = tempfile::tempdir().expect("a temporary directory can be made");
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "-p", "nephrite-benches", "--example", example, "--"])
        .arg(place.path())
        .output()
        .expect("cargo runs these tests, so it is there");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{example}: {}\n{said}\n{complained}", output.status);
    let left = std::fs::read_dir(place.path()).expect("it is still there").count();
    assert_eq!(left, 0, "{example} left files behind");
    said.into_owned()
}

fn assert_says(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.contains(line), "`{line}` is not in:\n{said}");
    }
}

#[test]
fn the_engine_runs_in_a_tokio_uring_host() {
    if let Err(error) = io_uring::IoUring::new(8) {
        println!("SKIPPED: no io_uring for the host here: {error}");
        return;
    }
    let said = output_of("tokio_uring_host");
    let host = "host's own I/O through its ring: 4096 bytes";
    assert_says(&said, &["engine's I/O: ", "1001 vectors, all as stored", host, "closed"]);
}

#[test]
fn the_engine_runs_in_tokios_multi_thread_runtime() {
    let said = output_of("tokio_host");
    assert_says(&said, &["1001 vectors, all as stored", "on several threads: 16", "closed"]);
}

#[test]
fn the_engine_runs_under_smol_and_pollster() {
    let said = output_of("smol_host");
    assert_says(&said, &["1001 vectors, all as stored", "under pollster: 1001", "closed"]);
}
