//! Running the binary in a directory of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A directory for one test, with a store in it as soon as a command makes one.
pub(crate) struct Place {
    directory: TempDir,
}

/// What one run left.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs a command line, split at blanks, with this directory as the current one.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_with_input(line, "")
    }

    pub(crate) fn run_with_input(&self, line: &str, input: impl AsRef<[u8]>) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.run_words(&words, input.as_ref())
    }

    pub(crate) fn run_words(&self, words: &[&str], input: &[u8]) -> Run {
        let mut child = command(self.directory.path())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::Builder::new()
            .spawn(move || {
                // A command that does not read its input may end before it is written.
                let _not_read = stdin.write_all(&input);
            })
            .unwrap();
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Run::from(output)
    }

    /// Runs a command line that must succeed, and returns its standard output.
    pub(crate) fn ok(&self, line: &str) -> String {
        let run = self.run(line);
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        assert_eq!(run.stderr, "", "{line}");
        run.stdout
    }

    /// Runs a command line that must succeed with `--json`, and returns its document.
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(&format!("{line} --json"))).unwrap()
    }

    /// Runs a command line that must fail with this code and one sentence that has all `parts`.
    pub(crate) fn fails(&self, code: i32, line: &str, parts: &[&str]) {
        self.run(line).failed(code, parts);
    }
}

impl Run {
    pub(crate) fn failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "one sentence: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {:?}", self.stderr);
        }
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the command was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The binary, with `directory` as its current directory.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nephrite"));
    command.current_dir(directory);
    command
}
