//! Laws broken on purpose: a suite that stays green then proves nothing.
//!
//! Everything is built with the feature `sabotage` of `backhaul-object`, into a target directory of its own, and told
//! which law to break. Stories are told by that build and judged by this program, which breaks none; where a law is not
//! the store's alone, it is an end-to-end test that must turn red. Each must be green in the same build while nothing is
//! broken: else its red would say nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kill::{Ground, sweep};
use crate::local::Failure;
use crate::stage::Stage;
use crate::story::Story;
use crate::teller::Teller;
use crate::{fault, power, record, sync};

/// Who must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suite {
    Power(Story),
    Sync(Story),
    Kill(Story),
    Fault(Story),
    /// A test of `tests/e2e`.
    Test(&'static str),
}

/// Law, breach (as `backhaul_object::breach` names it), and what must turn red.
const BREACHES: [(&str, &str, Suite); 13] = [
    ("L1", "UnsyncedPacks", Suite::Power(Story::Backup)),
    ("L1", "ManifestFirst", Suite::Power(Story::Backup)),
    ("L1", "RevivedEarly", Suite::Power(Story::Heal)),
    ("L2", "SwallowedWrite", Suite::Fault(Story::Backup)),
    ("L3", "RetriedSync", Suite::Sync(Story::Stubborn)),
    ("L4", "Unfenced", Suite::Kill(Story::Rely)),
    ("L5", "BelievedState", Suite::Kill(Story::Heal)),
    ("L6", "ForgetfulRebuild", Suite::Kill(Story::Rebuild)),
    (
        "L7",
        "UncheckedContent",
        Suite::Test("lies::objects_that_are_not_what_their_headers_say_are_refused_by_name"),
    ),
    ("L8", "RepairInPlace", Suite::Power(Story::Mend)),
    (
        "L9",
        "Unlimited",
        Suite::Test("lies::counts_that_are_not_true_and_questions_out_of_turn_are_refused_by_name"),
    ),
    ("L10", "NoFloor", Suite::Test("keep::what_no_rule_keeps_is_hidden_and_can_be_had_back")),
    (
        "L10",
        "UnheededBrake",
        Suite::Test("keep::the_brake_holds_everything_when_a_client_rewrites_its_files_at_once"),
    ),
];

/// What came of one breach.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Law, breach, suite and story.
    pub name: String,
    /// The first law that was seen broken; none if nobody noticed.
    pub noticed: Option<String>,
}

/// Where everything is.
pub struct Bench<'a> {
    /// The sabotaged teller, in `debug` or `release` of a target directory.
    pub program: PathBuf,
    /// The truth.
    pub stage: &'a Stage,
    /// For vaults.
    pub work: &'a Path,
    /// Cases follow from it.
    pub seed: u64,
    /// Breaches to try; all if empty.
    pub only: Vec<String>,
}

impl Bench<'_> {
    /// Breaks each law in its turn.
    ///
    /// # Errors
    /// A suite cannot be run at all, or is red without a breach.
    pub fn run(&self) -> Result<Vec<Verdict>, Failure> {
        let mut sound = Vec::new();
        let chosen = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let mut verdicts = Vec::new();
        for (law, breach, suite) in BREACHES.into_iter().filter(|(_, breach, _)| chosen(breach)) {
            let name = format!("{law} {breach}: {suite:?}");
            if !sound.contains(&suite) {
                if let Some(why) = self.broken(suite, None)? {
                    return Err(format!("{name}: red though nothing is broken: {why}"));
                }
                sound.push(suite);
            }
            verdicts.push(Verdict { name, noticed: self.broken(suite, Some(breach))? });
        }
        Ok(verdicts)
    }

    /// The first thing that a suite finds.
    fn broken(&self, suite: Suite, breach: Option<&str>) -> Result<Option<String>, Failure> {
        let teller = Teller { program: self.program.clone(), breach: breach.map(str::to_owned) };
        let needs_mount = matches!(suite, Suite::Power(_) | Suite::Sync(_) | Suite::Fault(_));
        if needs_mount && !record::available() {
            return Err(format!("{suite:?} needs root and /dev/fuse"));
        }
        let ground = |story| Ground::new(&teller, story, self.stage, self.work);
        let broken = match suite {
            Suite::Power(story) => power::record(&teller, story, self.stage, self.work)
                .map(|recorded| recorded.explore(story, self.stage, self.work, (self.seed, 2_000), 1).broken),
            Suite::Sync(story) => sync::sweep(&teller, story, (self.stage, self.work), (self.seed, 1, 10), 1)
                .map(|outcome| outcome.seen.broken),
            Suite::Kill(story) => sweep(&ground(story)?, (self.seed, 10, 0), 1).map(|outcome| outcome.broken),
            Suite::Fault(story) => fault::sweep(&ground(story)?, 1, 1).map(|outcome| outcome.broken),
            // What keeps the test itself from running is no red.
            Suite::Test(name) => return self.test(name, breach),
        };
        match broken {
            Ok(broken) => Ok(broken.into_iter().next()),
            // A story that fails by itself.
            Err(why) => Ok(Some(why)),
        }
    }

    /// Runs an end-to-end test of the sabotaged build; says what failed.
    fn test(&self, name: &str, breach: Option<&str>) -> Result<Option<String>, Failure> {
        let profile = self.program.parent().unwrap_or(Path::new("."));
        let target = profile.parent().unwrap_or(Path::new("."));
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(["test", "--quiet", "--workspace", "--features", "backhaul-object/sabotage"]);
        command.arg("--target-dir").arg(target).args(["--test", "e2e", "--", "--exact", name]);
        command.env("BACKHAUL_PROGRAM", std::path::absolute(profile.join("backhaul")).unwrap_or_default());
        command.env_remove("BACKHAUL_BREACH").envs(breach.map(|breach| ("BACKHAUL_BREACH", breach)));
        let output = command.output().map_err(|error| format!("cargo: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return match said.contains("1 passed") {
                true => Ok(None),
                false => Err(format!("no test {name}: {said}")),
            };
        }
        match said.lines().find(|line| line.contains("panicked at")) {
            Some(place) => Ok(Some(place.trim().to_owned())),
            None => Err(format!("{name}: {said}{}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}
