//! What the operating system says about this process, and what only root may ask of it.
//!
//! The unsafe calls of this crate are all here: they take plain numbers or strings that live
//! through the call.

use std::{
    ffi::{CStr, CString},
    fs,
    io::{self, Write},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// File descriptors this process has open.
///
/// # Panics
/// When `/proc` is not there.
#[must_use]
pub fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux lists file descriptors").count()
}

/// File descriptors that are open on files below a directory.
///
/// # Panics
/// When `/proc` is not there.
#[must_use]
pub fn descriptors_below(directory: &Path) -> usize {
    let listed = fs::read_dir("/proc/self/fd").expect("Linux lists file descriptors");
    let targets = listed.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(directory)).count()
}

/// Resident memory of this process in bytes.
///
/// # Panics
/// When `/proc` is not there.
#[must_use]
pub fn resident_bytes() -> u64 {
    memory_bytes("VmRSS:")
}

/// Of [`resident_bytes`], what is no page of a file: heaps, stacks and mapped memory, but not the
/// program, of which more comes in as more of it runs.
///
/// # Panics
/// When `/proc` is not there.
#[must_use]
pub fn anonymous_bytes() -> u64 {
    memory_bytes("RssAnon:")
}

/// The most resident memory that this process ever had, in bytes.
///
/// # Panics
/// When `/proc` is not there.
#[must_use]
pub fn resident_bytes_max() -> u64 {
    memory_bytes("VmHWM:")
}

fn memory_bytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells a process's memory");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("it is a number of KiB") << 10
}

/// What the allocator of this process fetched from the system and what of it is in use, in bytes.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a pair of numbers for tests to print")]
pub struct Allocator {
    /// For small blocks, of all its arenas; resident or not.
    pub fetched: u64,
    /// Of those.
    pub in_use: u64,
}

/// What the C library says of its allocator; none where it does not.
#[must_use]
pub fn allocator() -> Option<Allocator> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call takes nothing and fills a plain structure.
        let told = unsafe { libc::mallinfo2() };
        Some(Allocator { fetched: told.arena as u64, in_use: told.uordblks as u64 })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Names of this process's threads that belong to the engine.
///
/// # Panics
/// When `/proc` is not there.
#[must_use]
pub fn engine_threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux lists threads");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("nephrite")).collect()
}

/// Says that a test did nothing, and why, so that a run shows it even if all tests pass.
pub fn skipped(test: &str, reason: &str) {
    // Only what the macros print is held back by the test harness.
    let told = writeln!(io::stderr(), "SKIPPED {test}: {reason}");
    if let Err(error) = told {
        println!("SKIPPED {test}: {reason} (standard error: {error})");
    }
}

/// Whether this process may mount and change users.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// User and group that own nothing.
pub const NOBODY: u32 = 65534;

