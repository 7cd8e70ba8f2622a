//! Line plots as SVG: axes with round numbers, one line for each series, a legend.
//!
//! Written by hand, since a plot of two axes is all that is needed. The text is well-formed XML.
//! Checked by: the tests below, and `tests/it/bench.rs` over a whole report.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// Colours that people who see few colours tell apart.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f"];

/// One line of a plot.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A scale from data to pixels, with the places that are labelled.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) marks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 up to a round number.
    pub(super) fn linear(title: &'static str, high: f64, label: fn(f64) -> String) -> Self {
        let step = round_step(high / 5.0);
        let count = (high / step).ceil().max(1.0);
        let mut marks = Vec::new();
        let mut mark = 0.0;
        while mark <= count {
            marks.push((mark * step, label(mark * step)));
            mark += 1.0;
        }
        Self { title, low: 0.0, high: count * step, marks }
    }

    /// Powers of ten around the values, for data that are already logarithms to base 10.
    pub(super) fn powers(
        title: &'static str,
        low: f64,
        high: f64,
        label: fn(f64) -> String,
    ) -> Self {
        let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
        let mut marks = Vec::new();
        let mut power = low;
        while power <= high {
            marks.push((power, label(power)));
            power += 1.0;
        }
        Self { title, low, high, marks }
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, not below the value.
fn round_step(value: f64) -> f64 {
    if !value.is_normal() || value < 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| value <= factor * power);
    factor.unwrap_or(10.0) * power
}

/// One plot.
pub(super) fn plot(label: &str, across: &Axis, up: &Axis, series: &[Series]) -> String {
    let x = |value: f64| LEFT + across.share(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - up.share(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{}\">\n",
        escape(label)
    );
    let mut line = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    for (value, text) in &across.marks {
        let (at, low) = (x(*value), HEIGHT - BOTTOM);
        line(format!(
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{low}\"/>"
        ));
        line(text_at(at, low + 16.0, "middle", text));
    }
    for (value, text) in &up.marks {
        let (at, right) = (y(*value), WIDTH - RIGHT);
        line(format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>"
        ));
        line(text_at(LEFT - 8.0, at + 4.0, "end", text));
    }
    line(text_at((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", across.title));
    line(format!(
        "<text class=\"label\" text-anchor=\"middle\" transform=\"translate(14 {:.1}) \
         rotate(-90)\">{}</text>",
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(up.title)
    ));
    for (number, of_one) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points = of_one.points.iter().fold(String::new(), |mut text, point| {
            // A text in memory takes everything.
            let _never_fails = write!(text, "{:.1},{:.1} ", x(point.0), y(point.1));
            text
        });
        line(format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.trim_end()
        ));
        let (at, left) = (TOP + 14.0 + 20.0 * number as f64, WIDTH - RIGHT + 12.0);
        line(format!(
            "<rect x=\"{left}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
            at - 5.0
        ));
        line(text_at(left + 20.0, at, "start", &of_one.name));
    }
    svg.push_str("</svg>\n");
    svg
}

fn text_at(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(
        "<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(text)
    )
}

/// A text as it stands in HTML and XML.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        for (value, step) in [(0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (30.0, 50.0), (600.0, 1000.0)] {
            assert!((round_step(value) - step).abs() < 1e-9 * step, "{value}");
        }
        for odd in [0.0, f64::NAN, f64::INFINITY, -1.0] {
            assert!((round_step(odd) - 1.0).abs() < f64::EPSILON, "{odd}");
        }
    }

    #[test]
    fn a_plot_has_its_lines_and_stays_in_its_frame() {
        let label = |value: f64| format!("{value:.0}");
        let across = Axis::linear("seconds", 9.0, label);
        let up = Axis::powers("latency", 2.3, 5.1, label);
        let points = vec![(0.0, 2.3), (9.0, 5.1), (1e9, 99.0)];
        let name = "a < b & \"c\"".to_owned();
        let svg = plot("two & two", &across, &up, &[Series { name, points }]);
        assert_eq!((across.high, up.low, up.high), (10.0, 2.0, 6.0));
        assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("two &amp; two"));
        let last = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(last.ends_with("690.0,16.0"), "a point beyond the axes stays at their end: {last}");
    }
}
