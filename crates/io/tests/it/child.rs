//! Running one test in a process of its own: for what concerns the whole process, such as its
//! threads, its processor time, or a system call filter that cannot be taken off again.

use std::process::{Command, Output};

/// Set for the child, so that its test does not start a child again.
const MARK: &str = "NEPHRITE_TEST_CHILD";

/// Whether this process is such a child.
pub(crate) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs the named test (`module::name`) alone in a child, and fails if it does.
pub(crate) fn run_alone(test: &str) {
    let output = spawn(test);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test} in a process of its own: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn spawn(test: &str) -> Output {
    let binary = std::env::current_exe().unwrap();
    Command::new(binary)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap()
}
