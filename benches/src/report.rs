//! What a run prints: a line about the machine and a table of figures, or the same as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::table::Table;

/// Repeated measurements of one thing.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    samples: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str) -> Self {
        Self { name: name.into(), unit, samples: Vec::new() }
    }

    pub(crate) fn push(&mut self, sample: f64) {
        self.samples.push(sample);
    }

    /// Whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Sample by sample, this divided by `baseline`: each pair was measured side by side.
    pub(crate) fn ratio_to(&self, baseline: &Self, name: impl Into<String>) -> Self {
        let pairs = self.samples.iter().zip(&baseline.samples);
        Self {
            name: name.into(),
            unit: "x",
            samples: pairs.map(|(sample, base)| sample / base).collect(),
        }
    }

    /// The median, and the range it comes from when there are several samples.
    pub(crate) fn cell(&self) -> String {
        let (low, high) = self.spread();
        match self.samples.len() {
            0 => "-".to_owned(),
            1 => rounded(self.median()),
            _ => format!("{} ({}..{})", rounded(self.median()), rounded(low), rounded(high)),
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle sample; the upper one of two.
    pub(crate) fn median(&self) -> f64 {
        self.sorted().get(self.samples.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |sample: Option<&f64>| sample.copied().unwrap_or(f64::NAN);
        (end(sorted.first()), end(sorted.last()))
    }

    fn to_json(&self) -> Value {
        let (low, high) = self.spread();
        json!({
            "name": self.name,
            "unit": self.unit,
            "median": self.median(),
            "low": low,
            "high": high,
            "samples": self.samples,
        })
    }
}

/// Everything a run found out.
#[derive(Debug)]
pub(crate) struct Report {
    /// Names and values that say where this was measured.
    pub(crate) machine: Vec<(&'static str, String)>,
    pub(crate) figures: Vec<Figure>,
    /// The figures as tables, where a list would not be read; JSON has the figures only.
    pub(crate) tables: Vec<Table>,
}

impl Report {
    pub(crate) fn to_json(&self) -> Value {
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let figures: Vec<Value> = self.figures.iter().map(Figure::to_json).collect();
        json!({ "machine": machine, "figures": figures })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine: Vec<String> =
            self.machine.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        writeln!(f, "{}", machine.join(" | "))?;
        if !self.tables.is_empty() {
            return self.tables.iter().try_for_each(|table| write!(f, "\n{table}"));
        }
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        write!(f, "{:width$}  {:>12}  {:>25}  unit", "", "median", "low .. high")?;
        for figure in &self.figures {
            let (low, high) = figure.spread();
            let spread = format!("{} .. {}", rounded(low), rounded(high));
            let (median, unit) = (rounded(figure.median()), figure.unit);
            write!(f, "\n{:width$}  {median:>12}  {spread:>25}  {unit}", figure.name)?;
        }
        Ok(())
    }
}

/// Three or more digits that mean something.
fn rounded(value: f64) -> String {
    match value.abs() {
        size if 1000.0 <= size => grouped(value),
        size if 100.0 <= size => format!("{value:.0}"),
        size if 10.0 <= size => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// A large number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if 0 < position && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_spread_and_ratio() {
        let mut figure = Figure::new("a", "x");
        [3.0, 1.0, 2.0].into_iter().for_each(|sample| figure.push(sample));
        assert!((figure.median() - 2.0).abs() < f64::EPSILON);
        assert_eq!(figure.spread(), (1.0, 3.0));
        let ratio = figure.ratio_to(&figure.clone(), "r");
        assert_eq!(ratio.spread(), (1.0, 1.0));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(rounded(1_234_567.8), "1,234,568");
        assert_eq!(rounded(1000.0), "1,000");
        assert_eq!(rounded(12.34), "12.3");
        assert_eq!(rounded(0.1234), "0.123");
    }
}
