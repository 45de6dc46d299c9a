//! The table of ratios against the bars, and the plot of them.

use std::fmt::Write as _;

use crate::bars::{BARS, Bar, MEMORY};
use crate::data::Set;
use crate::program::OURS;
use crate::rows::Rows;

/// Ours over the best of the others, with who that was and how far the ratio goes by the rounds' extremes.
struct Ratio {
    ratio: f64,
    /// Our fastest round over their slowest, our slowest over their fastest.
    spread: (f64, f64),
    best: &'static str,
    most: Option<f64>,
}

fn ratio(rows: &Rows, bar: &Bar, set: Set) -> Option<Ratio> {
    let ours = rows.of(set, bar.step, OURS, bar.quantity)?;
    let others = rows.programs(set, bar.step).filter(|program| bar.with.contains(program));
    let medians =
        others.filter_map(|program| Some((program, rows.of(set, bar.step, program, bar.quantity)?)));
    let (best, theirs) = medians.min_by(|(_, one), (_, other)| one[1].total_cmp(&other[1]))?;
    let spread = (ours[0] / theirs[2], ours[2] / theirs[0]);
    Some(Ratio { ratio: ours[1] / theirs[1], spread, best, most: bar.most[set as usize] })
}

/// Markdown: a line a bar, a column a set; a missed bar is bold.
pub fn table(rows: &Rows) -> String {
    let mut text =
        String::from("| ours over the best | S1 | S2 | S3 | S4 | S5 |\n|---|---|---|---|---|---|\n");
    for bar in &BARS {
        let _ = write!(text, "| {} |", bar.name);
        for set in Set::ALL {
            let cell = ratio(rows, bar, set).map_or_else(|| "-".to_owned(), |ratio| cell(&ratio));
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    let _ = write!(text, "| memory, agent + server (MiB; at most {:.0} + {:.0}) |", MEMORY.0, MEMORY.1);
    for set in Set::ALL {
        let cell = rows.peak(set, OURS).map_or_else(
            || "-".to_owned(),
            |(agent, server)| {
                mark(&format!("{agent:.0} + {server:.0}"), agent > MEMORY.0 || server > MEMORY.1)
            },
        );
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
    text
}

fn cell(ratio: &Ratio) -> String {
    let Ratio { ratio, spread, best, most } = ratio;
    let asked = most.map_or_else(String::new, |most| format!(", bar {most}"));
    let text = format!("{ratio:.2} ({:.2}-{:.2}) of {best}{asked}", spread.0, spread.1);
    mark(&text, most.is_some_and(|most| *ratio > most))
}

fn mark(text: &str, missed: bool) -> String {
    if missed { format!("**{text}**") } else { text.to_owned() }
}

/// Heights and widths in pixels.
const LINE: usize = 18;
const LEFT: usize = 320;
const UNIT: f64 = 300.0;
const WIDTH: usize = 900;

/// A bar for each cell of the table, with a mark where it may end.
pub fn plot(rows: &Rows) -> String {
    let mut body = String::new();
    let mut y = 40;
    for bar in &BARS {
        for set in Set::ALL {
            let Some(ratio) = ratio(rows, bar, set) else { continue };
            let missed = ratio.most.is_some_and(|most| ratio.ratio > most);
            let colour = if missed { "#d55e00" } else { "#0072b2" };
            let length = (ratio.ratio * UNIT).min((WIDTH - LEFT - 60) as f64);
            let text_y = y + LINE - 5;
            let name = bar.name.replace('|', "&#124;");
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{text_y}" text-anchor="end">{name}, {}</text>"#,
                LEFT - 8,
                set.name()
            );
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y}" width="{length:.1}" height="{}" fill="{colour}"/>"#,
                LINE - 4
            );
            let end = LEFT as f64 + length + 6.0;
            let _ =
                writeln!(body, r#"<text x="{end:.1}" y="{text_y}">{:.2} {}</text>"#, ratio.ratio, ratio.best);
            if let Some(most) = ratio.most {
                let x = LEFT as f64 + most * UNIT;
                let _ = writeln!(
                    body,
                    r#"<line x1="{x:.1}" y1="{}" x2="{x:.1}" y2="{}" stroke="black" stroke-width="2"/>"#,
                    y - 2,
                    y + LINE - 2
                );
            }
            y += LINE;
        }
    }
    let height = y + 20;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"22\" font-size=\"14\">Backhaul over the best of the others: shorter is better; the black mark is the bar</text>\n{body}</svg>\n"
    )
}
