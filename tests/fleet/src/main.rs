//! `fleet`: simulates a fleet and prints what each way of scheduling it comes to.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use backhaul_fleet_sim::arm::Arm;
use backhaul_fleet_sim::case::{Case, Faults};
use backhaul_fleet_sim::keep::Keep;
use backhaul_fleet_sim::matrix::Runs;
use backhaul_fleet_sim::table::{Style, differences, speeds, tables};
use backhaul_fleet_sim::{check, matrix, plot};
use clap::{Parser, ValueEnum};

const EXAMPLES: &str = "Examples:
  fleet                                        the seed case, all arms, 20 seeds
  fleet --case 10k --seeds 5 --arms hybrid,poll-60,server-dial
  fleet --laptops 500 --slots 20 --days 14 --markdown --out plots
  fleet --case 100k --days 3 --keep 100k.jsonl           stop it and start it again as you like
  fleet --check                                a short run that must come out as promised";

/// Simulates a fleet of machines in virtual time with Backhaul's own scheduler and agent, and compares ways of
/// scheduling it.
#[derive(Debug, Parser)]
#[command(name = "fleet", version, after_help = EXAMPLES)]
struct Args {
    /// How large a fleet; what follows changes it
    #[arg(long, value_enum, default_value = "seed")]
    case: Size,
    /// Seeds: each is a fleet with another history
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Ways of scheduling, separated by commas; all if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    arms: Vec<Arm>,
    /// Desktops
    #[arg(long)]
    desktops: Option<usize>,
    /// Laptops
    #[arg(long)]
    laptops: Option<usize>,
    /// Backups at once
    #[arg(long)]
    slots: Option<usize>,
    /// Days; the first two are not counted (one with 100,000 machines)
    #[arg(long)]
    days: Option<u32>,
    /// Nothing breaks
    #[arg(long)]
    no_faults: bool,
    /// Times the length of every run
    #[arg(long, value_name = "FACTOR")]
    run_scale: Option<f64>,
    /// Median length of a laptop's online stretch, in minutes
    #[arg(long, value_name = "MINUTES")]
    stretch: Option<f64>,
    /// Percent of homes and places on the way that let no UDP pass
    #[arg(long, value_name = "PERCENT")]
    blocked: Option<f64>,
    /// Simulations at a time
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tables in Markdown
    #[arg(long)]
    markdown: bool,
    /// Write plots into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write each result into this file as soon as it is there, and do not run again what it has
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Run nothing: print what the file has
    #[arg(long, requires = "keep")]
    report: bool,
    /// A short run with fixed seeds; fails if something is not as promised
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    /// 200 desktops and 150 laptops, 12 slots, 28 days
    Seed,
    /// 10,000 machines, 64 slots, 14 days
    #[value(name = "10k")]
    TenThousand,
    /// 100,000 machines, 930 slots, 5 days
    #[value(name = "100k")]
    HundredThousand,
}

impl Args {
    fn case(&self) -> Case {
        let base = match self.case {
            Size::Seed => Case::seed(),
            Size::TenThousand => Case::ten_thousand(),
            Size::HundredThousand => Case::hundred_thousand(),
        };
        let mut case = Case {
            desktops: self.desktops.unwrap_or(base.desktops),
            laptops: self.laptops.unwrap_or(base.laptops),
            slots: self.slots.unwrap_or(base.slots).max(1),
            days: self.days.unwrap_or(base.days).max(base.warm_up + 1),
            faults: if self.no_faults { Faults::Off } else { Faults::On },
            run_scale: self.run_scale.unwrap_or(1.0),
            stretch: self.stretch.unwrap_or(base.stretch),
            blocked: self.blocked.map_or(base.blocked, |percent| percent / 100.0),
            ..base
        };
        if self.desktops.is_some() || self.laptops.is_some() {
            case.name = format!("{} machines", case.machines());
        }
        case
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args, &mut std::io::stdout().lock()) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, out: &mut dyn Write) -> std::io::Result<ExitCode> {
    if args.check {
        let findings = check::check();
        for finding in &findings {
            let word = if finding.holds { "ok  " } else { "FAIL" };
            writeln!(out, "{word} {}: {}", finding.promise, finding.found)?;
        }
        let failed = findings.iter().any(|finding| !finding.holds);
        return Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let case = args.case();
    let arms = if args.arms.is_empty() { Arm::ALL.to_vec() } else { args.arms.clone() };
    let (keep, before) = match &args.keep {
        Some(path) => Keep::open(path, &case).map(|(keep, before)| (Some(keep), before))?,
        None => (None, Runs::new()),
    };
    let told = |arm: Arm, seed: u64, result: &matrix::Result| {
        let kept = keep.as_ref().map_or(Ok(()), |keep| keep.put(arm, seed, result));
        let lost = kept.err().map_or_else(String::new, |error| format!(", but it cannot be kept: {error}"));
        let _ = writeln!(std::io::stderr(), "done: {}, seed {seed}{lost}", arm.name());
    };
    let seeds = if args.report { 0 } else { args.seeds.max(1) };
    let runs = matrix::run(&case, &arms, seeds, args.threads, before, &told);
    let style = if args.markdown { Style::Markdown } else { Style::Text };
    let differences = differences(&runs, style);
    let results = matrix::results(runs);
    writeln!(out, "{}{differences}\n{}", tables(&case, &results, style), speeds(&results))?;
    if let Some(directory) = &args.out {
        std::fs::create_dir_all(directory)?;
        let shown = [Arm::ServerDial, Arm::Poll60, Arm::Hybrid];
        let few = results
            .iter()
            .filter(|(arm, _)| shown.contains(arm))
            .map(|(arm, all)| (*arm, all.clone()))
            .collect();
        let kind = case.machines();
        for (name, plot) in
            [("staleness", plot::staleness(&case.name, &results)), ("load", plot::load(&case.name, &few))]
        {
            std::fs::write(directory.join(format!("fleet-{kind}-{name}.svg")), plot::svg(&plot))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
