//! Progress on standard error for anything that takes longer than a second.
//!
//! A bar appears one second after the work began, only on a terminal, and never with `--quiet`; it
//! is removed again when it is dropped, so that results stand alone.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::clock::Stopwatch;
use crate::figures::rate;

/// How long work may take before it is worth a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar of known length, or a spinner when the length is not known.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Stopwatch,
    allowed: bool,
    shown: bool,
}

impl Progress {
    /// Work of `total` steps.
    pub(crate) fn bar(label: &'static str, total: u64, quiet: bool) -> Self {
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {human_pos}/{human_len} {rate} {eta} left",
        )
        .expect("the template is a constant and is used by a test")
        .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
            // A text that cannot be extended is a bar that cannot be drawn; nothing depends on it.
            let _not_drawn = text.write_str(&rate(state.per_sec()));
        });
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        Self::with(bar.with_style(style).with_message(label), quiet)
    }

    /// Work of a number of bytes that is learnt on the way, through [`Progress::reach`].
    pub(crate) fn bytes(label: &'static str, quiet: bool) -> Self {
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        )
        .expect("the template is a constant and is used by a test");
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        Self::with(bar.with_style(style).with_message(label), quiet)
    }

    /// Work whose length is not known, counted by [`Progress::advance`].
    pub(crate) fn counter(label: &'static str, quiet: bool) -> Self {
        Self::endless("{spinner} {human_pos} {msg} {elapsed}", label, quiet)
    }

    /// One call that may take long by itself: shown at once, and kept moving.
    pub(crate) fn spinner(label: &'static str, quiet: bool) -> Self {
        let mut spinner = Self::endless("{spinner} {msg} {elapsed}", label, quiet);
        if spinner.allowed {
            spinner.shown = true;
            spinner.bar.set_draw_target(ProgressDrawTarget::stderr());
            spinner.bar.enable_steady_tick(Duration::from_millis(200));
        }
        spinner
    }

    fn endless(template: &str, label: &'static str, quiet: bool) -> Self {
        let style = ProgressStyle::with_template(template)
            .expect("the templates are constants and are used by a test");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self::with(bar.with_style(style).with_message(label), quiet)
    }

    fn with(bar: ProgressBar, quiet: bool) -> Self {
        let allowed = !quiet && io::stderr().is_terminal();
        Self { bar, started: Stopwatch::start(), allowed, shown: false }
    }

    /// `steps` more are done.
    pub(crate) fn advance(&mut self, steps: u64) {
        if !self.allowed {
            return;
        }
        self.bar.inc(steps);
        self.show_when_due();
    }

    /// `position` of `total` is done.
    pub(crate) fn reach(&mut self, position: u64, total: u64) {
        if !self.allowed {
            return;
        }
        self.bar.set_length(total);
        self.bar.set_position(position);
        self.show_when_due();
    }

    fn show_when_due(&mut self) {
        if !self.shown && PATIENCE <= self.started.elapsed() {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid_and_a_quiet_bar_stays_hidden() {
        let mut bar = Progress::bar("load", 10, true);
        let spinner = Progress::spinner("flush", true);
        let counter = Progress::counter("put", true);
        let mut bytes = Progress::bytes("verify", true);
        bar.advance(10);
        bytes.reach(1, 2);
        assert!(!bytes.shown);
        assert!(!bar.shown);
        assert!(!spinner.shown);
        assert!(!counter.shown);
    }
}
