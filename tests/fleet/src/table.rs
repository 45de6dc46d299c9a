//! Tables: of desktops, of laptops, of the server.

use crate::arm::Arm;
use crate::case::Case;
use crate::matrix::{COLUMNS, MISSED, Result, Results, Runs, SERVER, Waits};
use crate::stats::{Mean, mean, median};

/// How tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Aligned columns.
    Text,
    /// Markdown.
    Markdown,
}

/// All tables of a case. The same results give the same text.
pub fn tables(case: &Case, results: &Results, style: Style) -> String {
    let seeds = seeds(results);
    let counted = case.days - case.warm_up;
    let mut text = format!(
        "{}: {} desktops, {} laptops, {} slots, {counted} days counted, {seeds} seeds; mean ± 95 % interval\n",
        case.name, case.desktops, case.laptops, case.slots
    );
    for (class, title) in [(1, "laptops"), (0, "desktops")] {
        let mut rows = vec![head(title, COLUMNS.map(|(name, ..)| name).as_slice())];
        for (arm, results) in results {
            let cells = (0..COLUMNS.len()).map(|column| cell(results, class, column));
            rows.push(std::iter::once(name(*arm, results.len(), seeds)).chain(cells).collect());
        }
        text += &write(&rows, style);
    }
    let mut rows = vec![head("server", SERVER.map(|(name, _)| name).as_slice())];
    for (arm, results) in results {
        let of = |column: usize| results.iter().map(|result| result.server[column]).collect::<Vec<f64>>();
        let cells = (0..SERVER.len()).map(|column| number(mean(&of(column)), SERVER[column].1));
        rows.push(std::iter::once(name(*arm, results.len(), seeds)).chain(cells).collect());
    }
    text + &write(&rows, style)
}

/// Points of missed days that each arm has more than hybrid, seed by seed: the same people, the same networks, the same faults.
pub fn differences(runs: &Runs, style: Style) -> String {
    let names = ["missed %, more than hybrid", "laptops", "desktops", "seeds in common"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    for arm in Arm::ALL.into_iter().filter(|arm| *arm != Arm::Hybrid) {
        let pairs = runs.iter().filter(|((of, _), _)| *of == arm);
        let pairs: Vec<(&Result, &Result)> = pairs
            .filter_map(|((_, seed), result)| Some((result, runs.get(&(Arm::Hybrid, *seed))?)))
            .collect();
        let more = |class: usize| {
            let missed = |result: &Result| result.kinds[class].values[MISSED];
            mean(&pairs.iter().map(|(one, hybrid)| missed(one) - missed(hybrid)).collect::<Vec<f64>>())
        };
        if !pairs.is_empty() {
            let cells = [number(more(1), 2), number(more(0), 2), pairs.len().to_string()];
            rows.push(std::iter::once(arm.name().to_owned()).chain(cells).collect());
        }
    }
    if rows.len() == 1 { String::new() } else { write(&rows, style) }
}

fn seeds(results: &Results) -> usize {
    results.values().map(Vec::len).max().unwrap_or(0)
}

/// An arm's name, and how many seeds it has if others have more.
fn name(arm: Arm, seeds: usize, most: usize) -> String {
    if seeds == most { arm.name().to_owned() } else { format!("{} ({seeds} seeds)", arm.name()) }
}

/// How fast the scheduler was, by arm. Not the same twice.
pub fn speeds(results: &Results) -> String {
    let mut text = String::from("scheduler events a second on one core, median over seeds:\n");
    for (arm, results) in results {
        let speeds: Vec<f64> = results.iter().map(|result| result.speed).collect();
        text += &format!("  {:<22}{:>10.0}\n", arm.name(), median(&speeds));
    }
    text
}

fn head(title: &str, names: &[&str]) -> Vec<String> {
    std::iter::once(&title).chain(names).map(|name| (*name).to_owned()).collect()
}

fn cell(results: &[Result], class: usize, column: usize) -> String {
    let (_, digits, waits) = COLUMNS[column];
    let saturated = results.iter().filter(|result| result.is_saturated()).count();
    if waits == Waits::Yes && 2 * saturated > results.len() {
        return "saturated".to_owned();
    }
    let values: Vec<f64> = results.iter().map(|result| result.kinds[class].values[column]).collect();
    number(mean(&values), digits)
}

fn number(of: Mean, digits: usize) -> String {
    match of.half {
        Some(half) => format!("{:.digits$} ±{half:.digits$}", of.mean),
        None => format!("{:.digits$}", of.mean),
    }
}

fn write(rows: &[Vec<String>], style: Style) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::from("\n");
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let pad = " ".repeat(width - cell.chars().count());
                if column == 0 { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
            })
            .collect();
        match style {
            Style::Text => text += &format!("{}\n", cells.join("  ").trim_end()),
            Style::Markdown => {
                text += &format!("| {} |\n", cells.join(" | "));
                if index == 0 {
                    let lines: Vec<&str> = row
                        .iter()
                        .enumerate()
                        .map(|(column, _)| if column == 0 { "---" } else { "--:" })
                        .collect();
                    text += &format!("|{}|\n", lines.join("|"));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Faults;
    use crate::matrix;

    #[test]
    fn arms_are_compared_seed_by_seed() {
        let case = Case { desktops: 4, laptops: 8, days: 4, faults: Faults::Off, ..Case::seed() };
        let quiet = |_: Arm, _: u64, _: &Result| {};
        let mut runs = matrix::run(&case, &[Arm::Hybrid, Arm::ServerDial], 3, 1, Runs::new(), &quiet);
        let missed = |runs: &Runs, arm: Arm, seed: u64| runs[&(arm, seed)].kinds[1].values[MISSED];
        runs.remove(&(Arm::Hybrid, 2));
        let more = [1, 3].map(|seed| missed(&runs, Arm::ServerDial, seed) - missed(&runs, Arm::Hybrid, seed));
        let said = differences(&runs, Style::Markdown);
        let expected = format!("| server dials               | {} |", number(mean(&more), 2));
        assert!(said.contains(&expected) && said.trim_end().ends_with("2 |"), "{said}, not {expected}");
        runs.retain(|(arm, _), _| *arm == Arm::ServerDial);
        assert_eq!(differences(&runs, Style::Text), "");
    }
}
