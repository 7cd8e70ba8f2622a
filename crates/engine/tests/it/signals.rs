//! Real signals to child processes: what runs, in which order, and what is on disk afterwards.
//!
//! A child is this test binary with one test chosen; it prints `ready` and then one line for each
//! thing that happens.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use nephrite::signals::ShutdownSignals;
use nephrite::{Config, DatabaseOptions, blocking};
use tempfile::TempDir;

const DIRECTORY: &str = "NEPHRITE_TEST_SIGNALS_DIRECTORY";
const VECTORS: u64 = 500;

/// A child that has said `ready`.
struct Ready {
    child: Child,
    output: BufReader<ChildStdout>,
    _directory: TempDir,
    store: PathBuf,
}

impl Ready {
    fn start(role: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("signals::{role}"), "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, &store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.ends_with("ready\n") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended early");
        }
        Self { child, output, _directory: directory, store }
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it still prints, and how it ends.
    fn end(mut self) -> (Vec<String>, ExitStatus, TempDir, PathBuf) {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        let status = self.child.wait().unwrap();
        (text.lines().map(str::to_owned).collect(), status, self._directory, self.store)
    }
}

/// The store's directory, in a child only.
fn role() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

fn say(text: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "{text}").unwrap();
    output.flush().unwrap();
}

fn filled_store(path: &Path) -> blocking::Store {
    let config = Config::new().flush_interval(std::time::Duration::ZERO);
    let store = blocking::Store::create(path, config).unwrap();
    let database = store.create_database("words", DatabaseOptions::new(8)).unwrap();
    for id in 0..VECTORS {
        database.put(id, &[0.5; 8]).unwrap();
    }
    store
}

/// Waits for a thing that never comes: only a signal ends it.
fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn child_with_callbacks() {
    let Some(path) = role() else { return };
    let store = filled_store(&path);
    let signals = ShutdownSignals::install().unwrap();
    signals.close_on_signal(store.as_async());
    signals.on_signal(|signal| say(&format!("first {signal}")));
    signals.on_signal(|_| panic!("a callback that panics"));
    signals.on_signal(|_| say("third"));
    signals.when_closed(|signal| {
        say("closed");
        std::process::exit(i32::from(128 + signal.number()));
    });
    say("ready");
    wait_for_ever();
}

#[test]
fn the_first_signal_runs_callbacks_in_order_then_closes() {
    let child = Ready::start("child_with_callbacks");
    child.signal("TERM");
    let (lines, status, directory, path) = child.end();
    assert_eq!(lines, ["first SIGTERM", "third", "closed"]);
    assert_eq!(status.code(), Some(143));
    let store = blocking::Store::open(&path, Config::new()).unwrap();
    let words = store.database("words").unwrap();
    assert_eq!(words.count().unwrap(), VECTORS, "buffered writes were flushed by the close");
    assert_eq!(words.stats().unwrap().memtable_bytes, 0, "nothing was left to replay");
    store.close().unwrap();
    drop(directory);
}

#[test]
fn child_that_hangs_in_a_callback() {
    let Some(path) = role() else { return };
    let store = filled_store(&path);
    store.flush().unwrap();
    let signals = ShutdownSignals::install().unwrap();
    signals.close_on_signal(store.as_async());
    signals.on_signal(|_| {
        say("hanging");
        wait_for_ever();
    });
    say("ready");
    wait_for_ever();
}

#[test]
fn the_second_signal_ends_at_once() {
    for (second, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = Ready::start("child_that_hangs_in_a_callback");
        child.signal("INT");
        assert_eq!(child.read_line(), "hanging");
        child.signal(second);
        let (_, status, directory, path) = child.end();
        assert_eq!(status.code(), Some(code));
        let store = blocking::Store::open(&path, Config::new()).unwrap();
        assert_eq!(store.database("words").unwrap().count().unwrap(), VECTORS);
        store.close().unwrap();
        drop(directory);
    }
}

#[test]
fn child_that_waits_as_a_future() {
    let Some(path) = role() else { return };
    let store = filled_store(&path);
    let signals = ShutdownSignals::install().unwrap();
    signals.close_on_signal(store.as_async());
    say("ready");
    let signal = pollster::block_on(signals.wait());
    pollster::block_on(signals.closed()).unwrap();
    let refused = store.database("words").is_err() && store.flush().is_err();
    say(&format!("{signal} refused={refused} received={:?}", signals.received()));
}

#[test]
fn waiting_resolves_and_the_store_is_closed_afterwards() {
    let child = Ready::start("child_that_waits_as_a_future");
    child.signal("INT");
    let (lines, status, ..) = child.end();
    assert!(
        lines.contains(&"SIGINT refused=true received=Some(Interrupt)".to_owned()),
        "{lines:?}"
    );
    assert!(status.success(), "the program went on and ended by itself");
}

#[test]
fn child_that_uninstalls() {
    if role().is_none() {
        return;
    }
    drop(ShutdownSignals::install().unwrap());
    say("ready");
    wait_for_ever();
}

#[test]
fn a_dropped_helper_gives_the_signals_back() {
    use std::os::unix::process::ExitStatusExt;
    let child = Ready::start("child_that_uninstalls");
    child.signal("TERM");
    let (_, status, ..) = child.end();
    assert_eq!(status.signal(), Some(15), "ended by the signal's default action: {status:?}");
}
