//! Counts by path as a text file, and their comparison.
//!
//! The file has the compiler, the tolerance and a line for each path. Another compiler makes other
//! instructions of the same code: counts are then compared with a wider tolerance, and the report
//! says so. Fewer instructions than recorded never fail; the report asks for a new record.

use std::{fmt, process::Command, str::FromStr};

use crate::Failure;

/// Share by which a count may be larger than the recorded one.
const TOLERANCE: f64 = 0.04;
/// The same for writes: what they find done by the engine's own threads differs between runs.
const TOLERANCE_OF_WRITES: f64 = 0.2;
/// The same where another compiler made the recorded one.
const TOLERANCE_OF_ANOTHER_COMPILER: f64 = 0.25;

const HEADER: &str = "\
# Instructions per operation of the hot paths, counted by valgrind's callgrind. Compared by
# `.ci/run instructions`; written by
# `cargo run --profile instructions -p nephrite-instructions --
# record crates/instructions/counts.txt`.
";

/// Instructions per operation, by path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counts {
    compiler: String,
    paths: Vec<(String, f64)>,
}

impl Counts {
    pub(crate) fn new(compiler: impl Into<String>) -> Self {
        Self { compiler: compiler.into(), paths: Vec::new() }
    }

    pub(crate) fn push(&mut self, name: &str, instructions: f64) {
        self.paths.push((name.to_owned(), instructions));
    }

    fn find(&self, name: &str) -> Option<f64> {
        self.paths.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
    }

    /// What became of every recorded path, and of those that are new.
    pub(crate) fn compare(&self, counted: &Self) -> Report {
        let same_compiler = self.compiler == counted.compiler;
        let tolerance = if same_compiler { TOLERANCE } else { TOLERANCE_OF_ANOTHER_COMPILER };
        let mut lines: Vec<Line> = self
            .paths
            .iter()
            .map(|(name, recorded)| Line {
                name: name.clone(),
                recorded: Some(*recorded),
                counted: counted.find(name),
            })
            .collect();
        let new = counted.paths.iter().filter(|(name, _)| self.find(name).is_none());
        lines.extend(new.map(|(name, count)| Line {
            name: name.clone(),
            recorded: None,
            counted: Some(*count),
        }));
        let compilers = (!same_compiler).then(|| (self.compiler.clone(), counted.compiler.clone()));
        Report { tolerance, compilers, lines }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}compiler\t{}", self.compiler)?;
        self.paths.iter().try_for_each(|(name, count)| writeln!(f, "{name}\t{count:.1}"))
    }
}

impl FromStr for Counts {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().and_then(|line| line.strip_prefix("compiler\t"));
        let mut counts = Self::new(compiler.ok_or("the first line does not name the compiler")?);
        for line in lines {
            let (name, count) = line.split_once('\t').ok_or_else(|| format!("`{line}`: no tab"))?;
            let count: f64 = count.parse().map_err(|error| format!("`{line}`: {error}"))?;
            if !count.is_finite() || count <= 0.0 {
                return Err(format!("`{line}`: no count").into());
            }
            counts.push(name, count);
        }
        Ok(counts)
    }
}

/// The comparison, to be printed.
#[derive(Debug)]
pub(crate) struct Report {
    tolerance: f64,
    /// Recorded and present, where they differ.
    compilers: Option<(String, String)>,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    name: String,
    recorded: Option<f64>,
    counted: Option<f64>,
}

impl Line {
    /// What is to be said of it, and whether it holds.
    fn verdict(&self, tolerance: f64) -> (&'static str, bool) {
        let writes = self.name.starts_with("put");
        let tolerance = if writes { tolerance.max(TOLERANCE_OF_WRITES) } else { tolerance };
        match (self.recorded, self.counted) {
            (Some(recorded), Some(counted)) if recorded * (1.0 + tolerance) < counted => {
                ("MORE THAN ALLOWED", false)
            }
            (Some(recorded), Some(counted)) if counted < recorded * (1.0 - tolerance) => {
                ("fewer: record it anew", true)
            }
            (Some(_), Some(_)) => ("", true),
            (Some(_), None) => ("NOT COUNTED ANY MORE", false),
            (None, _) => ("NOT RECORDED", false),
        }
    }
}

