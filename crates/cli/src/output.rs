//! Standard output and standard error of a command.
//!
//! Standard output carries results: text for people, or JSON with `--json`. Standard error carries
//! warnings, errors and progress. A closed standard output ends the command quietly, as it does for
//! other tools in a pipe; any other failure to write is an error.
//!
//! Checked by: `tests/it` (closed pipe, `--json` parses, `--quiet`).

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Buffered standard output.
pub(crate) struct Output {
    /// Not locked for good: the threads of the demo's child print as well.
    writer: BufWriter<Stdout>,
    json: bool,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { writer: BufWriter::with_capacity(64 << 10, io::stdout()), json, quiet }
    }

    /// Whether results are wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// One line of results.
    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) -> Result<(), Failure> {
        self.writer.write_fmt(text).and_then(|()| self.writer.write_all(b"\n")).map_err(closed)
    }

    /// One line that only tells people that a thing was done: left out with `--quiet`.
    pub(crate) fn remark(&mut self, text: fmt::Arguments<'_>) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.line(text) }
    }

    /// Bytes as they are, for lines that were built elsewhere.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(closed)
    }

    /// One JSON document on one line.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, value)
            .map_err(|error| closed(io::Error::from(error)))?;
        self.writer.write_all(b"\n").map_err(closed)
    }

    /// JSON for programs, or one line for people.
    pub(crate) fn result(
        &mut self,
        value: &impl Serialize,
        text: fmt::Arguments<'_>,
    ) -> Result<(), Failure> {
        if self.json { self.document(value) } else { self.remark(text) }
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(closed)
    }
}

fn closed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::OutputClosed
    } else {
        Failure::error(format_args!(
            "standard output: {error}; free space there or write elsewhere"
        ))
    }
}

/// One sentence on standard error.
pub(crate) fn complain(sentence: impl fmt::Display) {
    // When standard error is closed there is nobody left to tell, and the exit code still speaks.
    let _nobody_reads = writeln!(io::stderr().lock(), "nephrite: {sentence}");
}
