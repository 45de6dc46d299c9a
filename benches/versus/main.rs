//! Backhaul beside the programs that people would choose instead, in turn on the same data: every step of a backup's
//! life, its time, processor time, memory, and what it leaves on the disk; against the bars that we have set ourselves.
//!
//! `cargo run --release -p backhaul-benches --bin versus -- --data /big/disk/data --sets S1,S5 --rounds 3` measures what
//! is on the PATH of restic, rustic, borg and bupstash, and the plain tools tar, zstd, cp and rsync. The sets are made
//! from packages of Debian and PyPI on first use (`benches/datasets/datasets.sh` says of what; about 9 GB for all five).
//!
//! - [`data`]: the sets. - [`program`]: who is measured, and by which commands. - [`measure`]: one step of one program.
//! - [`memory`]: of which nobody finds more or less than the others.
//! - [`rows`]: what was measured, and its medians. - [`bars`]: what is asked of each step. - [`report`]: table and plot.
//!
//! In each round every program does a step before any does the next one, so that what a shared machine does meanwhile
//! falls on all; and each step is begun by another. Sources are in the page cache, free memory is taken, and everything is written back before a
//! step begins; none waits until its own is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark ends at the first surprise, and reports on standard output"
)]

mod bars;
mod data;
mod measure;
mod memory;
mod program;
mod report;
mod rows;

use std::path::PathBuf;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use data::{Datasets, Set};
use memory::Memory;
use program::Program;
use rows::{Row, Rows};

/// A step of a backup's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// Into an empty repository.
    First,
    /// Nothing has changed.
    Again,
    /// The second day; of the daily versions, all further days together.
    Churn,
    /// Everything, into an empty folder.
    Restore,
    /// The program's own check, reading everything.
    Check,
    /// Nothing has changed, but what the client remembered is lost.
    Lost,
}

impl Step {
    /// In the order in which they are done.
    const ALL: [Self; 6] = [Self::First, Self::Again, Self::Churn, Self::Restore, Self::Check, Self::Lost];

    fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Again => "again",
            Self::Churn => "churn",
            Self::Restore => "restore",
            Self::Check => "check",
            Self::Lost => "lost",
        }
    }
}

/// Measures Backhaul beside other programs.
#[derive(Debug, Parser)]
struct Args {
    /// The folder of the data sets; what is not there is made.
    #[arg(long)]
    data: PathBuf,
    /// Which sets: S1 to S5.
    #[arg(long, value_delimiter = ',', default_value = "S1")]
    sets: Vec<Set>,
    /// How often everything is done.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How often a backup of what has not changed is repeated in a round.
    #[arg(long, default_value_t = 3)]
    again: usize,
    /// Only these programs, by name; all that are here otherwise.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(program::names()))]
    programs: Vec<String>,
    /// A folder for repositories and restores, on the disk that is to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Writes the plot here, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
}

fn main() {
    let args = Args::parse();
    let datasets = Datasets::new(&args.data);
    let (mut rows, mut memory) = (Rows::default(), Memory::new(&args.data));
    println!("{}", Row::HEADER);
    for &set in &args.sets {
        for round in 1..=args.rounds {
            run(&args, &datasets, (set, round), &mut memory, &mut rows);
        }
    }
    println!("\n{}", report::table(&rows));
    if let Some(path) = &args.plot {
        std::fs::write(path, report::plot(&rows)).unwrap();
    }
}

/// How long a set lies untouched before its first backup.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(61);

/// One round over one set.
fn run(args: &Args, datasets: &Datasets, (set, round): (Set, usize), memory: &mut Memory, rows: &mut Rows) {
    datasets.first_day(set);
    // A change less than a minute old proves nothing by its time, and its file is read again: nobody's files are all so new.
    std::thread::sleep(SETTLED);
    let live = datasets.live(set);
    let scratch = tempfile::tempdir_in(&args.scratch).unwrap();
    let wanted = |name: &str| args.programs.is_empty() || args.programs.iter().any(|one| one == name);
    let mut programs: Vec<Box<dyn Program>> = program::all(scratch.path(), &live, &wanted);
    assert!(!programs.is_empty(), "none of these programs is here: {}", args.programs.join(", "));
    let begins = round % programs.len();
    programs.rotate_left(begins);
    for step in Step::ALL {
        let turns = match step {
            Step::Again => args.again,
            Step::Churn => datasets.further_days(set),
            _ => 1,
        };
        for turn in 0..turns {
            if step == Step::Churn {
                datasets.next_day(set, turn);
            }
            for program in &mut programs {
                let measured = measure::step(program.as_mut(), step, &live, memory);
                if let Some(measured) = measured {
                    let row = Row { program: program.name(), set, step, round, measured };
                    println!("{row}");
                    rows.add(row);
                }
            }
            // Whoever is first in a step pays for what the one before has left.
            programs.rotate_left(1);
        }
    }
    datasets.revert(set);
}