impl Report {
    /// Whether no path takes more than it may, and all are recorded.
    pub(crate) fn holds(&self) -> bool {
        self.lines.iter().all(|line| line.verdict(self.tolerance).1)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((recorded, present)) = &self.compilers {
            writeln!(f, "recorded with {recorded}, counted with {present}: a wider tolerance")?;
        }
        let percent = self.tolerance * 100.0;
        write!(f, "{:24} {:>10} {:>10}  tolerance {percent:.0} %", "", "recorded", "counted")?;
        let count =
            |count: Option<f64>| count.map_or_else(|| "-".to_owned(), |it| format!("{it:.1}"));
        for line in &self.lines {
            let change = line.recorded.zip(line.counted).map_or_else(String::new, |(was, is)| {
                format!("{:+.1} %", (is / was - 1.0) * 100.0)
            });
            let (recorded, counted) = (count(line.recorded), count(line.counted));
            let verdict = line.verdict(self.tolerance).0;
            let name = &line.name;
            write!(f, "\n{name:24} {recorded:>10} {counted:>10} {change:>8}  {verdict}")?;
        }
        Ok(())
    }
}

/// The compiler of this machine, as it names itself.
pub(crate) fn compiler() -> Result<String, Failure> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("asking rustc for its version: {error}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(compiler: &str, paths: &[(&str, f64)]) -> Counts {
        let mut counts = Counts::new(compiler);
        paths.iter().for_each(|(name, count)| counts.push(name, *count));
        counts
    }

    #[test]
    fn what_is_written_is_read_back() {
        let written = counts("rustc 1", &[("get dense", 120.5), ("put", 900.0)]);
        let read: Counts = written.to_string().parse().expect("it was just written");
        assert_eq!(read, written);
    }

    #[test]
    fn the_recorded_counts_can_be_read() {
        let recorded: Counts =
            include_str!("../counts.txt").parse().expect("the file in the repository is whole");
        assert!(recorded.find("get dense").is_some());
    }

    #[test]
    fn more_than_the_tolerance_fails_and_less_does_not() {
        let recorded = counts("rustc 1", &[("get", 100.0)]);
        for (counted, holds) in [(102.0, true), (105.0, false), (50.0, true)] {
            let report = recorded.compare(&counts("rustc 1", &[("get", counted)]));
            assert_eq!(report.holds(), holds, "{report}");
        }
    }

    #[test]
    fn writes_may_differ_more() {
        let recorded = counts("rustc 1", &[("put_many(1000)", 100.0)]);
        for (counted, holds) in [(119.0, true), (121.0, false)] {
            let report = recorded.compare(&counts("rustc 1", &[("put_many(1000)", counted)]));
            assert_eq!(report.holds(), holds, "{report}");
        }
    }

    #[test]
    fn another_compiler_gets_a_wider_tolerance() {
        let recorded = counts("rustc 1", &[("get", 100.0)]);
        for (counted, holds) in [(120.0, true), (130.0, false)] {
            let report = recorded.compare(&counts("rustc 2", &[("get", counted)]));
            assert_eq!(report.holds(), holds, "{report}");
            assert!(report.to_string().contains("recorded with rustc 1"), "{report}");
        }
    }

    #[test]
    fn paths_that_come_or_go_fail() {
        let (one, two) = (counts("r", &[("get", 1.0)]), counts("r", &[("get", 1.0), ("put", 1.0)]));
        assert!(!one.compare(&two).holds());
        assert!(!two.compare(&one).holds());
    }

    #[test]
    fn damaged_files_are_refused() {
        for text in ["", "get\t1\n", "compiler\tr\nget 1\n", "compiler\tr\nget\t0\n"] {
            assert!(text.parse::<Counts>().is_err(), "{text:?}");
        }
    }
}