/// Makes this process that of a user without rights, for good.
///
/// # Errors
/// What the operating system says.
pub fn become_nobody() -> io::Result<()> {
    // SAFETY: an empty list of groups is never read through the pointer.
    succeeded(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: the call takes a plain number.
    succeeded(unsafe { libc::setgid(NOBODY) })?;
    // SAFETY: the call takes a plain number.
    succeeded(unsafe { libc::setuid(NOBODY) })
}

/// Limits how many file descriptors this process may have open, for good.
///
/// # Errors
/// What the operating system says.
pub fn limit_descriptors(count: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: the structure lives through the call, which only reads it.
    succeeded(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
}

/// Limits how much memory this process may have mapped, for good.
///
/// # Errors
/// What the operating system says.
pub fn limit_address_space(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the structure lives through the call, which only reads it.
    succeeded(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) })
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A small file system, mounted until dropped.
#[derive(Debug)]
pub struct Mounted {
    target: CString,
}

impl Mounted {
    /// Mounts a file system in memory over an empty directory. Only root may.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Panics
    /// When the path holds a zero byte.
    pub fn tmpfs(directory: &Path, bytes: u64) -> io::Result<Self> {
        let target = c_path(directory);
        let options = CString::new(format!("size={bytes}")).expect("a number holds no zero byte");
        // SAFETY: all strings end in zero and live through the call, which only reads them.
        succeeded(unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        })?;
        Ok(Self { target })
    }

    /// Makes an ext4 image and mounts it through a loop device over an empty directory. Only root
    /// may, where there are loop devices and `mkfs.ext4`.
    ///
    /// # Errors
    /// What the operating system or the programs say.
    ///
    /// # Panics
    /// When a path holds a zero byte.
    pub fn ext4(image: &Path, directory: &Path, bytes: u64) -> io::Result<Self> {
        fs::File::create(image)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(directory))?;
        Ok(Self { target: c_path(directory) })
    }

    /// Makes it read-only, which works while no file on it is open for writing.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn make_read_only(&self) -> io::Result<()> {
        let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
        // SAFETY: the strings end in zero and live through the call, which only reads them; a
        // remount takes no source, type or data.
        succeeded(unsafe {
            libc::mount(
                c"none".as_ptr(),
                self.target.as_ptr(),
                std::ptr::null(),
                flags,
                std::ptr::null(),
            )
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.target) {
            eprintln!("{} stays mounted: {error}", self.target.to_string_lossy());
        }
    }
}

/// Takes a file system out of sight; it ends when its last file is closed.
fn unmount(directory: &CStr) -> io::Result<()> {
    // SAFETY: the string ends in zero and lives through the call, which only reads it.
    succeeded(unsafe { libc::umount2(directory.as_ptr(), libc::MNT_DETACH) })
}

/// Ends a file system in user space at once: calls that wait for it fail, and so do all later ones
/// on files of it that are still open.
///
/// # Errors
/// What the operating system says.
#[cfg(target_os = "linux")]
pub fn unmount_at_once(directory: &CStr) -> io::Result<()> {
    let flags = libc::MNT_FORCE | libc::MNT_DETACH;
    // SAFETY: the string ends in zero and lives through the call, which only reads it.
    succeeded(unsafe { libc::umount2(directory.as_ptr(), flags) })
}

/// Gives this thread, and the threads and processes it starts from now on, mounts of their own:
/// what is mounted there goes with the last of them, even if all are killed. Only root may.
///
/// # Errors
/// What the operating system says.
#[cfg(target_os = "linux")]
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: the call takes a plain number.
    succeeded(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let (root, flags) = (c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE);
    let none = std::ptr::null();
    // SAFETY: the path ends in zero and is static; a change of propagation takes nothing else.
    succeeded(unsafe { libc::mount(none, root, none, flags, none.cast()) })
}

/// Kills another process at once (SIGKILL).
///
/// # Errors
/// What the operating system says.
///
/// # Panics
/// When the number is none of a process.
pub fn kill(process: u32) -> io::Result<()> {
    let process = libc::pid_t::try_from(process).expect("numbers of processes are small");
    assert!(0 < process, "other numbers mean whole groups");
    // SAFETY: the call takes plain numbers.
    succeeded(unsafe { libc::kill(process, libc::SIGKILL) })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("a path holds no zero byte")
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{command:?}: {told}")))
}

/// Runs a test in a process of its own, so that memory, descriptors and threads are its alone.
/// `test` is the test's path in its binary.
///
/// # Panics
/// In the caller's process when the test fails there, with what it printed.
pub fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "NEPHRITE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return body();
    }
    let program = std::env::current_exe().expect("a test knows its binary");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .expect("the test binary can be started");
    let told = String::from_utf8_lossy(&output.stdout);
    print!("{told}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in its own process: {}", output.status);
    assert!(told.contains("1 passed"), "{test} is the name of the test");
}

/// Waits until something that the engine does in the background has happened.
///
/// # Panics
/// When it has not within a minute.
#[expect(clippy::disallowed_methods, reason = "a test that waits for ever tells nothing")]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < Duration::from_secs(60), "it takes too long until {what}");
        std::thread::yield_now();
    }
}
