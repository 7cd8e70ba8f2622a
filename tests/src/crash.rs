//! Children that are killed: how they tell what they did, and how the parent reads it.
//!
//! A child writes lines, each with one system call, so that a kill cuts none in half:
//!
//! ```text
//! ready                  the store is open, threads start
//! b <thread> <number>    the step begins
//! a <thread> <number> <0|1>   the step was acknowledged; 1: it changed something
//! e <message>            something failed that must not; the child ends
//! ```
//!
//! A line is written before the step begins and after it was acknowledged, so whatever the parent
//! reads was true: steps acknowledged before a `b` line in the stream came before that step.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

/// A line of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the lines of the protocol")]
pub enum Line {
    /// The store is open.
    Ready,
    /// A step begins.
    Begin {
        /// The thread.
        thread: usize,
        /// Its step.
        number: u64,
    },
    /// A step was acknowledged.
    Acknowledged {
        /// The thread.
        thread: usize,
        /// Its step.
        number: u64,
        /// Whether it changed anything.
        changed: bool,
    },
    /// Something failed that must not.
    Failed(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => write!(f, "ready"),
            Self::Begin { thread, number } => write!(f, "b {thread} {number}"),
            Self::Acknowledged { thread, number, changed } => {
                write!(f, "a {thread} {number} {}", u8::from(*changed))
            }
            Self::Failed(message) => write!(f, "e {}", message.replace('\n', " ")),
        }
    }
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// The line, when it is none of the protocol.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("not a line of the protocol: {text:?}");
        if let Some(message) = text.strip_prefix("e ") {
            return Ok(Self::Failed(message.to_owned()));
        }
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| unknown());
        let thread = |word: &str| word.parse::<usize>().map_err(|_| unknown());
        match words[..] {
            ["ready"] => Ok(Self::Ready),
            ["b", name, step] => Ok(Self::Begin { thread: thread(name)?, number: number(step)? }),
            ["a", name, step, changed @ ("0" | "1")] => Ok(Self::Acknowledged {
                thread: thread(name)?,
                number: number(step)?,
                changed: changed == "1",
            }),
            _ => Err(unknown()),
        }
    }

    /// Tells it to the parent. The child ends when there is no parent any more.
    pub fn tell(&self) {
        let mut stdout = io::stdout().lock();
        let line = format!("{self}\n");
        if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            std::process::exit(1);
        }
    }
}

/// A child that will be killed.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Victim {
    /// Starts a program.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("it was asked for");
        Ok(Self { child, stdout: BufReader::new(stdout) })
    }

    /// Its number.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None` when the child has ended. Blocks.
    ///
    /// # Errors
    /// What the operating system says, or a line that cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        // A line without an end was cut by the kill.
        Ok(line.strip_suffix('\n').map(str::to_owned))
    }

    /// Kills it at once (SIGKILL) and gives the lines it had still written.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn kill(mut self) -> io::Result<Vec<String>> {
        self.child.kill()?;
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        self.child.wait()?;
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        Ok(whole.lines().map(str::to_owned).collect())
    }

    /// Waits for its end; gives what it had still written.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn wait(mut self) -> io::Result<(ExitStatus, String)> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        Ok((self.child.wait()?, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse_back() {
        let lines = [
            Line::Ready,
            Line::Begin { thread: 3, number: 77 },
            Line::Acknowledged { thread: 0, number: 1, changed: true },
            Line::Acknowledged { thread: 0, number: 2, changed: false },
            Line::Failed("the disk is gone".to_owned()),
        ];
        for line in lines {
            assert_eq!(Line::parse(&line.to_string()), Ok(line));
        }
        for odd in ["", "a 1 2", "a 1 2 3", "b x 1", "Ready"] {
            assert!(Line::parse(odd).is_err(), "{odd:?}");
        }
    }
}
