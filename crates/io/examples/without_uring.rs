//! Runs a program where io_uring is forbidden, as the default profiles of Docker and containerd do:
//!
//! ```text
//! cargo run -p nephrite-io --example without_uring -- PROGRAM [ARGUMENT...]
//! ```

#[cfg(target_os = "linux")]
#[path = "../tests/it/filter.rs"]
#[expect(clippy::unwrap_used, reason = "shared with the tests, which fail where this would")]
mod filter;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;

    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        return Err(std::io::Error::other("name a program to run without io_uring"));
    };
    filter::forbid(libc::SYS_io_uring_setup, libc::EPERM);
    Err(std::process::Command::new(program).args(arguments).exec())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("io_uring exists on Linux only");
}
