//! `campaign`: runs a suite and says what held.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backhaul_campaign::daemons::{self, Victim};
use backhaul_campaign::flips::{self, Flips};
use backhaul_campaign::kill::Ground;
use backhaul_campaign::real::Real;
use backhaul_campaign::sabotage::{Bench, Verdict};
use backhaul_campaign::stage::Stage;
use backhaul_campaign::story::Story;
use backhaul_campaign::teller::{self, Teller};
use backhaul_campaign::{around, fault, kill, misplace, power, record, rot, sync, trace, twice};
use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "Examples:
  campaign power --states 10000 --seed 3 --stories backup,pair
  campaign kill --step 1 --random 200
  campaign fault --stories commit";

/// Attacks the store as the world does, and asks what must hold.
#[derive(Debug, Parser)]
#[command(name = "campaign", version, after_help = EXAMPLES)]
struct Args {
    /// Where vaults are made: best in memory
    #[arg(long, global = true, default_value = "/dev/shm")]
    work: PathBuf,
    /// Cases follow from it
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Of these stories only
    #[arg(long, global = true, value_enum, value_delimiter = ',')]
    stories: Vec<Story>,
    /// Broken laws after which a story ends
    #[arg(long, global = true, default_value_t = 5)]
    most: usize,
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Clone, Subcommand)]
enum Suite {
    /// States in which a power cut can leave the disk
    Power {
        /// How many, of each story
        #[arg(long, default_value_t = 1_000)]
        states: u64,
    },
    /// Kills at each system call that changes something, and at random times
    Kill {
        /// Kill at every such call, every second, …
        #[arg(long, default_value_t = 1)]
        step: u64,
        /// Kills at random times, of each story
        #[arg(long, default_value_t = 20)]
        random: u64,
    },
    /// Each place where the vault is touched fails in each way
    Fault {
        /// Every place, every second, …
        #[arg(long, default_value_t = 1)]
        step: u64,
    },
    /// Kills the real server, agent and a command while they work
    Daemons {
        /// Who is killed; all if not given
        #[arg(long, value_enum, value_delimiter = ',')]
        victims: Vec<Victim>,
        /// They are killed at one of so many first calls of a thread
        #[arg(long, default_value_t = 120)]
        calls: u64,
        /// At each of these, every second, …
        #[arg(long, default_value_t = 1)]
        step: u64,
        /// And so often at random times within a second
        #[arg(long, default_value_t = 20)]
        random: u64,
        /// So many at once, each with homes of its own
        #[arg(long, default_value_t = 2)]
        workers: usize,
    },
    /// Each place where the real server, agent and commands touch what is not the vault fails once
    Around {
        /// Who meets it; all if not given
        #[arg(long, value_enum, value_delimiter = ',')]
        victims: Vec<Victim>,
        /// Every place, every second, …
        #[arg(long, default_value_t = 1)]
        step: u64,
    },
    /// Bits flip, ends and blocks go in every kind of file, and the real program is asked
    Rot {
        /// How many
        #[arg(long, default_value_t = 100)]
        cases: u64,
    },
    /// Each sync fails once, and what it was to keep is lost
    Sync {
        /// Every sync, every second, …
        #[arg(long, default_value_t = 1)]
        step: u64,
        /// States of the disk after each
        #[arg(long, default_value_t = 20)]
        states: u64,
    },
    /// A kill, another process that goes on, and a power cut
    Twice {
        /// Kills, of each story
        #[arg(long, default_value_t = 50)]
        points: u64,
        /// States of the disk after each
        #[arg(long, default_value_t = 20)]
        states: u64,
    },
    /// Every bit, cut and block of every file of a small vault
    Flips {
        /// Notes which are done, and is gone on from
        #[arg(long, default_value = "flips.list")]
        list: PathBuf,
        /// At once
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Files of a small vault that are exchanged, duplicated, older, foreign or too many
    Misplace,
    /// Breaks each law on purpose: each time the suites must notice
    Sabotage {
        /// This program, built with `--features backhaul-object/sabotage --target-dir target/sabotage`
        #[arg(long, default_value = "target/sabotage/debug/campaign")]
        program: PathBuf,
        /// Of these breaches only
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Tells a story to a vault, as the suites start it
    #[command(hide = true)]
    Tell {
        /// Which
        #[arg(value_enum)]
        story: Story,
        /// The vault
        vault: PathBuf,
    },
}

impl Suite {
    fn is_of_stories(&self) -> bool {
        matches!(
            self,
            Self::Power { .. }
                | Self::Sync { .. }
                | Self::Kill { .. }
                | Self::Fault { .. }
                | Self::Twice { .. }
        )
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.suite {
        Suite::Tell { story, vault } => teller::tell(*story, vault, &args.work).map(|()| 0),
        _ => run(&args, &mut std::io::stdout().lock()),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "campaign: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns how many laws were broken.
fn run(args: &Args, out: &mut dyn Write) -> Result<usize, String> {
    let said = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&args.work).map_err(said)?;
    let work = tempfile::Builder::new().prefix("campaign-").tempdir_in(&args.work).map_err(said)?;
    let stage = Stage::at(work.path());
    let stories =
        if args.stories.is_empty() { Story::value_variants().to_vec() } else { args.stories.clone() };
    let teller = Teller { program: std::env::current_exe().map_err(said)?, breach: None };
    let mut count = 0;
    for ran in real(args, &stage, work.path())? {
        count += report(out, &ran)?;
    }
    if !args.suite.is_of_stories() {
        return Ok(count);
    }
    for story in stories {
        count += report(out, &one(args, &teller, story, &stage, work.path())?)?;
    }
    Ok(count)
}

/// What a suite came to.
struct Ran {
    line: String,
    /// In which something happened that it is about.
    cases: u64,
    broken: Vec<String>,
}

/// Returns how many laws were broken. Where nothing has happened nothing is said to hold.
fn report(out: &mut dyn Write, Ran { line, cases, broken }: &Ran) -> Result<usize, String> {
    let mut print = || {
        writeln!(out, "{line}, {} broken", broken.len())?;
        broken.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        out.flush()
    };
    print().map_err(|error| error.to_string())?;
    match (cases, broken.len()) {
        (0, 0) => Err(format!("{line}: nothing has happened, so nothing is known")),
        (_, count) => Ok(count),
    }
}

/// A law that was broken on purpose and nobody noticed is what is wrong.
fn verdict(verdict: Verdict) -> Ran {
    let (line, broken) = match verdict.noticed {
        Some(why) => (format!("red: {}: {why}", verdict.name), vec![]),
        None => (format!("GREEN: {}", verdict.name), vec!["nobody noticed".to_owned()]),
    };
    Ran { line, cases: 1, broken }
}

/// The suites that drive the real program.
fn real(args: &Args, stage: &Stage, work: &Path) -> Result<Vec<Ran>, String> {
    let seed = args.seed;
    match &args.suite {
        Suite::Daemons { victims, .. } | Suite::Around { victims, .. } => {
            let victims = if victims.is_empty() { Victim::value_variants() } else { &victims[..] };
            victims.iter().map(|victim| of(args, *victim, stage, work)).collect()
        }
        Suite::Rot { cases } => {
            let real = Real::prepare(stage, work, 2)?;
            let rot::Outcome { cases, named, harmless, mended, kinds, broken } =
                rot::explore(&real, (seed, *cases), args.most);
            let kinds: Vec<String> = kinds
                .iter()
                .map(|(kind, (cases, named, mended))| format!("{kind} {cases}/{named}/{mended}"))
                .collect();
            let line = format!(
                "rot seed {seed}: {cases} cases, {named} named, {harmless} harmless, {mended} mended (cases/named/mended: {})",
                kinds.join(", ")
            );
            Ok(vec![Ran { line, cases, broken }])
        }
        Suite::Flips { list, threads } => {
            let flips = Flips::new(work);
            let flips::Outcome { cases, noticed, broken, .. } = flips.all(list, *threads, work)?;
            let line = format!("flips: {cases} of {} cases, {noticed} noticed", flips.cases);
            Ok(vec![Ran { line, cases, broken }])
        }
        Suite::Misplace => {
            let misplace::Outcome { cases, noticed, broken } = misplace::explore(work, 1);
            Ok(vec![Ran { line: format!("misplace: {cases} cases, {noticed} noticed"), cases, broken }])
        }
        Suite::Sabotage { program, only } => {
            tracer()?;
            let bench = Bench { program: program.clone(), stage, work, seed, only: only.clone() };
            match bench.run()? {
                none if none.is_empty() => Err(format!("none of the breaches is {}", only.join(" or "))),
                verdicts => Ok(verdicts.into_iter().map(verdict).collect()),
            }
        }
        _ => Ok(Vec::new()),
    }
}

/// One suite on one victim.
fn of(args: &Args, victim: Victim, stage: &Stage, work: &Path) -> Result<Ran, String> {
    let seed = args.seed;
    match &args.suite {
        Suite::Daemons { calls, step, random, workers, .. } => {
            tracer()?;
            let whens = daemons::whens(seed, *calls, *step, *random);
            let done = daemons::at_once(stage, work, victim, &whens, (*workers, args.most))?;
            let daemons::Outcome { points, killed, restored, broken } = done;
            let line = format!(
                "daemons {victim:?} seed {seed}: {points} points ({killed} killed), {restored} snapshots restored"
            );
            Ok(Ran { line, cases: killed, broken })
        }
        Suite::Around { step, .. } => {
            mounter()?;
            let done = around::sweep(stage, work, victim, (seed, *step), args.most)?;
            let fault::Outcome { sites, refused, restored, broken } = done;
            let line = format!(
                "around {victim:?} seed {seed}: {sites} faults ({refused} refused aloud), {restored} snapshots restored"
            );
            Ok(Ran { line, cases: sites, broken })
        }
        _ => Err("no suite of victims".to_owned()),
    }
}

/// One suite on one story: what was done, and what was broken.
fn one(args: &Args, teller: &Teller, story: Story, stage: &Stage, work: &Path) -> Result<Ran, String> {
    let seed = args.seed;
    match args.suite {
        Suite::Power { states } => {
            mounter()?;
            let recorded = power::record(teller, story, stage, work)?;
            let done = recorded.explore(story, stage, work, (seed, states), args.most);
            let power::Outcome { operations, states, distinct, restored, broken } = done;
            let line = format!(
                "power {story:?} seed {seed}: {states} states ({distinct} distinct) of {operations} operations, {restored} snapshots restored"
            );
            Ok(Ran { line, cases: states, broken })
        }
        Suite::Kill { step, random } => {
            tracer()?;
            let ground = Ground::new(teller, story, stage, work)?;
            let kill::Outcome { points, killed, restored, broken } =
                kill::sweep(&ground, (seed, step, random), args.most)?;
            let line = format!(
                "kill {story:?} seed {seed}: {points} points ({killed} killed), {restored} snapshots restored"
            );
            Ok(Ran { line, cases: killed, broken })
        }
        Suite::Fault { step } => {
            tracer()?;
            mounter()?;
            let ground = Ground::new(teller, story, stage, work)?;
            let fault::Outcome { sites, refused, restored, broken } = fault::sweep(&ground, step, args.most)?;
            let line = format!(
                "fault {story:?}: {sites} faults ({refused} refused aloud), {restored} snapshots restored"
            );
            Ok(Ran { line, cases: sites, broken })
        }
        Suite::Sync { step, states } => {
            mounter()?;
            let done = sync::sweep(teller, story, (stage, work), (seed, step, states), args.most)?;
            let sync::Syncs { failed, refused, seen } = done;
            let line = format!(
                "sync {story:?} seed {seed}: {failed} syncs failed ({refused} refused aloud), {} states ({} distinct), {} snapshots restored",
                seen.states, seen.distinct, seen.restored
            );
            Ok(Ran { line, cases: failed, broken: seen.broken })
        }
        Suite::Twice { points, states } => {
            mounter()?;
            let done = twice::sweep(teller, story, (stage, work), (seed, points, states), args.most)?;
            let twice::Twice { killed, refused, seen } = done;
            let line = format!(
                "twice {story:?} seed {seed}: {killed} kills ({refused} refused aloud), {} states ({} distinct), {} snapshots restored",
                seen.states, seen.distinct, seen.restored
            );
            Ok(Ran { line, cases: seen.states, broken: seen.broken })
        }
        _ => Err("no suite of stories".to_owned()),
    }
}

fn mounter() -> Result<(), String> {
    if record::available() { Ok(()) } else { Err("needs root and /dev/fuse".to_owned()) }
}

fn tracer() -> Result<(), String> {
    if trace::available() { Ok(()) } else { Err("needs strace".to_owned()) }
}
