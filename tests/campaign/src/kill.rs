//! `kill -9`: a story is ended at each of its system calls, and at random times.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backhaul_tests::dice::Dice;

use crate::laws::{Acknowledged, Depth, verify};
use crate::local::Failure;
use crate::stage::Stage;
use crate::story::{Story, prepare};
use crate::teller::{Ending, Teller};
use crate::trace;

/// What came of many kills.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Tellings.
    pub points: u64,
    /// Those that were killed before their end.
    pub killed: u64,
    /// Snapshots restored and found equal.
    pub restored: u64,
    /// Laws broken, with what leads there again.
    pub broken: Vec<String>,
}

/// A prepared vault, and where each point's copy of it goes.
pub struct Ground<'a> {
    /// Who tells.
    pub teller: &'a Teller,
    /// What.
    pub story: Story,
    /// The truth.
    pub stage: &'a Stage,
    work: &'a Path,
    before: Acknowledged,
}

impl<'a> Ground<'a> {
    /// Prepares a vault below `work`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(teller: &'a Teller, story: Story, stage: &'a Stage, work: &'a Path) -> Result<Self, Failure> {
        let home = work.join("prepared");
        let _ = fs::remove_dir_all(&home);
        let before = std::cell::RefCell::new(Acknowledged::default());
        prepare(story, &home, stage, &|told| before.borrow_mut().hear(told))?;
        Ok(Self { teller, story, stage, work, before: before.into_inner() })
    }

    /// Where a point's vault is.
    pub fn vault(&self) -> std::path::PathBuf {
        self.work.join("vault")
    }

    /// Where tracers write.
    pub fn log(&self) -> std::path::PathBuf {
        self.work.join("trace")
    }

    /// A fresh copy of the prepared vault.
    pub fn reset(&self) {
        let vault = self.vault();
        let _ = fs::remove_dir_all(&vault);
        copy(&self.work.join("prepared"), &vault);
    }

    /// Tells the story to a fresh copy, under a tracer.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn tell(&self, wrap: &[String]) -> Result<Ending, Failure> {
        self.reset();
        self.teller.tell(wrap, self.story, (&self.vault(), self.work), &mut |_| ())
    }

    /// Tells the story to a fresh copy, and nothing happens to it; how long that takes.
    ///
    /// # Errors
    /// It fails by itself, or is not about what it should be.
    pub fn whole(&self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let whole = self.tell(&[])?;
        let length = begun.elapsed();
        match whole.code {
            Some(0) => self.story.assured(&whole.told).map(|()| length),
            _ => Err(format!("the story {:?} fails by itself: {}", self.story, whole.complaint)),
        }
    }

    /// Asks the laws of what is left; returns how many snapshots were restored.
    ///
    /// # Errors
    /// The law that is broken.
    pub fn judge(&self, ending: &Ending) -> Result<u64, Failure> {
        let mut acknowledged = self.before.clone();
        ending.told.iter().for_each(|word| acknowledged.hear(*word));
        let scratch = self.work.join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        verify(&self.vault(), self.stage, &acknowledged, Depth::Next, &scratch).map(|seen| seen.restored)
    }

    /// How a broken law is named.
    pub fn name(&self, where_: &str, why: &str) -> String {
        format!("{}, {where_}: {why}", format!("{:?}", self.story).to_lowercase())
    }
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Kills at system calls 1, 1 + `step`, … that change something, until a telling ends by itself, then `random` times at any time.
///
/// # Errors
/// The story cannot be told, or fails without being killed.
pub fn sweep(
    ground: &Ground<'_>,
    (seed, step, random): (u64, u64, u64),
    most: usize,
) -> Result<Outcome, Failure> {
    let (mut outcome, length) = (Outcome::default(), ground.whole()?);
    for call in trace::CHANGES.split(',') {
        let mut nth = 1;
        while outcome.broken.len() < most {
            let ending = ground.tell(&trace::inject(call, "signal=KILL", nth, &ground.log()))?;
            let ended = ending.code == Some(0);
            count(ground, &mut outcome, &ending, &format!("killed at {call} {nth}"));
            if ended {
                break;
            }
            nth += step.max(1);
        }
    }
    for n in 0..random {
        if outcome.broken.len() >= most {
            break;
        }
        let after = Dice::of(seed, n).below(length.as_micros() as u64 + 1);
        let ending = at_a_time(ground, Duration::from_micros(after))?;
        count(ground, &mut outcome, &ending, &format!("seed {seed}, case {n}, killed after {after} µs"));
    }
    Ok(outcome)
}

fn count(ground: &Ground<'_>, outcome: &mut Outcome, ending: &Ending, place: &str) {
    outcome.points += 1;
    outcome.killed += u64::from(ending.code != Some(0));
    match ground.judge(ending) {
        Ok(restored) => outcome.restored += restored,
        Err(why) => outcome.broken.push(ground.name(place, &why)),
    }
}

/// Tells the story and kills the teller some time after it began.
fn at_a_time(ground: &Ground<'_>, after: Duration) -> Result<Ending, Failure> {
    use std::io::{BufRead, BufReader};
    ground.reset();
    let mut command = ground.teller.command(&[], ground.story, &ground.vault(), ground.work);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let output = child.stdout.take().unwrap();
    std::thread::sleep(after);
    child.kill().map_err(|error| error.to_string())?;
    let status = child.wait().map_err(|error| error.to_string())?;
    let told = BufReader::new(output).lines().map_while(Result::ok);
    let told = told.filter_map(|line| crate::teller::read(&line)).collect();
    Ok(Ending { told, code: status.code(), complaint: String::new() })
}
