//! What was measured, and its medians.

use std::collections::BTreeMap;
use std::fmt;

use crate::Step;
use crate::data::Set;
use crate::measure::Measured;

/// One step of one program in one round.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub program: &'static str,
    pub set: Set,
    pub step: Step,
    pub round: usize,
    pub measured: Measured,
}

impl Row {
    pub const HEADER: &str = "program\tset\tstep\tround\twall_s\tcpu_s\tpeak_MiB\tserver_MiB\trepository_MB\tfiles\tadded_MB\tsent_MB";
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { seconds, cpu, peak, server_peak, repository, files, added, sent } = self.measured;
        let (set, step) = (self.set.name(), self.step.name());
        write!(f, "{}\t{set}\t{step}\t{}\t{seconds:.3}\t{cpu:.2}\t{peak:.0}\t", self.program, self.round)?;
        let [repository, added, sent] =
            [repository as f64, added as f64, sent as f64].map(|bytes| bytes / 1e6);
        write!(f, "{server_peak:.0}\t{repository:.2}\t{files}\t{added:.3}\t{sent:.3}")
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Seconds.
    Wall,
    /// Bytes that a step added to the repository. After the first backup that is what is in it but for what an empty
    /// one has: ours keeps 32 MiB in reserve, so that things can be deleted on a full disk.
    Added,
}

/// Everything that was measured.
#[derive(Default)]
pub struct Rows {
    of: BTreeMap<(Set, Step, &'static str), Vec<Row>>,
}

impl Rows {
    pub fn add(&mut self, row: Row) {
        self.of.entry((row.set, row.step, row.program)).or_default().push(row);
    }

    /// Smallest, median and largest over the rounds; each round's own value is the sum over its days where a step is
    /// several days long, and the median of its repetitions otherwise.
    pub fn of(&self, set: Set, step: Step, program: &str, quantity: Quantity) -> Option<[f64; 3]> {
        let rows = self.of.iter().find(|((s, t, p), _)| (*s, *t, *p) == (set, step, program))?.1;
        let mut rounds: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for row in rows {
            let value = match quantity {
                Quantity::Wall => row.measured.seconds,
                Quantity::Added => row.measured.added as f64,
            };
            rounds.entry(row.round).or_default().push(value);
        }
        let whole = |values: Vec<f64>| if step == Step::Churn { values.iter().sum() } else { median(values) };
        let mut values: Vec<f64> = rounds.into_values().map(whole).collect();
        values.sort_by(f64::total_cmp);
        Some([*values.first()?, median(values.clone()), *values.last()?])
    }

    /// The programs that did a step.
    pub fn programs(&self, set: Set, step: Step) -> impl Iterator<Item = &'static str> + '_ {
        self.of.keys().filter(move |(s, t, _)| (*s, *t) == (set, step)).map(|(_, _, program)| *program)
    }

    /// The largest memory that a program took in any step of a set: its own, and its server's. In MiB.
    pub fn peak(&self, set: Set, program: &str) -> Option<(f64, f64)> {
        let rows =
            self.of.iter().filter(|((s, _, p), _)| (*s, *p) == (set, program)).flat_map(|(_, rows)| rows);
        rows.map(|row| (row.measured.peak, row.measured.server_peak))
            .reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
