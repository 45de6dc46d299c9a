//! `month`: lets a repository be used for a month of simulated days, and restores all that is left of it.
#![allow(clippy::print_stdout, reason = "a command")]

use std::path::PathBuf;

use backhaul_tests::month::{Plan, live};
use clap::Parser;

const EXAMPLES: &str = "Example:
  cargo run --release -p backhaul-tests --bin month -- --days 30 /usr/share/doc /etc";

/// Backs trees up that change every day, with retention, reclaim and a check every night, by clocks that are ahead;
/// then restores every snapshot that is listed, and compares it with its tree as it was.
#[derive(Debug, Parser)]
#[command(name = "month", after_help = EXAMPLES)]
struct Args {
    /// Days that pass
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// Chooses what changes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Every n-th night the check reads all data
    #[arg(long, default_value_t = 5)]
    read_data_every: u32,
    /// Folders to begin with, one for each client; they are copied
    #[arg(required = true)]
    trees: Vec<PathBuf>,
}

fn main() {
    let Args { days, seed, read_data_every, trees } = Args::parse();
    let plan = Plan { days, seed, trees, read_data_every };
    match live(&plan, &mut std::io::stdout()) {
        Some(outcome) => println!("{outcome:?}"),
        None => std::process::exit(1),
    }
}
