//! Plots as SVG: lines over two axes, nothing else.

use crate::matrix::{POINTS, Results};
use crate::tally::SAMPLES;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
/// Left, top, right, bottom.
const MARGIN: [f64; 4] = [60.0, 40.0, 200.0, 50.0];
/// Colours that the colour-blind can tell apart (Okabe and Ito 2008), twice: the second time dashed.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it, with its marks.
    pub across: (String, Vec<f64>),
    /// Beside it, with its marks.
    pub up: (String, Vec<f64>),
    /// The lines.
    pub lines: Vec<Line>,
}

/// Staleness of laptops at the end of online stretches, by cumulated share of stretches, all arms.
pub fn staleness(name: &str, results: &Results) -> Plot {
    let lines = results.iter().map(|(arm, results)| {
        let mean = |point: usize| {
            results.iter().map(|result| result.kinds[1].staleness[point]).sum::<f64>() / results.len() as f64
        };
        let points =
            (0..POINTS).map(|point| (mean(point).min(96.0), 100.0 * point as f64 / (POINTS - 1) as f64));
        Line { name: arm.name().to_owned(), points: points.collect() }
    });
    Plot {
        title: format!("{name}: age of a laptop's newest snapshot when it goes offline"),
        across: (
            "hours (96 and more at the edge)".to_owned(),
            (0..=8).map(|mark| f64::from(mark) * 12.0).collect(),
        ),
        up: ("% of online stretches".to_owned(), (0..=5).map(|mark| f64::from(mark) * 20.0).collect()),
        lines: lines.collect(),
    }
}

/// Runs and waiting clients over a working day, mean over days and seeds.
pub fn load(name: &str, results: &Results) -> Plot {
    let mut lines = Vec::new();
    for (arm, results) in results {
        let mean = |sample: usize, of: fn(&(f64, f64)) -> f64| {
            results.iter().map(|result| of(&result.load[sample])).sum::<f64>() / results.len() as f64
        };
        let hour = |sample: usize| sample as f64 * 24.0 / SAMPLES as f64;
        let mut line = |what: &str, of: fn(&(f64, f64)) -> f64| {
            let points = (0..SAMPLES).map(|sample| (hour(sample), mean(sample, of))).collect();
            lines.push(Line { name: format!("{}: {what}", arm.name()), points });
        };
        line("running", |load| load.0);
        line("waiting", |load| load.1);
    }
    let top = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(1.0, f64::max);
    let step = nice(top / 5.0);
    Plot {
        title: format!("{name}: the server over a working day"),
        across: ("hour of the day".to_owned(), (0..=8).map(|mark| f64::from(mark) * 3.0).collect()),
        up: (
            "clients".to_owned(),
            (0..=(top / step).ceil() as u32).map(|mark| f64::from(mark) * step).collect(),
        ),
        lines,
    }
}

/// 1, 2 or 5 times a power of ten, not less.
fn nice(step: f64) -> f64 {
    let ten = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * ten).find(|nice| *nice >= step).unwrap_or(step)
}

/// The picture.
pub fn svg(plot: &Plot) -> String {
    let [left, top, right, bottom] = MARGIN;
    let (wide, high) = (WIDTH - left - right, HEIGHT - top - bottom);
    let end = |marks: &[f64]| marks.last().copied().unwrap_or(1.0).max(1e-9);
    let x = |value: f64| left + wide * value / end(&plot.across.1);
    let y = |value: f64| top + high * (1.0 - value / end(&plot.up.1));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"22\" font-size=\"15\">{}</text>\n",
        plot.title
    );
    for mark in &plot.across.1 {
        let at = x(*mark);
        svg += &format!(
            "<path d=\"M{at:.1} {top}v{high}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{mark}</text>\n",
            top + high + 18.0
        );
    }
    for mark in &plot.up.1 {
        let at = y(*mark);
        svg += &format!(
            "<path d=\"M{left} {at:.1}h{wide}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mark}</text>\n",
            left - 6.0,
            at + 4.0
        );
    }
    let (middle, below) = (left + wide / 2.0, HEIGHT - 10.0);
    svg += &format!("<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>\n", plot.across.0);
    let beside = top + high / 2.0;
    svg += &format!(
        "<text x=\"16\" y=\"{beside}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {beside})\">{}</text>\n",
        plot.up.0
    );
    for (number, line) in plot.lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let dash = if number < COLOURS.len() { "" } else { " stroke-dasharray=\"5 3\"" };
        let points: Vec<String> =
            line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        svg += &format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dash} points=\"{}\"/>\n",
            points.join(" ")
        );
        let (from, at) = (left + wide + 12.0, top + 8.0 + 18.0 * number as f64);
        svg += &format!(
            "<path d=\"M{from} {at}h24\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><text x=\"{}\" y=\"{}\">{}</text>\n",
            from + 30.0,
            at + 4.0,
            line.name
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!([nice(0.7), nice(1.0), nice(3.1), nice(60.0)], [1.0, 1.0, 5.0, 100.0]);
    }
}
