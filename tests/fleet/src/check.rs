//! A short run that must come out as promised.

use std::collections::BTreeMap;

use crate::arm::Arm;
use crate::case::{Case, Faults};
use crate::matrix::{self, MISSED, Result, Results, Runs, results};
use crate::table::{Style, tables};

/// Share of client-days, in percent, that may differ though nothing but times should.
pub const NOISE: f64 = 1.0;

/// Something that was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub promise: &'static str,
    /// With numbers.
    pub found: String,
    /// It is so.
    pub holds: bool,
}

/// Runs a few days of the seed case with fixed seeds.
pub fn check() -> Vec<Finding> {
    let case = Case { days: 5, warm_up: 1, faults: Faults::Off, name: "check".to_owned(), ..Case::seed() };
    let quiet = |_: Arm, _: u64, _: &Result| {};
    let run = |case: &Case, arms: &[Arm]| results(matrix::run(case, arms, 1, 2, Runs::new(), &quiet));
    let results = run(&case, &[Arm::Hybrid, Arm::NoNudge, Arm::Poll60]);
    let again = run(&case, &[Arm::Hybrid]);
    let (Some(hybrid), Some(deaf), Some(polled)) =
        (one(&results, Arm::Hybrid), one(&results, Arm::NoNudge), one(&results, Arm::Poll60))
    else {
        return vec![Finding { promise: "every arm ends", found: "one did not".to_owned(), holds: false }];
    };
    let missed = |result: &Result, class: usize| result.kinds[class].values[MISSED];
    let peak = results.values().flatten().map(|result| result.server[1]).fold(0.0, f64::max);
    let differ = difference(hybrid, deaf);
    let only: Results = BTreeMap::from([(Arm::Hybrid, vec![hybrid.clone()])]);
    let same = tables(&case, &only, Style::Text) == tables(&case, &again, Style::Text);
    let mut faulty = case.clone();
    faulty.faults = Faults::On;
    let broken = run(&faulty, &[Arm::Hybrid]);
    let survived = one(&broken, Arm::Hybrid).map_or(100.0, |result| missed(result, 0));
    vec![
        finding("never more runs than slots", format!("{peak} of {}", case.slots), peak <= case.slots as f64),
        finding(
            "without any nudge the same machines are protected on the same days",
            format!("{differ:.2} % of client-days differ"),
            differ <= NOISE,
        ),
        finding(
            "hybrid leaves no more laptop-days unprotected than polling every hour",
            format!("{:.2} % and {:.2} %", missed(hybrid, 1), missed(polled, 1)),
            missed(hybrid, 1) <= missed(polled, 1),
        ),
        finding(
            "hybrid misses no desktop-day",
            format!("{:.2} %", missed(hybrid, 0)),
            missed(hybrid, 0) == 0.0,
        ),
        finding("the same seed gives the same table", format!("{same}"), same),
        finding(
            "a crash of the server and failing runs cost few desktop-days",
            format!("{survived:.2} %"),
            survived <= 2.0,
        ),
    ]
}

fn finding(promise: &'static str, found: String, holds: bool) -> Finding {
    Finding { promise, found, holds }
}

fn one(results: &Results, arm: Arm) -> Option<&Result> {
    results.get(&arm)?.first()
}

/// Percent of client-days that were protected in one run and not in the other.
fn difference(one: &Result, other: &Result) -> f64 {
    let days = one.protected.iter().flatten().zip(other.protected.iter().flatten());
    let days: Vec<bool> = days.filter_map(|(one, other)| Some((*one)? != (*other)?)).collect();
    100.0 * days.iter().filter(|differs| **differs).count() as f64 / days.len().max(1) as f64
}
