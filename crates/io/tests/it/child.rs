//! Running one test in a process of its own: for what concerns the whole process, such as its
//! threads, its processor time, or a system call filter that cannot be taken off again.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output};

/// Set for the child, so that its test does not start a child again.
const MARK: &str = "NEPHRITE_TEST_CHILD";

/// Whether this process is such a child.
pub(crate) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs the named test (`module::name`) alone in a child, and fails if it does.
pub(crate) fn run_alone(test: &str) {
    check(test, &command(test).output().unwrap());
}

/// Runs the named test alone in a child that must end by `abort`; gives back what it said.
pub(crate) fn run_until_abort(test: &str) -> String {
    let output = command(test).output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", output.status);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the named test alone in a child that may mount file systems which only it sees.
pub(crate) fn run_alone_with_mounts(test: &str) {
    // SAFETY: the call takes nothing and reports about this process.
    let user = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let group = unsafe { libc::getegid() };
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    let enter = move || {
        if user == 0 {
            return unshare(libc::CLONE_NEWNS);
        }
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
        maps.iter().try_for_each(|(path, map)| std::fs::write(path, map))
    };
    let mut command = command(test);
    // SAFETY: between fork and exec this makes system calls on data made before the fork, and
    // neither locks nor allocates.
    unsafe { command.pre_exec(enter) };
    check(test, &command.output().unwrap());
}

fn unshare(flags: libc::c_int) -> std::io::Result<()> {
    // SAFETY: the call takes only a number.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn check(test: &str, output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.starts_with("SKIPPED")).for_each(|line| println!("\n{line}"));
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test} in a process of its own: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn command(test: &str) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut command = Command::new(binary);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(MARK, "1");
    command
}
