//! Laws broken on purpose: a suite that stays green then proves nothing.
//!
//! The teller is built with the feature `sabotage` of the store, into a target directory of its own, and told which law
//! to break; what it leaves is judged by this program, which breaks none.

use std::path::{Path, PathBuf};

use crate::kill::{Ground, sweep};
use crate::local::Failure;
use crate::stage::Stage;
use crate::story::Story;
use crate::teller::Teller;
use crate::{fault, power, record};

/// Which suite must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suite {
    Power,
    Kill,
    Fault,
}

/// Law, breach (as the store names it), the suite that must turn red, and on which story.
const BREACHES: [(&str, &str, Suite, Story); 6] = [
    ("L1", "UnsyncedPacks", Suite::Power, Story::Backup),
    ("L1", "ManifestFirst", Suite::Power, Story::Backup),
    ("L2", "SwallowedWrite", Suite::Fault, Story::Backup),
    ("L4", "Unfenced", Suite::Kill, Story::Late),
    ("L6", "ForgetfulRebuild", Suite::Kill, Story::Rebuild),
    ("L8", "RepairInPlace", Suite::Power, Story::Mend),
];

/// What came of one breach.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Law, breach, suite and story.
    pub name: String,
    /// The first law that was seen broken; none if nobody noticed.
    pub noticed: Option<String>,
}

/// Breaks each law in its turn; `program` is the sabotaged teller.
///
/// # Errors
/// A suite cannot be run at all.
pub fn run(program: PathBuf, stage: &Stage, work: &Path, seed: u64) -> Result<Vec<Verdict>, Failure> {
    let one = |(law, breach, suite, story): &(&str, &str, Suite, Story)| {
        let teller = Teller { program: program.clone(), breach: Some((*breach).to_owned()) };
        let broken = match suite {
            Suite::Power if !record::available() => return Err("power needs root and /dev/fuse".to_owned()),
            Suite::Power => match power::record(&teller, *story, stage, work) {
                Ok(recorded) => recorded.explore(*story, stage, work, (seed, 2_000), 1).broken,
                Err(why) => vec![why],
            },
            Suite::Kill => match sweep(&Ground::new(&teller, *story, stage, work)?, (seed, 10, 0), 1) {
                Ok(outcome) => outcome.broken,
                Err(why) => vec![why],
            },
            Suite::Fault => fault::sweep(&Ground::new(&teller, *story, stage, work)?, 1, 1)?.broken,
        };
        let name = format!("{law} {breach}: {suite:?} {story:?}");
        Ok(Verdict { name, noticed: broken.into_iter().next() })
    };
    BREACHES.iter().map(one).collect()
}
