//! Why a command stopped, and the exit code that says so to programs.
//!
//! | code | meaning |
//! |------|---------|
//! | 0    | done, or standard output was closed by its reader |
//! | 1    | error: one sentence on standard error |
//! | 2    | damage was found in a store |
//! | 3    | a store, database or id does not exist |
//! | 128+n | ended by signal n: 130 for SIGINT, 143 for SIGTERM |
//! | 64   | the command line or the configuration was not understood |
//!
//! Checked by: the unit tests below for the mapping, `tests/it` for the codes of each command.

use std::fmt;
use std::process::ExitCode;

use nephrite::signals::Signal;

use crate::vectors::VectorFileError;

/// The exit codes in words, for `nephrite --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0   done (also when the reader of standard output went away)
  1   error: one sentence on standard error
  2   damage found: by verify, or met by another command
  3   not found: a store, a database or an id
  64  the command line or the configuration was not understood
  130, 143  stopped by SIGINT or SIGTERM; what was written before is stored";

/// Exit code of a command line that is not understood (EX_USAGE of sysexits).
pub(crate) const USAGE_CODE: u8 = 64;

/// A reason to stop that ends the process with a code of its own.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Anything without a more exact case; the sentence names the place and the way out.
    Error(String),
    /// The engine reported damaged bytes.
    Damage(String),
    /// A store, database or id is not there.
    NotFound(String),
    /// An option of the configuration is not understood; the sentence names the place.
    Usage(String),
    /// The command has already said on standard error what is missing.
    ReportedMissing,
    /// The command has already printed what is damaged.
    ReportedDamage,
    /// A signal stopped the command; its store was closed in order.
    Interrupted {
        /// Which one.
        signal: Signal,
        /// What to say about it.
        sentence: String,
    },
    /// Whoever read our standard output has gone; nothing is left to tell.
    OutputClosed,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Error(_) => 1,
            Self::Damage(_) | Self::ReportedDamage => 2,
            Self::NotFound(_) | Self::ReportedMissing => 3,
            Self::Usage(_) => USAGE_CODE,
            Self::Interrupted { signal, .. } => 128 + signal.number(),
        }
    }

    /// What to print on standard error; none when the command has spoken already.
    pub(crate) fn sentence(&self) -> Option<&str> {
        match self {
            Self::Error(text)
            | Self::Damage(text)
            | Self::NotFound(text)
            | Self::Usage(text)
            | Self::Interrupted { sentence: text, .. } => Some(text),
            Self::ReportedMissing | Self::ReportedDamage | Self::OutputClosed => None,
        }
    }

    /// The end by a signal; `sentence` is what the command met because of it.
    pub(crate) fn interrupted(signal: Signal, sentence: Option<&str>) -> Self {
        let met = sentence.map_or_else(String::new, |text| format!(" ({text})"));
        let sentence =
            format!("stopped by {signal}: what was written before it is stored and flushed{met}");
        Self::Interrupted { signal, sentence }
    }

    /// An error whose text is built in place.
    pub(crate) fn error(text: impl fmt::Display) -> Self {
        Self::Error(text.to_string())
    }
}

impl From<nephrite::Error> for Failure {
    fn from(error: nephrite::Error) -> Self {
        use nephrite::Error;
        match &error {
            Error::Corrupt { .. } => Self::Damage(error.to_string()),
            Error::DatabaseNotFound { .. } | Error::NotFound { .. } => {
                Self::NotFound(error.to_string())
            }
            _ => Self::Error(error.to_string()),
        }
    }
}

impl From<VectorFileError> for Failure {
    fn from(error: VectorFileError) -> Self {
        Self::Error(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_the_documented_code() {
        let text = String::new;
        let cases = [
            (Failure::OutputClosed, 0),
            (Failure::Error(text()), 1),
            (Failure::Damage(text()), 2),
            (Failure::ReportedDamage, 2),
            (Failure::NotFound(text()), 3),
            (Failure::Usage(text()), 64),
            (Failure::interrupted(Signal::Interrupt, None), 130),
            (Failure::interrupted(Signal::Terminate, None), 143),
            (Failure::ReportedMissing, 3),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.code(), code, "{failure:?}");
            assert!(EXIT_CODES.contains(&code.to_string()), "{code} is documented");
        }
    }

    #[test]
    fn engine_errors_keep_their_sentence_and_find_their_code() {
        let missing = nephrite::Error::DatabaseNotFound { name: "books".into() };
        let sentence = missing.to_string();
        let failure = Failure::from(missing);
        assert_eq!(failure.code(), 3);
        assert_eq!(failure.sentence(), Some(sentence.as_str()));
    }
}
